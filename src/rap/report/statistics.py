"""Uncertainty of a mean over queries: bootstrap intervals, and paired permutation tests against a baseline.

Queries of one cluster are dependent: the captions of a video, and the captions of a clip and of its reversal, succeed
or fail together. Both methods therefore resample whole clusters. With one caption per video and no twins, every query
is a cluster.
"""

from collections.abc import Iterator

import numpy as np

RESAMPLES = 10_000
LEVEL = 95  # percent
CHUNK = 1 << 23  # random numbers in memory at a time
SEED = 0  # every figure and every run uses the same resamples


def interval(values: np.ndarray, clusters: np.ndarray) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean at LEVEL percent (Efron 1979), resampling whole clusters.

    `values` float [N], one per query; `clusters` [N], the cluster of each query. Returns (low, high).
    """
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
    """Two-sided p-value for the hypothesis that `values` and `baseline`, paired float [N], have the same mean.

    A permutation flips the sign of the summed difference of each of the `clusters` [N] with probability 1/2. If b of n
    permutations are at least as extreme as the data, p = (b + 1) / (n + 1), which is never 0 (Phipson and Smyth 2010).
    """
    apart = _by_cluster(values - baseline, clusters)
    found = abs(apart.sum()) * (1 - 1e-9)  # tolerate rounding in sums of equal terms
    extreme = sum(
        int((np.abs(rng.choice((-1.0, 1.0), size=(rows, len(apart))) @ apart) >= found).sum())
        for rng, rows in _chunks(len(apart))
    )
    return (extreme + 1) / (RESAMPLES + 1)


def holm(p: list[float]) -> list[float]:
    """p-values corrected for multiple tests by Holm's step-down procedure (1979); monotone, at most 1."""
    corrected, highest = [0.0] * len(p), 0.0
    for place, index in enumerate(np.argsort(p, kind="stable")):
        highest = max(highest, min(1.0, (len(p) - place) * p[index]))
        corrected[index] = highest
    return corrected


def _by_cluster(values: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """The sum of `values` in each cluster, float64 [clusters], ordered by cluster id."""
    _, place = np.unique(clusters, return_inverse=True)
    return np.bincount(place, weights=values)


def _chunks(width: int) -> Iterator[tuple[np.random.Generator, int]]:
    """Split RESAMPLES rows of `width` random numbers into chunks of CHUNK numbers: a generator and a count of rows."""
    rng, step = np.random.default_rng(SEED), max(1, CHUNK // width)
    for start in range(0, RESAMPLES, step):
        yield rng, min(step, RESAMPLES - start)
