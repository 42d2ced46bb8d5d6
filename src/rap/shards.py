"""Shards: fixed-shape arrays that are memory-mapped, each with an index in Parquet, rebuilt row by row.

A shard is three files: STEM.npy with shape [items, ...], STEM.parquet with one row per item, and STEM.json, its record,
written last: without it the shard is not finished. Every row of the index carries a checksum of its array row, which is
verified on every read. A failed item keeps its row in both, with the reason in the index; readers see only the items
that succeeded, so a failure never becomes zeros.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rap import paths
from rap.errors import UserError
from rap.files import atomic, digest, digest_file
from rap.provenance import Provenance, Record
from rap.unfinished import Unfinished, checksum, mapped

COLUMNS = {"id": "string", "key": "string", "length": "int64", "reason": "string", "checksum": "string"}


@dataclass(frozen=True)
class Item:
    """The result for one id: `array` of the shard's shape with `length` valid entries, or the `reason` of a failure."""

    id: str
    array: np.ndarray | None = None
    length: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Shard:
    """`index` has COLUMNS, where `reason` is empty if the item succeeded; row i belongs to `array[i]`."""

    stem: paths.ShardStem
    index: pd.DataFrame
    array: np.ndarray

    @classmethod
    def read(cls, stem: str | Path) -> "Shard":
        """Raises UserError if the shard is absent, or its index is damaged. Rows are verified by `rows`."""
        stem = paths.ShardStem(stem)
        try:
            record = Record.read(stem.record)
        except FileNotFoundError:
            raise UserError(
                f"{stem.record}: not there; run the stage that writes it first (see `rap --help`)"
            ) from None
        if damaged := record.damaged(stem.parent):
            raise UserError(f"{stem.parent / damaged[0]}: damaged; {_again(record)}")
        try:
            return cls.open(stem)
        except (OSError, ValueError):
            raise UserError(f"{stem.array}: damaged; {_again(record)}") from None

    @classmethod
    def open(cls, stem: str | Path) -> "Shard":
        """The shard under `stem`, with or without a record. Raises OSError or ValueError if there is none."""
        stem = paths.ShardStem(stem)
        index, array = pd.read_parquet(stem.index), mapped(stem.array)
        if len(array) != len(index):
            raise ValueError(f"{stem.array} has {len(array)} rows, its index {len(index)}")
        return cls(stem, index, array)

    def rows(self, numbers: Sequence[int] | np.ndarray) -> np.ndarray:
        """A copy of rows of the array, verified. Raises UserError if one is damaged."""
        rows = np.ascontiguousarray(self.array[numbers])
        verify(rows, self.index.checksum.to_numpy()[numbers], str(self.stem.array))
        return rows

    def damaged(self) -> list[str]:
        """The ids whose rows do not match their checksums. Reads the whole array."""
        pairs = zip(self.array, self.index.itertuples(), strict=True)
        return [row.id for array, row in pairs if checksum(array) != row.checksum]


def verify(rows: np.ndarray, checksums: Sequence[str], where: str) -> None:
    """Raises UserError if a row [N, ...] does not have its checksum."""
    for row, expected in zip(rows, checksums, strict=True):
        if checksum(row) != expected:
            raise UserError(f"{where}: a row is damaged; `rap verify` names every damaged file and how to repair it")


def build(
    stem: str | Path,
    keys: dict[str, str],
    shape: tuple[int, ...],
    dtype: np.dtype | str,
    compute: Callable[[list[str]], Iterable[Item]],
    together: int = 1,
) -> tuple[Shard, int]:
    """Make the shard `stem` hold exactly the ids of `keys`, in their order; `seal` makes it a finished one.

    Copies undamaged rows whose key (the digest of everything that a row depends on) is unchanged, and keeps rows that
    an interrupted call finished. `compute` is called with the other ids and yields an Item for each, in any order.
    Returns the shard and how many rows were computed.

    `together`: how many successful items are kept at once. If their bits depend on the batch in which they were
    computed, a resumed call makes the same batches.
    """
    stem = paths.ShardStem(stem)
    old = _reusable(stem, keys, shape, dtype)
    if old and len(old) == len(keys) and list(Shard.open(stem).index.id) == list(keys):
        return Shard.open(stem), 0
    begun = Unfinished(stem, keys, shape, dtype)
    missing = [id for id in keys if id not in old and id not in begun.rows]
    _write(begun, old, compute(missing) if missing else (), together)
    return Shard.open(stem), len(missing)


