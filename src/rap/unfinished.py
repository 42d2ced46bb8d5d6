"""The rows of a shard in progress: finished rows survive any end of the process."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import xxhash

from rap import paths
from rap.files import allocate, digest, move


class Row(NamedTuple):
    """The number of valid entries of a row, and the checksum of its bytes."""

    length: int
    checksum: str


def checksum(row: np.ndarray) -> str:
    """The xxh3 of a row's bytes: it costs a thirtieth of SHA-256, and detects damage but not tampering."""
    return xxhash.xxh3_64_hexdigest(np.ascontiguousarray(row).data)


def mapped(file: Path) -> np.memmap:
    """An array of a file, for reading. Raises OSError or ValueError if the file is not exactly one array."""
    try:
        array = np.load(file, mmap_mode="r")
    except OSError:
        raise
    except Exception as error:  # numpy parses a header as Python: a damaged header raises errors of the parser
        raise ValueError(f"{file}: not an array: {error}") from error
    if file.stat().st_size != array.offset + array.nbytes:
        raise ValueError(f"{file}: has bytes after its last row")
    return array


@dataclass
class Unfinished:
    """Two files beside the shard STEM: the array, and a journal with a line for each finished row.

    `keys`: of all rows, by id, in their order. `rows`: the finished rows, with verified bytes. A journal with other
    keys, shape or dtype is ignored.
    """

    stem: Path
    keys: dict[str, str]
    shape: tuple[int, ...]  # of a row
    dtype: np.dtype | str
    rows: dict[str, Row] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)  # lines of the journal that are not written yet

    def __post_init__(self) -> None:
        self.array_file, self.journal_file = paths.parts(self.stem)
        self.places = {id: place for place, id in enumerate(self.keys)}
        self.about = digest([list(self.keys.items()), list(self.shape), str(np.dtype(self.dtype))])
        self.rows = self._finished()

    def _finished(self) -> dict[str, Row]:
        try:
            first, *lines = self.journal_file.read_text(encoding="utf-8").split("\n")[:-1]  # the last may be partial
            array = mapped(self.array_file)
            if first != self.about or array.shape != (len(self.keys), *self.shape):
                return {}
            noted = {id: Row(length, sum) for id, length, sum in filter(None, map(_read, lines))}
            return {id: row for id, row in noted.items() if checksum(array[self.places[id]]) == row.checksum}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def open(self) -> None:
        """Resume the files of the last process, or start anew. Raises UserError if the disk is too full."""
        shape = (len(self.keys), *self.shape)
        if self.rows:
            self.array = np.lib.format.open_memmap(self.array_file, mode="r+")
        else:
            self.stem.parent.mkdir(parents=True, exist_ok=True)
            self.journal_file.unlink(missing_ok=True)
            self.array = np.lib.format.open_memmap(self.array_file, mode="w+", dtype=self.dtype, shape=shape)
            allocate(self.array_file, self.array_file.stat().st_size)
        self.journal: IO[str] = self.journal_file.open("w", encoding="utf-8")  # rewritten, without a truncated line
        self.waiting = [self.about, *(_line(id, row) for id, row in self.rows.items())]
        self.keep()

    def put(self, id: str, array: np.ndarray, length: int) -> None:
        """Write a row. It is finished when `keep` is called."""
        place = self.places[id]
        self.array[place] = array
        self.rows[id] = Row(length, checksum(self.array[place]))
        self.waiting.append(_line(id, self.rows[id]))

    def keep(self) -> None:
        """Write all rows put since the last call to the journal, in one write."""
        self.journal.write("".join(f"{line}\n" for line in self.waiting))
        self.journal.flush()
        self.waiting = []

    def checksum(self, id: str) -> str:
        """The checksum of a row, finished or not: a failed row is zeros."""
        return self.rows[id].checksum if id in self.rows else checksum(self.array[self.places[id]])

    def finish(self, path: Path) -> None:
        """Give the complete array its name."""
        self.array.flush()
        del self.array
        self.journal.close()
        move(self.array_file, path)
        self.journal_file.unlink()


def _line(id: str, row: Row) -> str:
    """A line of the journal: its own checksum, then the id and the row."""
    text = json.dumps([id, *row])
    return f"{xxhash.xxh3_64_hexdigest(text.encode())} {text}"


def _read(line: str) -> list | None:
    """The id and the row of a line; None if it is damaged."""
    sum, _, text = line.partition(" ")
    return json.loads(text) if sum == xxhash.xxh3_64_hexdigest(text.encode()) else None
