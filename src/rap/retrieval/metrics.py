"""Ranks and recalls of a similarity matrix, fair to ties.

A tie is not a win. If `above` distractors score strictly higher than the relevant item and `ties` score the same, its
rank is taken as uniform on above+1 … above+ties+1, as if equal scores were put in random order. Every figure is the
expected value under that law: never the best case, so a model that gives equal scores stands at chance.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from rap.errors import UserError

CHUNK = 1 << 24  # entries of the similarity matrix looked at in one go: bounds the memory
CUTOFFS = (1, 5, 10)


@dataclass(frozen=True)
class Ranks:
    """Where each query's relevant item stands in its gallery. All arrays are int64 [N], one entry per query.

    `query` is the caption's row (text to video) or the video's column (video to text) in the similarity matrix,
    `above` counts the distractors that score strictly higher, `ties` those that score the same.
    """

    query: np.ndarray
    above: np.ndarray
    ties: np.ndarray

    @property
    def expected(self) -> np.ndarray:
        """Expected rank, float64 [N], from 1: above + 1 + ties / 2."""
        return self.above + 1 + self.ties / 2

    def within(self, k: int) -> np.ndarray:
        """Probability of a rank of at most k, float64 [N]: clip((k - above) / (ties + 1), 0, 1)."""
        return np.clip((k - self.above) / (self.ties + 1), 0, 1)

    def only(self, chosen: np.ndarray) -> "Ranks":
        """The ranks of some queries: `chosen` is a mask bool [N] or positions int [n]."""
        return Ranks(self.query[chosen], self.above[chosen], self.ties[chosen])


def text_to_video(similarity: np.ndarray, owner: np.ndarray) -> Ranks:
    """Each caption is a query; its own video is relevant, all other videos are distractors.

    `similarity`: float [Q, V], captions by videos, may be memory-mapped. `owner`: int [Q], the column of each caption's
    video. Raises UserError if a similarity is not finite.
    """
    above, ties = np.empty(len(owner), np.int64), np.empty(len(owner), np.int64)
    for rows in _chunks(*similarity.shape):
        scores = _finite(similarity[rows], rows.start, 0)
        above[rows], ties[rows] = _count(scores, owner[rows])
    return Ranks(np.arange(len(owner)), above, ties)


def video_to_text(similarity: np.ndarray, owner: np.ndarray) -> Ranks:
    """Each video is a query; a gallery item is the caption set of one video, and its best caption stands for it.

    So a video is ranked among videos, not among captions: CLIP4Clip's convention for several captions per video
    (`tensor_video_to_text_sim`). With one caption per video it is plain retrieval of captions. A video without a
    caption is neither a query nor in the gallery. Shapes and errors as in `text_to_video`.
    """
    order = np.argsort(owner, kind="stable")
    query, starts = np.unique(owner[order], return_index=True)
    above, ties = np.empty(len(query), np.int64), np.empty(len(query), np.int64)
    for rows in _chunks(len(query), len(owner)):
        columns = query[rows]
        scores = _finite(similarity[:, columns], 0, columns)[order]
        best = np.maximum.reduceat(scores, starts, axis=0).T  # [video asked, video whose captions answer]
        above[rows], ties[rows] = _count(best, np.arange(rows.start, rows.stop))
    return Ranks(query, above, ties)


def summary(ranks: Ranks) -> dict[str, float]:
    """R@1, R@5, R@10 in percent (mean probability of being within k), MdR and MnR (median and mean expected rank).

    Rounded to 6 decimals. Raises ValueError if there is no query.
    """
    if not len(ranks.query):
        raise ValueError("no queries: nothing to summarise")
    figures = {f"R@{k}": 100 * ranks.within(k).mean() for k in CUTOFFS}
    figures |= {"MdR": np.median(ranks.expected), "MnR": ranks.expected.mean()}
    return {name: round(float(value), 6) for name, value in figures.items()}


def _count(scores: np.ndarray, relevant: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per row of `scores` [N, M]: how many entries beat the one at `relevant` [N], how many others equal it."""
    own = scores[np.arange(len(scores)), relevant][:, None]
    return (scores > own).sum(axis=1), (scores == own).sum(axis=1) - 1


def _chunks(rows: int, width: int) -> Iterator[slice]:
    step = max(1, CHUNK // max(1, width))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def _finite(scores: np.ndarray, first_row: int, columns: np.ndarray | int) -> np.ndarray:
    bad = np.argwhere(~np.isfinite(scores))
    if len(bad):
        row, column = bad[0]
        column = columns + column if isinstance(columns, int) else columns[column]
        raise UserError(
            f"similarity of caption row {first_row + row} and video column {column}: not a finite number; "
            "the model has diverged, so lower train.lr or train.clip_norm and train again"
        )
    return scores
