"""The benchmark of growth finds a stage that grows too fast; those of evaluation and engines compare equal results."""

import time
from pathlib import Path

import numpy as np
import pytest
from workbench import workplace  # noqa: F401

from rap.retrieval import metrics


def squared(size):
    """A stage whose memory grows with the square of its input."""
    return lambda: held(25 * size.trained**2)


def linear(size):
    return lambda: held(5000 * size.trained)


def held(count):
    """Numbers in memory for long enough to be seen."""
    numbers = np.ones(count)
    time.sleep(0.2)
    return numbers


@pytest.mark.slow
def test_a_stage_that_grows_faster_than_expected_is_marked(monkeypatch):
    import growth
    from lib.projects import Size

    monkeypatch.setattr(growth, "DOUBLINGS", 2)
    found = {}
    for stage in (linear, squared):
        one = growth.grown(growth.Case(stage, ("trained",), Size(trained=200)), 1.0, 1)
        found[stage] = one["mark"], one["exponents"]["megabytes"]
    assert found[linear][0] == "" and found[linear][1] == pytest.approx((1, 1), abs=0.1)
    assert found[squared][0] == " !" and found[squared][1] == pytest.approx((2, 2), abs=0.1)


@pytest.mark.slow
def test_stages_run_at_two_sizes(monkeypatch):
    import growth
    from lib.projects import Size

    monkeypatch.setattr(growth, "DOUBLINGS", 1)
    size = Size(trained=8, tested=8, queries=16, variants=2)
    for stage in (growth.bookkeeping, growth.clips, growth.captions, growth.evaluate, growth.ranks, growth.table):
        one = growth.grown(growth.Case(stage, ("tested", "queries"), size), 1.0, 1)
        assert (one["first"], one["last"]) == (8, 16) and [s["queries"] for s in one["sizes"]] == [16, 32]
        assert all(cost["seconds"] > 0 for cost in one["costs"]), stage.__name__


def test_every_tested_video_has_a_query_at_every_size():
    """A video without a caption is not part of a manifest."""
    import growth

    for case in growth.CASES:
        sizes = [growth.scaled(case, 1.0, step) for step in range(growth.DOUBLINGS + 1)]
        assert case.stage is growth.ranks or all(size.queries >= size.tested for size in sizes), case


def test_sorting_gives_the_ranks_of_the_stage():
    import evaluation

    random = np.random.default_rng(0)
    owner = random.permutation(np.arange(70) % 20)
    similarity = random.permutation(70 * 20).reshape(70, 20).astype(np.float32)
    ours = metrics.text_to_video(similarity, owner), metrics.video_to_text(similarity, owner)
    for mine, theirs in zip(ours, evaluation.sorted_ranks(similarity, owner), strict=True):
        assert mine.expected.tolist() == theirs.tolist()


def test_an_engine_with_work_left_is_not_measured_as_idle(monkeypatch):
    import noop

    monkeypatch.setattr(noop, "run", lambda *command: "Data and pipelines are up to date.")
    noop.idle(Path(), "dvc", "repro")
    monkeypatch.setattr(noop, "run", lambda *command: "Running stage 'train@lorm'")
    with pytest.raises(AssertionError, match="not idle"):
        noop.idle(Path(), "dvc", "repro")
