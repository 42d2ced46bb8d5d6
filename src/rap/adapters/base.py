"""The base classes of methods."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from rap.clip.towers import Block, Clip, Context, Tuner


class Head(nn.Module):
    """A method's edit of the frame embeddings [B, T, E] of clips with `length` [B] valid frames."""

    def forward(self, x: Tensor, length: Tensor) -> Tensor:
        """Return the new frame embeddings. The base class: the same."""
        return x

    def weights(self, length: Tensor, frames: int) -> Tensor | None:
        """Return the weight of each frame in the clip embedding, [B or 1, T]; None: all frames weigh the same."""
        return None


class Adapter(nn.Module):
    """The trained part of a method: tuners of the towers, a `head` on the frame embeddings, or a trainable `clip`.

    `shuffled`: the method reads the frames of each clip in a random order.
    """

    shuffled = False

    def __init__(
        self,
        video: Tuner | None = None,
        text: Tuner | None = None,
        clip: Clip | None = None,
        head: Head | None = None,
    ):
        super().__init__()
        self.video, self.text, self.clip, self.head = video or Tuner(), text or Tuner(), clip, head or Head()

    @property
    def count(self) -> int:
        """The number of trainable parameters."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)


class Stack(Tuner):
    """Several tuners of one tower, applied in order at every site."""

    def __init__(self, *tuners: Tuner):
        super().__init__()
        self.tuners: Any = nn.ModuleList(tuners)
        self.first_block = min((t.first_block for t in tuners), default=math.inf)
        self.conditioned = min((t.conditioned for t in tuners), default=math.inf)

    def block(self, layer: int, block: Block) -> Block:
        for tuner in self.tuners:
            block = tuner.block(layer, block)
        return block

    def edit(self, layer: int, site: str, x: Tensor, source: Tensor | None, context: Context) -> Tensor:
        for tuner in self.tuners:
            x = tuner.edit(layer, site, x, source, context)
        return x

    def prompts(self, layer: int, x: Tensor, context: Context) -> Tensor | None:
        found = [p for p in (tuner.prompts(layer, x, context) for tuner in self.tuners) if p is not None]
        return torch.cat(found, dim=-2) if found else None

    def attend(self, layer: int, block: Block, x: Tensor, q: Tensor, attended: Tensor, context: Context) -> Tensor:
        for tuner in self.tuners:
            attended = tuner.attend(layer, block, x, q, attended, context)
        return attended
