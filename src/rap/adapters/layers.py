"""Layers and helpers that several methods share."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor, nn

from rap.clip.towers import SITES, Clip, Context, Tower, Tuner
from rap.errors import UserError

Blocks = tuple[int, ...] | Literal["all", "lower half", "upper half", "upper third", "upper quarter"]
SHARES = {  # where the blocks begin and end, as shares of a tower's depth
    "all": (0, 1),
    "lower half": (0, 1 / 2),
    "upper half": (1 / 2, 1),
    "upper third": (2 / 3, 1),
    "upper quarter": (3 / 4, 1),
}


class Channels(Tuner):
    """x (1 + s) + c. s and c [channels of the site] are zero at step 0: an identity. Without `scale`: x + c."""

    def __init__(self, tower: Tower, sites: Iterable[str], blocks: Iterable[int] | None = None, scale: bool = True):
        super().__init__()
        blocks = list(range(tower.layers) if blocks is None else blocks)
        self.first_block = min(blocks)
        sizes = dict.fromkeys(SITES, tower.width) | {"ln_post": tower.pooled_width}
        if tower.blocks:
            sizes |= {site: tower.blocks[0].sizes[site][1] for site in ("qkv", "fc")}
        names = [(site, f"{site}-{layer}") for layer in blocks for site in sites]
        self.scale = nn.ParameterDict({name: torch.zeros(sizes[site]) for site, name in names if scale})
        self.shift = nn.ParameterDict({name: torch.zeros(sizes[site]) for site, name in names})

    def edit(self, layer: int, site: str, x: Tensor, source: Tensor | None, context: Context) -> Tensor:
        name = f"{site}-{layer}"
        if name in self.scale:
            return torch.addcmul(x + self.shift[name], x, self.scale[name])
        return x + self.shift[name] if name in self.shift else x


def at_frames(table: Tensor, length: Tensor, frames: int) -> Tensor:
    """Rows of a table over time [T, r] for clips with `length` [B] valid frames of `frames`: [B or 1, frames, r].

    If the number of valid frames is not T, the rows are interpolated over normalised time: frame i of n is at
    (i + 1/2) / n. Padded frames repeat the last row; the head masks them.
    """
    if frames == len(table) and full(length, frames):
        return table[None]
    time = (torch.arange(frames, device=table.device) + 0.5) / length[:, None]
    return interpolate(table, time * len(table) - 0.5)


@lru_cache(maxsize=1)
def full(length: Tensor, frames: int) -> bool:
    """Whether every clip has `frames` valid frames. Computed once per batch, not per block, because it syncs the GPU.

    The key of the cache is the tensor object. No code writes to this tensor in place.
    """
    return bool((length == frames).all())


def interpolate(table: Tensor, position: Tensor) -> Tensor:
    """Rows of `table` [T, r] at real positions [...]: linear between rows, constant outside. Returns [..., r]."""
    position = position.clamp(0, len(table) - 1)
    low = position.floor().long()
    weight = (position - low)[..., None]
    return (1 - weight) * table[low] + weight * table[(low + 1).clamp(max=len(table) - 1)]


def chosen(blocks: Blocks, tower: Tower) -> list[int]:
    """Block numbers; negative ones count from the end. Raises UserError for a block that the tower does not have."""
    if isinstance(blocks, str):
        low, high = SHARES[blocks]
        return list(range(min(round(low * tower.layers), tower.layers - 1), max(round(high * tower.layers), 1)))
    numbers = [block + tower.layers if block < 0 else block for block in blocks]
    if not numbers or not all(0 <= number < tower.layers for number in numbers):
        raise UserError(f"params.yaml: blocks: {list(blocks)}: the tower has blocks 0 to {tower.layers - 1}")
    return numbers


def text_tuner(clip: Clip, kind: str) -> Tuner:
    """The text tower's tuner: a scale and a shift per channel at each block's input (`kind` "scale"), or none.

    For a tower that is used whole, they apply to its embedding.
    """
    if kind != "scale":
        return Tuner()
    return Channels(clip.text, ("ln_post",), [0]) if clip.text.whole else Channels(clip.text, ("input",))
