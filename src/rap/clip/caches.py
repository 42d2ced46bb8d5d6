"""What is cached where: the name of a cache, its position in the tower, and rows read back in batches."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rap.clip.towers import INPUT, Tower
from rap.data.shards import Shard
from rap.errors import UserError
from rap.params import Params

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
    """Rows of a cache, at a position of a tower: `x` [B, ...] and `length` [B] valid frames or words."""

    x: Tensor
    length: Tensor
    position: int

    def to(self, device: torch.device) -> "Batch":
        return Batch(self.x.to(device, non_blocking=True), self.length.to(device, non_blocking=True), self.position)


class Cache:
    """All shards of a cache, memory-mapped; a batch is read by ids."""

    def __init__(self, params: Params, name: str, tower: Tower):
        self.position = position(name, tower)
        self.shards = [Shard.read(folder(params, name) / f"shard-{index}") for index in params.shards]
        self.rows, self.lengths, self.keys, self.reasons = {}, {}, {}, {}
        for number, shard in enumerate(self.shards):
            for row, item in enumerate(shard.index.itertuples()):
                if item.reason:
                    self.reasons[item.id] = item.reason
                    continue
                self.rows[item.id], self.lengths[item.id] = (number, row), item.length
                self.keys[item.id] = item.key

    def __contains__(self, id: str) -> bool:
        return id in self.rows

    @property
    def nbytes(self) -> int:
        return sum(shard.array.nbytes for shard in self.shards)

    def batch(self, ids: list[str]) -> Batch:
        """Rows of `ids`, in their order; 16-bit caches come back as float32."""
        array = np.stack([self.shards[number].array[row] for number, row in map(self.rows.__getitem__, ids)])
        x = torch.from_numpy(array)
        length = torch.tensor([self.lengths[id] for id in ids])
        return Batch(x.float() if x.is_floating_point() else x, length, self.position)
