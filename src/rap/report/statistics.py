"""How sure a figure is: bootstrap intervals over queries, and paired permutation tests against a baseline.

Queries of one cluster are not independent: the captions of a video, and a clip and its reversal, succeed or fail
together. So clusters are resampled, and flipped, as wholes. With one caption per video and no twins, a cluster is one
query.
"""

from collections.abc import Iterator

import numpy as np

RESAMPLES = 10_000
LEVEL = 95  # percent
CHUNK = 1 << 23  # random numbers drawn in one go: bounds the memory
SEED = 0  # the same resamples for every figure and every run


def interval(values: np.ndarray, clusters: np.ndarray) -> tuple[float, float]:
    """Percentile bootstrap interval, at LEVEL percent, of the mean of `values` float [N] with `clusters` [N]."""
    sums, counts = _by_cluster(values, clusters), _by_cluster(np.ones(len(values)), clusters)
    share = np.full(len(sums), 1 / len(sums))
    means = [
        (drawn @ sums) / (drawn @ counts)
        for rng, rows in _chunks(len(sums))
        for drawn in [rng.multinomial(len(sums), share, size=rows)]
    ]
    low, high = np.percentile(np.concatenate(means), [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return float(low), float(high)


def permutation_test(values: np.ndarray, baseline: np.ndarray, clusters: np.ndarray) -> float:
    """Two-sided p of no difference in means between paired `values` and `baseline` [N], by flipping signs of clusters.

    (b + 1) / (n + 1) with b of n random flips at least as far from zero: never 0 (Phipson and Smyth 2010).
    """
    apart = _by_cluster(values - baseline, clusters)
    found = abs(apart.sum()) * (1 - 1e-9)  # sums of the same terms in another order are the same
    extreme = sum(
        int((np.abs(rng.choice((-1.0, 1.0), size=(rows, len(apart))) @ apart) >= found).sum())
        for rng, rows in _chunks(len(apart))
    )
    return (extreme + 1) / (RESAMPLES + 1)


def holm(p: list[float]) -> list[float]:
    """p-values corrected for their number: Holm's step-down procedure (1979), monotone and at most 1."""
    corrected, highest = [0.0] * len(p), 0.0
    for place, index in enumerate(np.argsort(p, kind="stable")):
        highest = max(highest, min(1.0, (len(p) - place) * p[index]))
        corrected[index] = highest
    return corrected


def _by_cluster(values: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Sums of `values` over each cluster."""
    _, place = np.unique(clusters, return_inverse=True)
    return np.bincount(place, weights=values)


def _chunks(width: int) -> Iterator[tuple[np.random.Generator, int]]:
    """RESAMPLES rows of `width` numbers, a few at a time."""
    rng, step = np.random.default_rng(SEED), max(1, CHUNK // width)
    for start in range(0, RESAMPLES, step):
        yield rng, min(step, RESAMPLES - start)
