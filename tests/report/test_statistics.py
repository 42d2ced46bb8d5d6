"""Intervals and tests agree with theory in simple cases. test_coverage.py simulates the rest."""

import numpy as np
import pytest
from scipy import stats

from rap.report.statistics import MARGIN, RESOLUTION, estimate, holm, is_level


def noise(seeds: int, clusters: int, over_seeds: float = 0.0, seed: int = 0) -> np.ndarray:
    """Scores with one query per cluster, whose mean differs from seed to seed."""
    rng = np.random.default_rng(seed)
    return (
        50 + rng.normal(0, 10, clusters) + rng.normal(0, over_seeds, (seeds, 1)) + rng.normal(0, 2, (seeds, clusters))
    )


def test_one_seed_gives_the_interval_and_the_test_of_a_mean():
    scores = noise(1, 40)
    found, test = estimate(scores, np.arange(40)), stats.ttest_1samp(scores[0] - 46, 0)
    assert found.interval == pytest.approx(stats.ttest_1samp(scores[0], 0).confidence_interval(0.95))
    assert estimate(scores - 46, np.arange(40)).p == pytest.approx(test.pvalue, rel=1e-6)


def test_equal_seeds_count_once():
    """Zero-shot CLIP has as many rows as seeds, all the same."""
    scores = noise(1, 40)
    once, thrice = (estimate(np.repeat(scores, count, axis=0), np.arange(40)) for count in (1, 3))
    assert thrice.interval == pytest.approx(once.interval) and thrice.seeds == 0


def test_duplicated_queries_do_not_narrow_the_interval():
    scores = noise(3, 40, 2)
    twice = estimate(np.tile(scores, 2), np.tile(np.arange(40), 2))
    assert twice.interval == pytest.approx(estimate(scores, np.arange(40)).interval)


def test_dependent_queries_widen_the_interval():
    scores = np.repeat(noise(3, 50), 4, axis=1)
    apart, together = estimate(scores, np.arange(200)), estimate(scores, np.repeat(np.arange(50), 4))
    assert together.reach(0.05) > 1.5 * apart.reach(0.05)


def test_clusters_of_unequal_size_weigh_by_their_queries():
    scores, clusters = (
        noise(3, 60, 3),
        np.repeat(np.arange(20), np.random.default_rng(1).multinomial(40, [0.05] * 20) + 1),
    )
    found = estimate(scores, clusters)
    drawn = np.random.default_rng(2).integers(20, size=(4000, 20))
    sums, counts = np.bincount(clusters, scores.mean(axis=0)), np.bincount(clusters)
    bootstrap = (sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)).var()
    assert found.mean == pytest.approx(scores.mean()) and found.clusters == pytest.approx(bootstrap, rel=0.15)


def test_the_variance_over_seeds_leaves_out_that_of_queries():
    """Scores that differ from seed to seed by chance alone, and scores that differ by much more."""
    assert np.mean([estimate(noise(3, 40, 0, seed), np.arange(40)).seeds for seed in range(200)]) < 0.03
    wide = [estimate(noise(3, 40, 4, seed), np.arange(40)).seeds for seed in range(200)]
    assert np.mean(wide) == pytest.approx(4**2 / 3, rel=0.2)


def test_with_many_queries_a_difference_has_the_test_of_welch():
    variant, baseline = noise(4, 9, 5, 1), noise(4, 9, 1, 2)
    many, over = [np.repeat(a.mean(axis=1, keepdims=True), 100, axis=1) for a in (variant, baseline)], np.arange(100)
    found, welch = estimate(many[0], over, many[1]), stats.ttest_ind(*(a[:, 0] for a in many), equal_var=False)
    assert found.interval == pytest.approx(welch.confidence_interval(0.95)) and found.seeds_freedom == pytest.approx(
        welch.df
    )
    assert found.p == pytest.approx(welch.pvalue, rel=1e-6)


def test_pairing_by_query_removes_what_queries_have_in_common():
    scores = noise(3, 40)
    other = scores + np.random.default_rng(5).normal(0, 1, scores.shape)
    assert estimate(scores, np.arange(40), other).reach(0.05) < 0.3 * estimate(scores, np.arange(40)).reach(0.05)


@pytest.mark.parametrize("shift", [1.0, 3.0, 6.0])
def test_p_is_below_5_percent_if_the_interval_leaves_out_zero(shift):
    found = estimate(noise(3, 40, 1) + shift, np.arange(40), noise(3, 40, 1, 7))
    low, high = found.interval
    assert (found.p < 0.05) == (not low <= 0 <= high)
    assert found.reach(found.p) == pytest.approx(abs(found.mean))


def test_p_is_one_without_a_difference_and_at_its_resolution_for_a_large_one():
    scores = noise(3, 30)
    assert estimate(scores, np.arange(30), scores).p == 1.0
    assert estimate(scores + 90, np.arange(30), scores).p == RESOLUTION


def test_level_takes_the_whole_interval():
    assert is_level(-MARGIN + 0.1, MARGIN - 0.1) and is_level(0.1, 0.2)
    assert not is_level(-MARGIN - 0.1, 0.1) and not is_level(-0.1, MARGIN + 0.1)


def test_holm_matches_a_hand_calculation():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == []
