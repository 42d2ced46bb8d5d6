"""SSF: a scale and a shift per channel. Blind to time: every frame is treated alike."""

from collections.abc import Iterable
from typing import Literal

import torch
from pydantic import ConfigDict
from torch import Tensor, nn

from rap.adapters import Adapter, register
from rap.clip.towers import SITES, Clip, Tower, Tuner
from rap.params import Section

Site = Literal["input", "ln_1", "qkv", "out", "ln_2", "fc", "proj"]


class Options(Section):
    sites: tuple[Site, ...] = ("ln_1", "qkv", "out", "ln_2", "fc", "proj")

    model_config = ConfigDict(strict=False)


class Channels(Tuner):
    """x (1 + s) + c with s, c [channels of the site], zero at step 0: an identity. Without `scale`: x + c."""

    def __init__(self, tower: Tower, sites: Iterable[str], blocks: Iterable[int] | None = None, scale: bool = True):
        super().__init__()
        blocks = list(range(tower.layers) if blocks is None else blocks)
        self.first_block = min(blocks)
        hidden = tower.transformer.resblocks[0].mlp["c_fc"].out_features
        sizes = dict.fromkeys((*SITES, "ln_post"), tower.width) | {"qkv": 3 * tower.width, "fc": hidden}
        names = [(site, f"{site}-{layer}") for layer in blocks for site in sites]
        self.scale = nn.ParameterDict({name: torch.zeros(sizes[site]) for site, name in names if scale})
        self.shift = nn.ParameterDict({name: torch.zeros(sizes[site]) for site, name in names})

    def edit(self, layer: int, site: str, x: Tensor, source: Tensor | None, context) -> Tensor:
        name = f"{site}-{layer}"
        if name in self.scale:
            return torch.addcmul(x + self.shift[name], x, self.scale[name])
        return x + self.shift[name] if name in self.shift else x


@register("ssf", ssf=Options)
def build(clip: Clip, frames: int, ssf: Options) -> Adapter:
    """Scale and shift after every operation of both towers (SSF, Lian et al. 2022)

    Parameters: for each tower and block, twice the channels of the chosen sites: 22 D for all six after an operation.
    """
    return Adapter(Channels(clip.visual, ssf.sites), Channels(clip.text, ssf.sites))
