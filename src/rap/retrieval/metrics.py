"""Ranks and recalls of a similarity matrix. Ties are scored at their expected value.

If `above` distractors score strictly higher than the relevant item and `ties` score the same, its rank is uniform on
above+1 … above+ties+1, as if equal scores were in random order. Every metric is the expected value under this
distribution, so a model with all scores equal scores at chance level.
"""

from dataclasses import dataclass

import numpy as np

from rap.errors import UserError

CHUNK = 1 << 22  # entries of the similarity matrix per step: bounds the memory
CUTOFFS = (1, 5, 10)


@dataclass(frozen=True)
class Ranks:
    """The rank of each query's relevant item in its gallery. All arrays are int64 [N], one entry per query.

    `query` is the caption's row (text to video) or the video's column (video to text) in the similarity matrix.
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
        """The ranks of a subset of queries: `chosen` is a mask bool [N] or positions int [n]."""
        return Ranks(self.query[chosen], self.above[chosen], self.ties[chosen])


def text_to_video(similarity: np.ndarray, owner: np.ndarray) -> Ranks:
    """Each caption is a query; its own video is relevant, all other videos are distractors.

    `similarity`: float [Q, V], captions by videos, may be memory-mapped. `owner`: int [Q], the column of each caption's
    video. Raises UserError if a similarity is not finite.
    """
    above, ties = np.empty(len(owner), np.int64), np.empty(len(owner), np.int64)
    step = max(1, CHUNK // max(1, similarity.shape[1]))
    for start in range(0, len(owner), step):
        rows = np.arange(start, min(start + step, len(owner)))
        scores = _finite(similarity[start : start + step], rows)
        own = scores[np.arange(len(rows)), owner[rows]][:, None]
        above[rows], ties[rows] = (scores > own).sum(axis=1), (scores == own).sum(axis=1) - 1
    return Ranks(np.arange(len(owner)), above, ties)


def video_to_text(similarity: np.ndarray, owner: np.ndarray) -> Ranks:
    """Each video is a query; a gallery item is the caption set of one video, scored by its best caption.

    A video is ranked among videos, not among captions: CLIP4Clip's convention for several captions per video
    (`tensor_video_to_text_sim`). With one caption per video, this is ordinary caption retrieval. A video without
    captions is neither a query nor in the gallery. Shapes and errors as in `text_to_video`. Holds the scores of one
    video's captions in memory at a time.
    """
    order = np.argsort(owner, kind="stable")
    query, starts = np.unique(owner[order], return_index=True)
    own = np.maximum.reduceat(similarity[order, owner[order]], starts)
    above, ties = np.zeros(len(query), np.int64), np.zeros(len(query), np.int64)
    for rows in np.split(order, starts[1:]):  # reads a memory-mapped file once
        best = _finite(similarity[rows], rows).max(axis=0)[query]
        above += best > own
        ties += best == own
    return Ranks(query, above, ties - 1)


def summary(ranks: Ranks) -> dict[str, float]:
    """R@1, R@5, R@10 in percent (mean probability of a rank within k), MdR and MnR (median and mean expected rank).

    Rounded to 6 decimals. Raises ValueError if there are no queries.
    """
    if not len(ranks.query):
        raise ValueError("no queries: nothing to summarise")
    figures = {f"R@{k}": 100 * ranks.within(k).mean() for k in CUTOFFS}
    figures |= {"MdR": np.median(ranks.expected), "MnR": ranks.expected.mean()}
    return {name: round(float(value), 6) for name, value in figures.items()}


def _finite(scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the scores [N, V] of captions `rows` [N]. Raises UserError if one is not finite."""
    if not np.isfinite(scores).all():
        row, column = np.argwhere(~np.isfinite(scores))[0]
        raise UserError(
            f"similarity of caption row {rows[row]} and video column {column}: not a finite number; "
            "training diverged; lower train.lr or train.clip_norm and train again"
        )
    return scores
