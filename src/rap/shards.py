"""Shards: fixed-shape arrays that are memory-mapped, each with an index in Parquet, rebuilt row by row.

A shard is three files: STEM.npy with shape [items, ...], STEM.parquet with one row per item, and STEM.json, its record,
written last: without it the shard is not finished. Every row of the index carries a checksum of its row of the
array, which is verified whenever the row is read. A failed item keeps its row in both, with the reason in the index;
readers see only the items that succeeded, so a failure never becomes zeros.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

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

    stem: Path
    index: pd.DataFrame
    array: np.ndarray

    @classmethod
    def read(cls, stem: str | Path) -> "Shard":
        """Raises UserError if the shard is absent, or its index is damaged. Rows are verified by `rows`."""
        stem = Path(stem)
        try:
            record = Record.read(f"{stem}.json")
        except FileNotFoundError:
            raise UserError(f"{stem}.json: not there; run the stage that writes it first (see `rap --help`)") from None
        if damaged := record.damaged(stem.parent):
            raise UserError(f"{stem.parent / damaged[0]}: damaged; {_again(record)}")
        try:
            return cls.open(stem)
        except (OSError, ValueError):
            raise UserError(f"{stem}.npy: damaged; {_again(record)}") from None

    @classmethod
    def open(cls, stem: str | Path) -> "Shard":
        """What lies under `stem`, with or without a record. Raises OSError or ValueError if it is not a shard."""
        index, array = pd.read_parquet(f"{stem}.parquet"), mapped(Path(f"{stem}.npy"))
        if len(array) != len(index):
            raise ValueError(f"{stem}.npy has {len(array)} rows, its index {len(index)}")
        return cls(Path(stem), index, array)

    def rows(self, numbers: Sequence[int] | np.ndarray) -> np.ndarray:
        """A copy of rows of the array, verified. Raises UserError if one is damaged."""
        rows = np.ascontiguousarray(self.array[numbers])
        verify(rows, self.index.checksum.to_numpy()[numbers], f"{self.stem}.npy")
        return rows

    def damaged(self) -> list[str]:
        """The ids whose rows do not match their checksums. Reads the whole array."""
        pairs = zip(self.array, self.index.itertuples(), strict=True)
        return [row.id for array, row in pairs if checksum(array) != row.checksum]


def verify(rows: np.ndarray, checksums: Sequence[str], where: str) -> None:
    """Raises UserError if a row [N, ...] does not have its checksum."""
    for row, expected in zip(rows, checksums, strict=True):
        if checksum(row) != expected:
            raise UserError(f"{where}: a row is damaged; `rap verify` names every damaged file and how to mend it")


def build(
    stem: str | Path,
    keys: dict[str, str],
    shape: tuple[int, ...],
    dtype: np.dtype | str,
    compute: Callable[[list[str]], Iterable[Item]],
    together: int = 1,
) -> tuple[Shard, int]:
    """Make the shard `stem` hold exactly the ids of `keys`, in their order; `seal` makes it a finished one.

    A row whose key (the digest of everything that it depends on) stands in the present shard, undamaged, is copied, and
    a row that an interrupted call had finished stays. `compute` is called with the other ids and yields an Item for
    each, in any order. Returns the shard and how many rows were computed.

    `together`: how many successful items are kept at once. If their bits depend on the batch in which they were
    computed, a call that goes on after an interruption makes the same batches.
    """
    stem = Path(stem)
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
    files = {f"{shard.stem.name}.parquet": digest_file(f"{shard.stem}.parquet")}
    result(content, files, **facts).write(f"{shard.stem}.json")


def untracked(content: str, files: dict[str, str]) -> Record:
    """The record of a shard that no stage makes: the keys of its rows are its provenance."""
    return Record("", {}, Provenance(params="", code=""), content, files)


def _write(begun: Unfinished, old: dict[str, Item], items: Iterable[Item], together: int) -> None:
    """Complete the rows; then rename the array and write the index."""
    stem, keys = begun.stem, begun.keys
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
    Path(f"{stem}.json").unlink(missing_ok=True)
    with atomic(f"{stem}.parquet") as path:  # before the array: its checksums tell whose rows they are after a kill
        pd.DataFrame(columns).astype(COLUMNS).to_parquet(path, index=False)
    begun.finish(Path(f"{stem}.npy"))


def missing(stem: str | Path, keys: dict[str, str], shape: tuple[int, ...], dtype: np.dtype | str) -> list[str]:
    """The ids of which `build` would ask `compute` for an item."""
    old = _reusable(Path(stem), keys, shape, dtype)
    begun = Unfinished(Path(stem), keys, shape, dtype)
    return [id for id in keys if id not in old and id not in begun.rows]


def _reusable(stem: Path, keys: dict[str, str], shape: tuple, dtype: np.dtype | str) -> dict[str, Item]:
    """Undamaged rows of the present shard whose keys are still right, also of one that was never sealed."""
    try:
        shard = Shard.read(stem) if Path(f"{stem}.json").exists() else Shard.open(stem)
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
