"""SSF: a scale and a shift per channel. Time-blind: the same for every frame."""

from typing import Literal

from pydantic import ConfigDict

from rap.adapters.base import Adapter
from rap.adapters.layers import Blocks, Channels, chosen
from rap.adapters.registry import register
from rap.clip.towers import Clip
from rap.params import Section

Site = Literal["input", "ln_1", "qkv", "out", "ln_2", "fc", "proj"]


class Options(Section):
    sites: tuple[Site, ...] = ("ln_1", "qkv", "out", "ln_2", "fc", "proj")
    blocks: Blocks = "all"  # of the video tower

    model_config = ConfigDict(strict=False)


@register("ssf", ssf=Options)
def build(clip: Clip, frames: int, ssf: Options) -> Adapter:
    """Scale and shift after every operation of both towers (SSF, Lian et al. 2022)

    Parameters: for each tower and block, twice the channels of the chosen sites; 22 D for the default six.
    """
    blocks = chosen(ssf.blocks, clip.visual)
    return Adapter(Channels(clip.visual, ssf.sites, blocks), Channels(clip.text, ssf.sites))
