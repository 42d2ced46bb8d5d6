"""Projection: trains only the two linear maps into the joint space."""

import torch
from torch import Tensor, nn

from rap.adapters.base import Adapter
from rap.adapters.registry import register
from rap.clip.towers import Clip, Context, Tower, Tuner


class Projection(Tuner):
    """h W + h U. W is frozen; U [D, E] is trained and zero at step 0: an identity."""

    def __init__(self, tower: Tower, embed_dim: int):
        super().__init__()
        self.first_block = tower.layers
        self.update = nn.Parameter(torch.zeros(tower.pooled_width, embed_dim))

    def edit(self, layer: int, site: str, x: Tensor, source: Tensor | None, context: Context) -> Tensor:
        if site != "joint":
            return x
        assert source is not None  # a tower passes the input of the linear map at this site
        return x + source @ self.update


@register("projection", blocks=lambda: False)
def build(clip: Clip, frames: int) -> Adapter:
    """The projections into the joint space, both towers (linear probing of CLIP, Radford et al. 2021)

    Parameters: D E for each tower.
    """
    return Adapter(Projection(clip.visual, clip.embed_dim), Projection(clip.text, clip.embed_dim))
