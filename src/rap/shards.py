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
import xxhash

from rap.errors import UserError
from rap.files import atomic, digest, digest_file
from rap.provenance import Provenance, Record

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
        index, array = pd.read_parquet(f"{stem}.parquet"), np.load(f"{stem}.npy", mmap_mode="r")
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


def checksum(row: np.ndarray) -> str:
    """Of the bytes of one row: xxh3, which costs a thirtieth of SHA-256; it finds damage, not forgery."""
    return xxhash.xxh3_64_hexdigest(np.ascontiguousarray(row).data)


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
) -> tuple[Shard, int]:
    """Make the shard `stem` hold exactly the ids of `keys`, in their order; `seal` makes it a finished one.

    A row whose key (the digest of everything that it depends on) stands in the present shard, undamaged, is copied;
    `compute` is called with the other ids and yields an Item for each, in any order. Returns the shard and how many
    rows were computed.
    """
    stem = Path(stem)
    old = _reusable(stem, keys, shape, dtype)
    missing = [id for id in keys if id not in old]
    if not (old and not missing and list(Shard.open(stem).index.id) == list(keys)):
        _write(stem, keys, shape, dtype, _chain(old, compute(missing) if missing else ()))
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


def _write(stem: Path, keys: dict[str, str], shape: tuple, dtype: np.dtype | str, items: Iterator[Item]) -> None:
    position = {id: row for row, id in enumerate(keys)}
    lengths, reasons, sums = [0] * len(keys), [""] * len(keys), [""] * len(keys)
    with atomic(f"{stem}.npy") as path:
        array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(len(keys), *shape))
        for item in items:
            row = position.pop(item.id)
            if item.array is not None:
                array[row] = item.array
            lengths[row], reasons[row], sums[row] = item.length, item.reason, checksum(array[row])
        assert not position, f"{stem}: nothing was computed for {sorted(position)[:3]}"
        array.flush()
        del array
        Path(f"{stem}.json").unlink(missing_ok=True)
    columns = {"id": list(keys), "key": list(keys.values()), "length": lengths, "reason": reasons, "checksum": sums}
    with atomic(f"{stem}.parquet") as path:
        pd.DataFrame(columns).astype(COLUMNS).to_parquet(path, index=False)


def missing(stem: str | Path, keys: dict[str, str], shape: tuple[int, ...], dtype: np.dtype | str) -> list[str]:
    """The ids of which `build` would ask `compute` for an item."""
    old = _reusable(Path(stem), keys, shape, dtype)
    return [id for id in keys if id not in old]


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


def _chain(old: dict[str, Item], new: Iterable[Item]) -> Iterator[Item]:
    yield from old.values()
    yield from new


def _again(record: Record) -> str:
    options = "".join(f" --{name} {value}" for name, value in record.item.items())
    return f"run `rap {record.stage}{options}` to make it again" if record.stage else "remove it"
