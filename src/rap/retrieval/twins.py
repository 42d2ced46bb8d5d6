"""Twin accuracy: does a caption prefer its clip over the same scene in reversed time? Chance is 50 %.

A two-alternative forced choice between clips that differ in the order of time alone, so a method that is blind to
time stands at chance whatever its recall. An equal score counts one half.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd


def partners(videos: Sequence[str], twins: Sequence[str]) -> np.ndarray:
    """Column of each video's twin, int [V]; -1 where it has none or the twin is not among `videos` (it failed)."""
    return pd.Index(videos).get_indexer(pd.Index(twins))


def wins(similarity: np.ndarray, owner: np.ndarray, partner: np.ndarray) -> np.ndarray:
    """Whether each caption prefers its video over the twin, float [Q]: 1, 1/2 if it scores the same, 0; NaN: no twin.

    `similarity`: float [Q, V]; `owner`: int [Q], the column of each caption's video; `partner`: int [V] of `partners`.
    """
    rows, twin = np.arange(len(owner)), partner[owner]
    own, other = similarity[rows, owner], similarity[rows, twin]
    return np.where(twin >= 0, (own > other) + (own == other) / 2, np.nan)


def accuracy(wins: np.ndarray, kinds: Sequence[str]) -> tuple[dict[str, float], dict[str, int]]:
    """Twin accuracy in percent, and the number of captions that it rests on: "all" first, then each kind by name.

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
