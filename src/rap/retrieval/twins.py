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


def accuracy(
    similarity: np.ndarray, owner: np.ndarray, partner: np.ndarray, kinds: Sequence[str]
) -> tuple[dict[str, float], dict[str, int]]:
    """Twin accuracy in percent, and the number of captions that it rests on: "all" first, then each kind by name.

    `similarity`: float [Q, V]; `owner`: int [Q], the column of each caption's video; `partner`: int [V] of `partners`;
    `kinds`: each caption's kind [Q], "" if it has none. Both results are empty if no caption's video has a twin.
    """
    chosen = np.flatnonzero(partner[owner] >= 0)
    own = similarity[chosen, owner[chosen]]
    other = similarity[chosen, partner[owner[chosen]]]
    wins = pd.DataFrame({"kind": np.asarray(kinds, dtype=object)[chosen], "win": (own > other) + (own == other) / 2})
    if wins.empty:
        return {}, {}
    groups = {"all": wins.win} | {kind: group for kind, group in wins.groupby("kind").win if kind}
    return (
        {name: round(100 * float(group.mean()), 6) for name, group in groups.items()},
        {name: len(group) for name, group in groups.items()},
    )
