"""Twin accuracy: how often a caption scores its clip above the same scene in reversed time. Chance level is 50 %.

This is a two-alternative forced choice between clips that differ only in temporal order, so a time-blind method scores
at chance level, independent of its recall. A tie counts one half.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd


def partners(videos: Sequence[str], twins: Sequence[str]) -> np.ndarray:
    """The column of each video's twin, int [V]; -1 if it has none or if the twin is missing from `videos`."""
    return pd.Index(videos).get_indexer(pd.Index(twins))


def wins(similarity: np.ndarray, owner: np.ndarray, partner: np.ndarray) -> np.ndarray:
    """Each caption's result, float [Q]: 1 if its video scores above the twin, 1/2 for a tie, else 0; NaN: no twin.

    `similarity`: float [Q, V]; `owner`: int [Q], the column of each caption's video; `partner`: int [V] of `partners`.
    """
    rows, twin = np.arange(len(owner)), partner[owner]
    own, other = similarity[rows, owner], similarity[rows, twin]
    return np.where(twin >= 0, (own > other) + (own == other) / 2, np.nan)


def accuracy(wins: np.ndarray, kinds: Sequence[str]) -> tuple[dict[str, float], dict[str, int]]:
    """Twin accuracy in percent and the number of captions, each for "all" and then for every kind in order of name.

    `kinds`: each caption's kind [Q], "" if it has none. Both results are empty if no caption's video has a twin.
    """
    table = pd.DataFrame({"kind": np.asarray(kinds, dtype=object), "win": wins}).dropna()
    if table.empty:
        return {}, {}
    groups = {"all": table.win} | {kind: group for kind, group in table.groupby("kind").win if kind}
    return (
        {name: round(100 * float(group.mean()), 6) for name, group in groups.items()},
        {name: len(group) for name, group in groups.items()},
    )
