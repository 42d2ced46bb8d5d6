"""Partial fine-tuning: trains all weights of the last blocks."""

import copy
from typing import cast

from torch import nn

from rap.adapters.base import Adapter
from rap.adapters.registry import register
from rap.clip.towers import Block, Clip, Tower, Tuner
from rap.params import Count, Section


class Options(Section):
    blocks: Count = 1  # the number of blocks, counted from the last


class Last(Tuner):
    """Runs trained copies instead of the tower's last blocks."""

    def __init__(self, tower: Tower, count: int):
        super().__init__()
        self.first_block = max(0, tower.layers - count)
        blocks = {str(layer): tower.blocks[layer] for layer in range(self.first_block, tower.layers)}
        self.copies = nn.ModuleDict(copy.deepcopy(blocks)).requires_grad_(True)

    def block(self, layer: int, block: Block) -> Block:
        if str(layer) in self.copies:
            return cast(Block, self.copies[str(layer)])
        return block


@register("partial", partial=Options)
def build(clip: Clip, frames: int, partial: Options) -> Adapter:
    """The last blocks of both towers (partial fine-tuning, as a baseline in VPT, Jia et al. 2022)

    Parameters: for each tower and block 12 D^2 + 13 D (with an MLP four times as wide).
    """
    return Adapter(Last(clip.visual, partial.blocks), Last(clip.text, partial.blocks))
