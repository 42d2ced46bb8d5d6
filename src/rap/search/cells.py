"""Cells: embeddings grouped around centres, so that a query reads a few groups instead of all embeddings.

Cosines are exact; rows outside the cells that are read are missed. The centres come from faiss's k-means (the extra
`faiss`).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rap import paths
from rap.errors import UserError, require
from rap.files import atomic, digest_file
from rap.provenance import Record
from rap.runtime.alone import alone, remove_temporary
from rap.shards import untracked

LEAST = 100_000  # below this number of embeddings, search reads all: a few milliseconds
READ = 16  # cells that a query reads
SAMPLES = 40  # embeddings per centre in k-means
PARTS = ("centres", "order", "starts")


@dataclass(frozen=True)
class Cells:
    """`centres` float32 [C, E]; `order` [V], the rows cell by cell; `starts` [C + 1], where each cell begins in it."""

    centres: np.ndarray
    order: np.ndarray
    starts: np.ndarray

    def near(self, query: np.ndarray, usable: np.ndarray, least: int, read: int = READ) -> np.ndarray:
        """The `usable` [V] rows of the `read` cells nearest to a query [E]; of more cells, to reach `least` rows."""
        nearest, count = np.argsort(-(self.centres @ query), kind="stable"), read
        while True:
            cells = nearest[:count]
            rows = np.concatenate([self.order[self.starts[cell] : self.starts[cell + 1]] for cell in cells])
            rows = rows[usable[rows]]
            if len(rows) >= least or count >= len(nearest):
                return np.sort(rows)
            count *= 4


def refresh(stem: paths.ShardStem, embeddings: np.ndarray) -> Cells | None:
    """The cells of the index `stem`, rebuilt if it has changed; None if it is too small to need cells.

    Raises UserError if faiss is not installed.
    """
    if len(embeddings) < LEAST:
        return None
    content, file, record = Record.read(stem.record).content, stem.cells, stem.cells_record
    with alone(record, "rap search"):
        if not _is_of(record, content):
            remove_temporary([file, record])
            made = build(embeddings)
            with atomic(file) as path, path.open("wb") as opened:
                np.savez(opened, **{part: getattr(made, part) for part in PARTS})
            untracked(content, {file.name: digest_file(file)}).write(record)
    with np.load(file) as found:
        return Cells(*(found[part] for part in PARTS))


def build(embeddings: np.ndarray) -> Cells:
    """About 4 sqrt(V) cells of embeddings [V, E]; the same in every call."""
    require("faiss", "faiss")
    import faiss

    count = max(1, min(int(4 * len(embeddings) ** 0.5), len(embeddings) // SAMPLES))
    sample = np.ascontiguousarray(embeddings[:: max(1, len(embeddings) // (SAMPLES * count))])
    means = faiss.Kmeans(embeddings.shape[1], count, spherical=True, seed=0)
    means.train(sample)
    cell = np.concatenate([means.index.search(np.ascontiguousarray(part), 1)[1][:, 0] for part in parts(embeddings)])
    order = np.argsort(cell, kind="stable")
    return Cells(np.asarray(means.centroids), order, np.searchsorted(cell[order], np.arange(count + 1)))


def parts(embeddings: np.ndarray, size: int = 50_000) -> list[np.ndarray]:
    return [embeddings[start : start + size] for start in range(0, len(embeddings), size)]


def _is_of(record: Path, content: str) -> bool:
    """Whether finished cells belong to an index with this content, and are undamaged."""
    try:
        found = Record.read(record)
    except (FileNotFoundError, UserError):
        return False
    return found.content == content and not found.damaged(record.parent)
