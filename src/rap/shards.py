"""Shards: fixed-shape arrays that are memory-mapped, each with an index in Parquet, rebuilt row by row.

A shard is two files, STEM.npy with shape [items, ...] and STEM.parquet with one row per item. The index is written
last: where it is missing, there is no shard. An item that failed keeps a row in both, with the reason in the index;
readers get only the items that are there, so a failure never turns into zeros.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from rap.errors import UserError
from rap.files import atomic


@dataclass(frozen=True)
class Item:
    """What was computed for one id: `array` of the shard's shape with `length` valid entries, or a `reason`."""

    id: str
    array: np.ndarray | None = None
    length: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Shard:
    """`index` has columns id, key, length, reason (empty if the item is there); row i belongs to `array[i]`."""

    index: pd.DataFrame
    array: np.ndarray

    @classmethod
    def read(cls, stem: str | Path) -> "Shard":
        index = Path(f"{stem}.parquet")
        if not index.exists():
            raise UserError(f"{index}: not there; run the stage that makes it (`dvc repro`, or `rap --help`)")
        return cls(pd.read_parquet(index), np.load(f"{stem}.npy", mmap_mode="r"))


def build(
    stem: str | Path,
    keys: dict[str, str],
    shape: tuple[int, ...],
    dtype: np.dtype | str,
    compute: Callable[[list[str]], Iterable[Item]],
) -> tuple[Shard, int]:
    """Make the shard `stem` hold exactly the ids of `keys`, in their order.

    A row whose key (the digest of all that it depends on) stands in the present shard is copied; `compute` is called
    with the other ids and yields an Item for each, in any order. Returns the shard and how many were computed.
    """
    old = _reusable(stem, keys, shape, dtype)
    missing = [id for id in keys if id not in old]
    if old and not missing and list(Shard.read(stem).index.id) == list(keys):
        for end in ("npy", "parquet"):
            Path(f"{stem}.{end}").touch()  # for engines that go by dates
        return Shard.read(stem), 0
    position = {id: row for row, id in enumerate(keys)}
    lengths, reasons = [0] * len(keys), [""] * len(keys)
    with atomic(f"{stem}.npy") as path:
        array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(len(keys), *shape))
        for item in _chain(old, compute(missing) if missing else ()):
            row = position.pop(item.id)
            if item.array is not None:
                array[row] = item.array
            lengths[row], reasons[row] = item.length, item.reason
        assert not position, f"{stem}: nothing was computed for {sorted(position)[:3]}"
        array.flush()
        del array
        Path(f"{stem}.parquet").unlink(missing_ok=True)
    index = pd.DataFrame({"id": list(keys), "key": list(keys.values()), "length": lengths, "reason": reasons})
    index = index.astype({"id": "string", "key": "string", "length": "int64", "reason": "string"})
    with atomic(f"{stem}.parquet") as path:
        index.to_parquet(path, index=False)
    return Shard.read(stem), len(missing)


def missing(stem: str | Path, keys: dict[str, str], shape: tuple[int, ...], dtype: np.dtype | str) -> list[str]:
    """The ids of which `build` would ask `compute` for an item."""
    old = _reusable(stem, keys, shape, dtype)
    return [id for id in keys if id not in old]


def _reusable(stem: str | Path, keys: dict[str, str], shape: tuple, dtype: np.dtype | str) -> dict[str, Item]:
    if not Path(f"{stem}.parquet").exists():
        return {}
    shard = Shard.read(stem)
    if shard.array.shape[1:] != shape or shard.array.dtype != np.dtype(dtype):
        return {}
    rows = zip(shard.index.itertuples(), shard.array, strict=True)
    return {
        row.id: Item(row.id, array, row.length) for row, array in rows if keys.get(row.id) == row.key and not row.reason
    }


def _chain(old: dict[str, Item], new: Iterable[Item]) -> Iterator[Item]:
    yield from old.values()
    yield from new
