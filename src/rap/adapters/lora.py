"""LoRA: a low-rank update of frozen linear layers."""

import math
from typing import Annotated, Literal

import torch
from pydantic import ConfigDict, Field
from torch import Tensor, nn

from rap.adapters.base import Adapter
from rap.adapters.registry import register
from rap.clip.towers import Clip, Context, Tower, Tuner
from rap.params import Count, Section


class Options(Section):
    rank: Count = 8
    alpha: Annotated[float, Field(gt=0)] = 8.0  # the update is scaled by alpha / rank
    targets: tuple[Literal["qkv", "out", "fc", "proj"], ...] = ("qkv", "out")

    model_config = ConfigDict(strict=False)


class LoRA(Tuner):
    """y + (alpha / rank) x A B at each target of every block; A is Kaiming-uniform, B zero: an identity at step 0."""

    first_block = 0

    def __init__(self, tower: Tower, options: Options):
        super().__init__()
        self.scale = options.alpha / options.rank
        sizes = tower.blocks[0].sizes
        names = [(site, f"{site}-{layer}") for layer in range(tower.layers) for site in options.targets]
        self.down = nn.ParameterDict({name: torch.empty(sizes[site][0], options.rank) for site, name in names})
        self.up = nn.ParameterDict({name: torch.zeros(options.rank, sizes[site][1]) for site, name in names})
        for weight in self.down.values():
            nn.init.kaiming_uniform_(weight.T, a=math.sqrt(5))

    def edit(self, layer: int, site: str, x: Tensor, source: Tensor | None, context: Context) -> Tensor:
        name = f"{site}-{layer}"
        return x + self.scale * (source @ self.down[name] @ self.up[name]) if name in self.down else x


@register("lora", lora=Options)
def build(clip: Clip, frames: int, lora: Options) -> Adapter:
    """LoRA in both towers (Hu et al. 2021)

    Parameters: for each tower, block and target of a x b, rank (a + b).
    """
    return Adapter(LoRA(clip.visual, lora), LoRA(clip.text, lora))
