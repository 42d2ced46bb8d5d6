"""A control: one trained weight for each frame position, on the frame embeddings of frozen CLIP."""

import torch
from torch import Tensor, nn

from rap.adapters.base import Adapter, Head
from rap.adapters.layers import at_frames
from rap.adapters.registry import register
from rap.clip.towers import Clip


class Weights(Head):
    """A weight for each frame, 1 at step 0: the mean. Clips of another length interpolate."""

    def __init__(self, frames: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(frames))

    def weights(self, length: Tensor, frames: int) -> Tensor:
        return at_frames(self.weight[:, None], length, frames)[..., 0]


@register("static", blocks=lambda: False)
def build(clip: Clip, frames: int) -> Adapter:
    """A control: a trained weight for each frame position, on frozen frame embeddings

    Parameters: T.
    """
    return Adapter(head=Weights(frames))
