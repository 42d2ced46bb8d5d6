"""The caches: the name of each, its position in the tower, and its rows, verified and read in batches."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from rap import paths
from rap.clip.towers import INPUT, Tower
from rap.errors import UserError
from rap.params import Params
from rap.shards import Shard

FRAMES = "frames"  # the input of the video tower, read like a cache


def position(cache: str, tower: Tower) -> int:
    """The position of a cache in its tower: frames and text-ids at INPUT, video-3 after 3 blocks, text-all at the end.

    Raises UserError if the tower has fewer blocks, or is used whole.
    """
    depth = cache.rpartition("-")[2]
    if tower.whole and depth not in (FRAMES, "all"):
        raise UserError(f"params.yaml: features.caches: {cache}: list video-all and text-all; {tower.whole}")
    if depth in (FRAMES, "ids"):
        return INPUT
    if depth != "all" and int(depth) > tower.layers:
        raise UserError(f"params.yaml: features.caches: {cache} is deeper than the tower's {tower.layers} blocks")
    return tower.all if depth == "all" else int(depth)


def stems(params: Params, cache: str) -> list[paths.ShardStem]:
    """The shards of a cache, or of the frames."""
    name = params.dataset.name
    return [paths.frames(name, k) if cache == FRAMES else paths.features(name, cache, k) for k in params.shards]


def choose(params: Params, kind: str, tower: Tower, first: float) -> str:
    """The deepest cache of a tower (`video` or `text`) that is no deeper than the first block that a method edits.

    Raises UserError if there is none.
    """
    caches = [cache for cache in params.features.caches if cache.startswith(kind)]
    caches += [FRAMES] * (kind == "video" and params.frames.store)
    usable = [cache for cache in caches if position(cache, tower) <= first]
    if not usable:
        need = _deepest(kind, tower, first)
        cure = "set frames.store: true" if need == FRAMES else f"add {need} to features.caches"
        raise UserError(f"params.yaml: no cache for a method that starts at {need}; {cure}")
    return max(usable, key=lambda cache: position(cache, tower))


def _deepest(kind: str, tower: Tower, first: float) -> str:
    """The name of the best cache for a method whose first edited block is `first`, whether or not it is listed."""
    if first == INPUT:
        return FRAMES if kind == "video" else f"{kind}-ids"
    return f"{kind}-all" if first > tower.layers else f"{kind}-{int(first)}"


def deeper(cache: str, kind: str, tower: Tower, first: float) -> str:
    """The deepest cache that is no deeper than block `first`, if it is deeper than `cache`."""
    if tower.whole:
        return ""
    best = _deepest(kind, tower, first)
    return best if position(best, tower) > position(cache, tower) else ""


@dataclass(frozen=True)
class Batch:
    """Rows of a cache at a position of a tower: `x` [B, ...] as stored, `length` [B] the valid frames or words."""

    x: Tensor
    length: Tensor
    position: int

    def not_empty(self) -> "Batch":
        """The batch itself, or one row of zeros if it is empty: not every layer accepts an empty batch."""
        if len(self.x):
            return self
        return Batch(self.x.new_zeros(1, *self.x.shape[1:]), self.length.new_ones(1), self.position)

    def pinned(self) -> "Batch":
        """The batch in pinned memory, from which a GPU copies asynchronously; without a GPU, the batch itself."""
        if not torch.cuda.is_available():
            return self
        return Batch(self.x.pin_memory(), self.length.pin_memory(), self.position)

    def to(self, device: torch.device) -> "Batch":
        """The batch on the device; tokens in float32, independent of their stored type."""
        x = self.x.to(device, non_blocking=True)
        x = x.float() if x.is_floating_point() else x
        return Batch(x, self.length.to(device, non_blocking=True), self.position)


class Cache:
    """All shards of a cache, memory-mapped. `checksums` of rows and `reasons` of failures, by id.

    `shuffled`: the frames of each clip are in a random order that is fixed per clip.
    """

    def __init__(self, params: Params, name: str, tower: Tower, shuffled: bool = False):
        self.position, self.shuffled = position(name, tower), shuffled
        self.name, self.shards = name, [Shard.read(stem) for stem in stems(params, name)]
        index = pd.concat(
            [shard.index.assign(shard=n, row=range(len(shard.index))) for n, shard in enumerate(self.shards)]
        )
        failed, good = index[index.reason != ""], index[index.reason == ""]
        self.reasons = dict(zip(failed.id, failed.reason, strict=True))
        self.checksums = dict(zip(good.id, good.checksum, strict=True))
        self.rows = {id: place for place, id in enumerate(good.id)}
        self.places = good[["shard", "row", "length"]].to_numpy()

    def __contains__(self, id: str) -> bool:
        return id in self.rows

    @property
    def nbytes(self) -> int:
        return sum(shard.array.nbytes for shard in self.shards)

    def batch(self, ids: list[str]) -> Batch:
        """Rows of `ids`, in their order, as stored. Raises UserError if a row is damaged."""
        shards, rows, lengths = self.places[[self.rows[id] for id in ids]].reshape(-1, 3).T
        like = self.shards[0].array
        array = np.empty((len(ids), *like.shape[1:]), like.dtype)
        for number in np.unique(shards):
            chosen = shards == number
            array[chosen] = self.shards[number].rows(rows[chosen])
        if self.shuffled:
            for clip, id, length in zip(array, ids, lengths, strict=True):
                clip[:length] = clip[np.random.default_rng(list(id.encode())).permutation(length)]
        return Batch(unpacked(array), torch.from_numpy(lengths.copy()), self.position)


def packed(x: Tensor, dtype: str) -> Tensor:
    """Floating-point tokens as stored in `dtype`; numpy has no bfloat16, so its bits are stored as uint16."""
    x = x.to(getattr(torch, dtype))
    return x.view(torch.uint16) if x.dtype == torch.bfloat16 else x


def stored(dtype: str) -> str:
    """The numpy type of the file that holds `dtype`."""
    return "uint16" if dtype == "bfloat16" else dtype


def unpacked(array: np.ndarray) -> Tensor:
    x = torch.from_numpy(array)
    return x.view(torch.bfloat16) if x.dtype == torch.uint16 else x
