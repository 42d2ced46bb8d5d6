"""Hits: the results of a search. Neighbouring spans of one file are one hit."""

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rap.search.index import best

NEAR = 0.05  # seconds between two spans that count as neighbours


@dataclass(frozen=True)
class Hit:
    """A video, or a span of one.

    `id` and `cosine` are those of its best span. `start` and `end` are in seconds; None: the start or the end of
    the file.
    """

    id: str
    file: str  # from the working directory
    split: str
    cosine: float
    start: float | None
    end: float | None

    @property
    def span(self) -> str:
        """ "3.0–7.5 s", or an empty text for a whole file."""
        if self.start is None and self.end is None:
            return ""
        return f"{self.start or 0:.1f}–" + ("end" if self.end is None else f"{self.end:.1f} s")

    @property
    def name(self) -> str:
        """The file with its span."""
        return f"{self.file}  {self.span}".rstrip()

    def values(self) -> dict[str, Any]:
        return asdict(self)


def merged(videos: pd.DataFrame, cosines: np.ndarray, usable: np.ndarray, top: int, folder: Path) -> list[Hit]:
    """The hits among the `top` best rows, best first, from rows of the manifest and their cosines, float [V].

    `usable` [V] marks the rows to search. Adjacent spans of one file among the best rows are one hit, so there may be
    fewer hits than `top`.
    """
    hits: list[Hit] = []
    rows = np.flatnonzero(usable)
    for row in rows[best(cosines[rows], top)]:
        new = _hit(videos.iloc[row], float(cosines[row]), folder)
        near = [hit for hit in hits if _touches(hit, new)]
        if near:  # the row may join two hits: the better one absorbs the other
            hits[hits.index(near[0])] = _union([*near, new])
            hits = [hit for hit in hits if hit not in near[1:]]
        else:
            hits.append(new)
    return hits


def _hit(video: Any, cosine: float, folder: Path) -> Hit:
    start, end = (None if math.isnan(time) else float(time) for time in (video.start, video.end))
    return Hit(video.video_id, str(folder / video.path), video.split, cosine, start, end)


def _touches(one: Hit, other: Hit) -> bool:
    if one.file != other.file or not (one.span and other.span):
        return False
    starts, ends = ([hit.start or 0 for hit in (one, other)], [_end(hit) for hit in (one, other)])
    return max(starts) <= min(ends) + NEAR


def _union(hits: list[Hit]) -> Hit:
    """The first and best of the hits, widened to cover all."""
    end = max(_end(hit) for hit in hits)
    return replace(hits[0], start=min(hit.start or 0.0 for hit in hits), end=None if end == math.inf else end)


def _end(hit: Hit) -> float:
    return math.inf if hit.end is None else hit.end
