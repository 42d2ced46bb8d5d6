"""Intervals and tests agree with theory in simple cases."""

from itertools import product

import numpy as np
import pytest

from rap.report.statistics import RESAMPLES, holm, interval, permutation_test


def test_interval_of_a_proportion_is_close_to_the_binomial_interval():
    hits = np.repeat([1.0, 0.0], [300, 700])
    low, high = interval(hits, np.arange(1000))
    spread = 1.96 * np.sqrt(0.3 * 0.7 / 1000)
    assert (low, high) == (pytest.approx(0.3 - spread, abs=0.003), pytest.approx(0.3 + spread, abs=0.003))


def test_duplicated_queries_do_not_narrow_the_interval():
    hits = np.random.default_rng(0).integers(0, 2, 200).astype(float)
    assert interval(np.tile(hits, 2), np.tile(np.arange(200), 2)) == interval(hits, np.arange(200))


def test_dependent_queries_widen_the_interval():
    hits = np.repeat(np.random.default_rng(1).integers(0, 2, 50).astype(float), 4)
    apart, together = interval(hits, np.arange(200)), interval(hits, np.repeat(np.arange(50), 4))
    assert together[1] - together[0] > 1.5 * (apart[1] - apart[0])


@pytest.mark.slow
def test_interval_has_its_nominal_coverage():
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(100):
        low, high = interval((rng.random(80) < 0.4).astype(float), np.arange(80))
        covered += low <= 0.4 <= high
    assert 86 <= covered <= 100


def test_permutation_test_approximates_the_full_enumeration():
    rng = np.random.default_rng(3)
    a, b = rng.random(9), rng.random(9) - 0.2
    clusters = np.array([0, 0, 1, 2, 3, 4, 5, 6, 7])
    apart = np.bincount(clusters, a - b)
    flips = np.array(list(product((-1, 1), repeat=8))) @ apart
    exact = np.mean(np.abs(flips) >= abs(apart.sum()) - 1e-12)
    assert permutation_test(a, b, clusters) == pytest.approx(exact, abs=0.02)


def test_p_is_one_without_a_difference_and_minimal_for_a_large_one():
    same = np.ones(30)
    assert permutation_test(same, same, np.arange(30)) == 1.0
    assert permutation_test(same, 0 * same, np.arange(30)) == 1 / (RESAMPLES + 1)


def test_p_is_about_uniform_under_the_null_hypothesis():
    rng = np.random.default_rng(4)
    p = [permutation_test(*rng.standard_normal((2, 25)), np.arange(25)) for _ in range(100)]
    assert 0 <= np.mean(np.array(p) < 0.1) <= 0.2 and np.mean(np.array(p) < 0.5) == pytest.approx(0.5, abs=0.17)


def test_holm_matches_a_hand_calculation():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == []
