"""VPT: learnt prompt tokens in every block of the video tower. Time-blind: the same prompts for all frames."""

import math

import torch
from torch import Tensor, nn

from rap.adapters.base import Adapter
from rap.adapters.registry import register
from rap.clip.towers import Clip, Context, Tower, Tuner
from rap.params import Count, Section


class Options(Section):
    prompts: Count = 8  # per block


class Prompts(Tuner):
    """P extra tokens per block, to which all tokens of the block attend.

    Each block replaces the prompts of the block before, so their outputs are never used. Computing only their keys and
    values is therefore exact.
    """

    first_block = 0

    def __init__(self, tower: Tower, count: int, lead: tuple[int, ...] = (1,)):
        """`lead`: the dimensions before [P, D], such as (1, 1) for the same prompts in all clips and frames."""
        super().__init__()
        bound = math.sqrt(6 / (count + tower.width))
        shape = (*lead, count, tower.width)
        self.tokens = nn.ParameterList(torch.empty(shape).uniform_(-bound, bound) for _ in range(tower.layers))

    def prompts(self, layer: int, x: Tensor, context: Context) -> Tensor:
        return self.tokens[layer]


@register("vpt", identity=False, vpt=Options)
def build(clip: Clip, frames: int, vpt: Options) -> Adapter:
    """Deep prompts in the video tower (VPT-deep, Jia et al. 2022)

    Parameters: P D per block of the video tower.
    """
    return Adapter(Prompts(clip.visual, vpt.prompts, (1, 1)))