def seal(shard: Shard, result: Callable[..., Record], **facts: Any) -> None:
    """Write the record of a shard that is complete; `result` makes it from the content and the files' checksums."""
    rows = shard.index.drop(columns="key").to_dict("list")
    content = digest([shard.array.shape, str(shard.array.dtype), rows])
    files = {shard.stem.index.name: digest_file(shard.stem.index)}
    result(content, files, **facts).write(shard.stem.record)


def untracked(content: str, files: dict[str, str]) -> Record:
    """The record of a shard that belongs to no stage: the keys of its rows are its provenance."""
    return Record("", {}, Provenance(params="", code=""), content, files)


def _write(begun: Unfinished, old: dict[str, Item], items: Iterable[Item], together: int) -> None:
    """Complete the rows; then rename the array and write the index."""
    stem, keys = paths.ShardStem(begun.stem), begun.keys
    begun.open()
    for id, item in old.items():
        if id not in begun.rows and item.array is not None:
            begun.put(id, item.array, item.length)
            begun.keep()
    reasons: dict[str, str] = {}
    for item in items:
        if item.array is None:
            reasons[item.id] = item.reason
            continue
        begun.put(item.id, item.array, item.length)
        if len(begun.waiting) == together:
            begun.keep()
    nothing = keys.keys() - begun.rows.keys() - reasons.keys()
    assert not nothing, f"{stem}: nothing was computed for {sorted(nothing)[:3]}"
    columns = {
        "id": list(keys),
        "key": list(keys.values()),
        "length": [begun.rows[id].length if id in begun.rows else 0 for id in keys],
        "reason": [reasons.get(id, "") for id in keys],
        "checksum": [begun.checksum(id) for id in keys],
    }
    stem.record.unlink(missing_ok=True)
    with atomic(stem.index) as path:  # before the array: after a kill, its checksums identify the rows
        pd.DataFrame(columns).astype(COLUMNS).to_parquet(path, index=False)
    begun.finish(stem.array)


def missing(stem: str | Path, keys: dict[str, str], shape: tuple[int, ...], dtype: np.dtype | str) -> list[str]:
    """The ids that `build` would pass to `compute`."""
    stem = paths.ShardStem(stem)
    old = _reusable(stem, keys, shape, dtype)
    begun = Unfinished(stem, keys, shape, dtype)
    return [id for id in keys if id not in old and id not in begun.rows]


def _reusable(stem: paths.ShardStem, keys: dict[str, str], shape: tuple, dtype: np.dtype | str) -> dict[str, Item]:
    """Undamaged rows of the present shard whose keys are still right, also of one that was never sealed."""
    try:
        shard = Shard.read(stem) if stem.record.exists() else Shard.open(stem)
    except (UserError, OSError, ValueError):
        return {}
    if shard.array.shape[1:] != shape or shard.array.dtype != np.dtype(dtype):
        return {}
    rows: Iterator[tuple[Any, np.ndarray]] = zip(shard.index.itertuples(), shard.array, strict=True)
    return {
        row.id: Item(row.id, array, row.length)
        for row, array in rows
        if keys.get(row.id) == row.key and not row.reason and checksum(array) == row.checksum
    }


def _again(record: Record) -> str:
    options = "".join(f" --{name} {value}" for name, value in record.item.items())
    return f"run `rap {record.stage}{options}` to make it again" if record.stage else "remove it"
