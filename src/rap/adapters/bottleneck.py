"""Bottleneck adapters: small residual MLPs after attention and after the FFN."""

from typing import Literal

import torch.nn.functional as F
from pydantic import ConfigDict
from torch import Tensor, nn

from rap.adapters.base import Adapter
from rap.adapters.registry import register
from rap.clip.towers import Clip, Context, Tower, Tuner
from rap.params import Count, Section


class Options(Section):
    width: Count = 16
    sites: tuple[Literal["out", "proj"], ...] = ("out", "proj")

    model_config = ConfigDict(strict=False)


class Bottleneck(nn.Module):
    """x + up(GELU(down(x))); `up` is zero at step 0: an identity."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.down = nn.Linear(width, hidden)
        self.up = nn.Linear(hidden, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(F.gelu(self.down(x)))


class Bottlenecks(Tuner):
    """A bottleneck at each of the options' sites in every block."""

    first_block = 0

    def __init__(self, tower: Tower, options: Options):
        super().__init__()
        names = [f"{site}-{layer}" for layer in range(tower.layers) for site in options.sites]
        self.parts = nn.ModuleDict({name: Bottleneck(tower.width, options.width) for name in names})

    def edit(self, layer: int, site: str, x: Tensor, source: Tensor | None, context: Context) -> Tensor:
        name = f"{site}-{layer}"
        return self.parts[name](x) if name in self.parts else x


@register("bottleneck", bottleneck=Options)
def build(clip: Clip, frames: int, bottleneck: Options) -> Adapter:
    """Bottleneck adapters after attention and FFN, both towers (Houlsby et al. 2019)

    Parameters: for each tower, block and site 2 D w + D + w, where w is the width of the bottleneck.
    """
    return Adapter(Bottlenecks(clip.visual, bottleneck), Bottlenecks(clip.text, bottleneck))
