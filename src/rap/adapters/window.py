"""A control: zero-shot CLIP, averaged over the last frames of a clip. Nothing is trained."""

import torch
from torch import Tensor

from rap.adapters.base import Adapter, Head
from rap.adapters.registry import register
from rap.clip.towers import Clip
from rap.params import Count, Section


class Options(Section):
    last: Count = 3  # frames, out of frames.count


class Window(Head):
    """The last frames of a clip have weight one, all others zero."""

    def __init__(self, share: float):
        super().__init__()
        self.share = share

    def weights(self, length: Tensor, frames: int) -> Tensor:
        left = length[:, None] - torch.arange(frames, device=length.device)  # frames up to the end, including this one
        return (left <= (self.share * length[:, None]).ceil()).float()


@register("window", blocks=lambda window: False, identity=False, window=Options)
def build(clip: Clip, frames: int, window: Options) -> Adapter:
    """A control: zero-shot CLIP over the last frames of a clip, nothing trained"""
    return Adapter(head=Window(min(1.0, window.last / frames)))
