"""Temporal token merging, which any method can be combined with (in the spirit of TempMe, Shen et al. 2025).

With LoRA it is closest to TempMe. It includes neither merging within a frame nor the paper's schedule over many stages.
"""

import torch
import torch.nn.functional as F
from pydantic import ConfigDict
from torch import Tensor

from rap.adapters.base import Adapter, Stack
from rap.adapters.layers import Blocks, chosen
from rap.clip.towers import Clip, Context, Tuner, VideoTower
from rap.params import Section


class Options(Section):
    blocks: Blocks = ()  # the blocks at whose input pairs of frames are merged

    model_config = ConfigDict(strict=False)


class Merge(Tuner):
    """Merges frames 2 t and 2 t + 1: averages their [CLS], and each patch of the first with its nearest in the second.

    A last frame without a partner, or with a partner in the padding, stays unchanged.
    """

    def __init__(self, tower: VideoTower, options: Options):
        super().__init__()
        self.blocks = chosen(options.blocks, tower)
        self.first_block, self.cls = min(self.blocks), tower.class_tokens

    def edit(self, layer: int, site: str, x: Tensor, source: Tensor | None, context: Context) -> Tensor:
        if site != "input" or layer not in self.blocks:
            return x
        frames = x.shape[1]
        x = F.pad(x, (0, 0, 0, 0, 0, frames % 2))
        first, second = x[:, 0::2], x[:, 1::2]
        alone = (torch.arange(1, frames + 1, 2, device=x.device) >= context.length[:, None])[..., None, None]
        context.length = (context.length + 1) // 2
        return torch.where(alone, first, merged(first, second, self.cls))


def merged(first: Tensor, second: Tensor, cls: int) -> Tensor:
    """Average two frames [..., cls + N, D] over pairs of nearest patches, by cosine. The matching has no gradient."""
    with torch.no_grad():
        a, b = (F.normalize(x[..., cls:, :], dim=-1) for x in (first, second))
        nearest = (a @ b.transpose(-1, -2)).argmax(-1, keepdim=True) + cls
    partner = second.gather(-2, nearest.expand_as(first[..., cls:, :]))
    return (first + torch.cat([second[..., :cls, :], partner], dim=-2)) / 2


def merging(adapter: Adapter, clip: Clip, options: Options) -> Adapter:
    """The adapter, after the merges: at the same block, frames are merged before the adapter edits them."""
    if options.blocks:
        adapter.video = Stack(Merge(clip.visual, options), adapter.video)
    return adapter
