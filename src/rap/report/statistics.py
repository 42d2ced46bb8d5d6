"""Uncertainty of a mean over queries and seeds: intervals, and paired tests against a baseline.

A figure is a mean over training seeds and over queries, and both are samples. Queries of one cluster are dependent: the
captions of a video, and the captions of a clip and of its reversal, succeed or fail together. The design is therefore
seeds x clusters, crossed, both random. The variance of the mean has a component of the seeds and one of the clusters,
which contains their interaction.

The reach of an interval adds the two components after each is multiplied by its own quantile of Student's t: reach^2 =
t(S - 1)^2 x seeds + t(C - 1)^2 x clusters, for S seeds and C clusters (Howe, Journal of the American Statistical
Association 69, 1974; Burdick and Graybill, Confidence Intervals on Variance Components, 1992). With three seeds it
holds its level, and Satterthwaite's single t and the bootstrap do not: docs/protocols.md has the simulation.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import stdtrit

LEVEL = 95  # percent
RESOLUTION = 1e-4  # the smallest p: below it, the normal tail of a mean of 0s and 1s is unreliable
MARGIN = 3.0  # percent points: a difference is "level" if its whole interval is closer to zero


@dataclass(frozen=True)
class Estimate:
    """A mean, or a difference of two means, with the components of its variance."""

    mean: float
    seeds: float  # variance of the mean over seeds; 0 with one seed, where it is unknown
    seeds_freedom: float  # degrees of freedom of `seeds`
    clusters: float  # variance of the mean over clusters
    clusters_freedom: float

    def reach(self, p: float) -> float:
        """The distance from `mean` of a value whose two-sided test gives `p`."""
        seeds = stdtrit(self.seeds_freedom, 1 - p / 2) ** 2 * self.seeds
        return float(np.sqrt(seeds + stdtrit(self.clusters_freedom, 1 - p / 2) ** 2 * self.clusters))

    @property
    def interval(self) -> tuple[float, float]:
        """The values whose test gives more than 1 - LEVEL percent."""
        reach = self.reach(1 - LEVEL / 100)
        return self.mean - reach, self.mean + reach

    @property
    def p(self) -> float:
        """Two-sided p of the hypothesis that the mean is zero: the p whose reach is the mean, at least RESOLUTION."""
        if np.isclose(self.mean, 0, atol=1e-9):  # rounding in sums of equal terms
            return 1.0
        if self.reach(RESOLUTION) <= abs(self.mean):
            return RESOLUTION
        return float(brentq(lambda p: self.reach(p) - abs(self.mean), RESOLUTION, 1))


def estimate(scores: np.ndarray, clusters: np.ndarray, baseline: np.ndarray | None = None) -> Estimate:
    """The mean of `scores`, float [seeds, N], one column per query; or its difference from `baseline`, of the same
    form.

    `clusters` [N] is the cluster of each query, at least two. The difference is paired by query. The seeds of the two
    are independent draws, even if they are the same numbers: the variances over seeds add up, with the degrees of
    freedom of Welch (1947). A baseline that is the same for all seeds adds nothing.
    """
    arms = [_effects(arm, clusters) for arm in (scores, baseline) if arm is not None]
    effects = arms[0].mean(axis=0) - sum(arm.mean(axis=0) for arm in arms[1:])
    seeds = np.array([_over_seeds(arm) for arm in arms])
    freedom = np.array([max(len(arm) - 1, 1) for arm in arms])
    return Estimate(
        mean=float(effects.mean()),
        seeds=float(seeds.sum()),
        seeds_freedom=float(seeds.sum() ** 2 / (seeds**2 / freedom).sum()) if seeds.any() else float(freedom.min()),
        clusters=float(effects.var(ddof=1) / len(effects)),
        clusters_freedom=len(effects) - 1,
    )


def is_level(low: float, high: float) -> bool:
    """Whether a difference in percent points with this interval is smaller than MARGIN, whichever its sign."""
    return -MARGIN < low <= high < MARGIN


def holm(p: list[float]) -> list[float]:
    """p-values corrected for multiple tests by Holm's step-down procedure (1979); monotone, at most 1."""
    corrected, highest = [0.0] * len(p), 0.0
    for place, index in enumerate(np.argsort(p, kind="stable")):
        highest = max(highest, min(1.0, (len(p) - place) * p[index]))
        corrected[index] = highest
    return corrected


def _effects(scores: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """The contribution of each cluster to the mean of each seed, float64 [seeds, clusters].

    The mean of a row is the mean of the seed's scores. With clusters of one size, an effect is the mean of a cluster;
    with others, it is the linear term of the ratio of sums and counts.
    """
    _, place, counts = np.unique(clusters, return_inverse=True, return_counts=True)
    sums = np.stack([np.bincount(place, row) for row in scores])
    return scores.mean() + (sums - scores.mean() * counts) / counts.mean()


def _over_seeds(effects: np.ndarray) -> float:
    """Variance of the mean over seeds, without the interaction of seeds and clusters, which the clusters contain."""
    seeds, clusters = effects.shape
    if seeds == 1:
        return 0.0
    means = effects.mean(axis=1)
    rest = effects - effects.mean(axis=0) - means[:, None] + means.mean()
    interaction = (rest**2).sum() / (seeds - 1) / max(clusters - 1, 1) / (seeds * clusters)
    return max(float(means.var(ddof=1) / seeds - interaction), 0.0)
