"""What is cached where: the name of a cache, its position in the tower, and rows read back in batches."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from rap.clip.towers import INPUT, Tower
from rap.errors import UserError
from rap.params import Params
from rap.shards import Shard

FRAMES = "frames"  # the video tower's input is not a cache of ours, but it is read like one


def position(cache: str, tower: Tower) -> int:
    """Where in its tower a cache lies: frames and text-ids at INPUT, video-3 after 3 blocks, text-all at the end."""
    depth = cache.rpartition("-")[2]
    if depth in (FRAMES, "ids"):
        return INPUT
    if depth != "all" and int(depth) > tower.layers:
        raise UserError(f"params.yaml: features.caches: {cache} is deeper than the tower's {tower.layers} blocks")
    return tower.all if depth == "all" else int(depth)


def folder(params: Params, cache: str) -> Path:
    return params.data / FRAMES if cache == FRAMES else params.data / "features" / cache


def choose(params: Params, kind: str, tower: Tower, first: float) -> str:
    """The deepest cache of a tower (`video` or `text`) that lies no deeper than the first block a method touches."""
    caches = [cache for cache in params.features.caches if cache.startswith(kind)] + [FRAMES] * (kind == "video")
    usable = [cache for cache in caches if position(cache, tower) <= first]
    if not usable:
        need = f"{kind}-ids" if first == INPUT else f"{kind}-{first}"
        raise UserError(f"params.yaml: features.caches: no cache for a method that starts at {need}; add {need}")
    return max(usable, key=lambda cache: position(cache, tower))


@dataclass(frozen=True)
class Batch:
    """Rows of a cache, at a position of a tower: `x` [B, ...] as stored, and `length` [B] valid frames or words."""

    x: Tensor
    length: Tensor
    position: int

    def some(self) -> "Batch":
        """The batch or, of none, one row of zeros: where a process has no share, not every layer takes nothing."""
        if len(self.x):
            return self
        return Batch(self.x.new_zeros(1, *self.x.shape[1:]), self.length.new_ones(1), self.position)

    def pinned(self) -> "Batch":
        """In memory from which a GPU copies without being waited for; where there is no GPU, as it is."""
        if not torch.cuda.is_available():
            return self
        return Batch(self.x.pin_memory(), self.length.pin_memory(), self.position)

    def to(self, device: torch.device) -> "Batch":
        """On the device, tokens in float32 however they are stored."""
        x = self.x.to(device, non_blocking=True)
        x = x.float() if x.is_floating_point() else x
        return Batch(x, self.length.to(device, non_blocking=True), self.position)


class Cache:
    """All shards of a cache, memory-mapped; a batch is read by ids."""

    def __init__(self, params: Params, name: str, tower: Tower):
        self.position = position(name, tower)
        self.shards = [Shard.read(folder(params, name) / f"shard-{index}") for index in params.shards]
        index = pd.concat(
            [shard.index.assign(shard=n, row=range(len(shard.index))) for n, shard in enumerate(self.shards)]
        )
        failed, good = index[index.reason != ""], index[index.reason == ""]
        self.reasons = dict(zip(failed.id, failed.reason, strict=True))
        self.keys = dict(zip(good.id, good.key, strict=True))
        self.rows = {id: place for place, id in enumerate(good.id)}
        self.places = good[["shard", "row", "length"]].to_numpy()

    def __contains__(self, id: str) -> bool:
        return id in self.rows

    @property
    def nbytes(self) -> int:
        return sum(shard.array.nbytes for shard in self.shards)

    def batch(self, ids: list[str]) -> Batch:
        """Rows of `ids`, in their order, as they are stored."""
        shards, rows, lengths = self.places[[self.rows[id] for id in ids]].reshape(-1, 3).T
        like = self.shards[0].array
        array = np.empty((len(ids), *like.shape[1:]), like.dtype)
        for number in np.unique(shards):
            chosen = shards == number
            array[chosen] = self.shards[number].array[rows[chosen]]
        return Batch(unpacked(array), torch.from_numpy(lengths.copy()), self.position)


def packed(x: Tensor, dtype: str) -> Tensor:
    """Floating-point tokens as they are stored: in `dtype`, of bfloat16 the bits, which numpy has no type for."""
    x = x.to(getattr(torch, dtype))
    return x.view(torch.uint16) if x.dtype == torch.bfloat16 else x


def stored(dtype: str) -> str:
    """The type of the file that holds `dtype`."""
    return "uint16" if dtype == "bfloat16" else dtype


def unpacked(array: np.ndarray) -> Tensor:
    x = torch.from_numpy(array)
    return x.view(torch.bfloat16) if x.dtype == torch.uint16 else x
