"""The benchmarks of growth, evaluation and engines at toy size: roads agree, what grows too fast is named."""

import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from rap.files import read_json
from rap.retrieval import metrics

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def scripts(monkeypatch, tmp_path):
    """benchmarks/ on the path, as a script there has it, in a folder of its own."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'benchmarks'}:{ROOT / 'src'}")
    monkeypatch.chdir(tmp_path)


def squared(folder, size):
    """A stage whose memory grows with the square of what it is given."""
    return lambda: held(25 * size.trained**2)


def linear(folder, size):
    return lambda: held(5000 * size.trained)


def held(count):
    """Numbers in memory for long enough to be seen there."""
    numbers = np.ones(count)
    time.sleep(0.2)
    return numbers


@pytest.mark.slow
def test_what_grows_faster_than_expected_is_found(monkeypatch):
    import growth
    from scratch import Size

    monkeypatch.setattr(growth, "DOUBLINGS", 2)
    found = {}
    for stage in (linear, squared):
        one = growth.grown(growth.Case(stage, ("trained",), Size(trained=200)), 1.0, 1)
        found[stage] = one["as expected"], one["exponents"]["bytes"]
    assert found[linear][0] and found[linear][1] == pytest.approx((1, 1), abs=0.1)
    assert not found[squared][0] and found[squared][1] == pytest.approx((2, 2), abs=0.1)


@pytest.mark.slow
def test_stages_run_at_two_sizes(tmp_path, monkeypatch):
    import growth

    monkeypatch.setattr(growth, "DOUBLINGS", 1)
    for stage in (growth.bookkeeping, growth.clips, growth.evaluate, growth.ranks):
        size = growth.Size(trained=8, tested=8, queries=16)
        one = growth.grown(growth.Case(stage, ("tested", "queries"), size), 1.0, 1)
        assert one["amounts"] == [8, 16] and [s["queries"] for s in one["sizes"]] == [16, 32], stage.__name__
        assert all(cost["seconds"] > 0 for cost in one["costs"])


def test_a_stage_that_fails_is_no_measurement():
    import apart

    with pytest.raises(RuntimeError, match="impossible"):
        apart.measured(impossible)


def impossible():
    raise ValueError


def test_sorting_the_whole_matrix_gives_the_same_ranks():
    import evaluation

    random = np.random.default_rng(0)
    owner = random.permutation(np.arange(70) % 20)
    similarity = random.permutation(70 * 20).reshape(70, 20).astype(np.float32)
    ours = metrics.text_to_video(similarity, owner), metrics.video_to_text(similarity, owner)
    for mine, theirs in zip(ours, evaluation.sorted_ranks(similarity, owner), strict=True):
        assert mine.expected.tolist() == theirs.tolist()


@pytest.mark.slow
def test_evaluation_states_both_roads_and_pairs(tmp_path):
    options = {"captions": 60, "videos": 20, "pairs": 16, "backbones": "demo-vit", "repeats": 1, "results": tmp_path}
    words = [str(text) for name, value in options.items() for text in (f"--{name}", value)]
    subprocess.run([sys.executable, ROOT / "benchmarks/evaluation.py", *words], check=True)
    figures = read_json(tmp_path / "evaluation.json")
    (one,) = figures["matrices"]
    assert one["matrix_bytes"] == 4 * 60 * 20 and set(one["costs"]) == {"stage", "in memory", "ranks", "sorted"}
    assert figures["pairs"]["demo-vit"]["floor"] > 0 and figures["side"] == 16


def test_an_engine_that_has_work_left_is_not_timed_as_idle(monkeypatch):
    import noop

    for said, idle in (("Data and pipelines are up to date.", True), ("Running stage 'train@lorm-0'", False)):
        monkeypatch.setattr(noop, "run", lambda *command, said=said: said)
        if idle:
            noop.nothing(Path(), "dvc", "repro")
        else:
            with pytest.raises(AssertionError, match="not idle"):
                noop.nothing(Path(), "dvc", "repro")


def test_search_finds_what_exact_search_finds_where_it_looks_everywhere(tmp_path):
    command = [sys.executable, ROOT / "benchmarks/search.py", "--videos", "3000", "--results", tmp_path]
    subprocess.run(command, check=True)
    rows = read_json(tmp_path / "search.json")["rows"]
    recall = [float(row["recall, %"]) for row in rows[1:]]
    assert recall == sorted(recall) and recall[-1] > 90 and rows[0]["recall, %"] == "100.0"


def test_the_whole_run_has_every_script_or_says_why_not():
    source = (ROOT / "benchmarks/__main__.py").read_text()
    listed = set(re.findall(r'"(\w+)"', source.partition("def main")[0]))
    runnable = {file.stem for file in (ROOT / "benchmarks").glob("[!_]*.py") if "__main__" in file.read_text()}
    assert runnable <= listed, f"neither run by `make bench` nor left out with a reason: {runnable - listed}"


def test_one_that_fails_does_not_stop_the_others(tmp_path):
    for name in ("report.py", "__main__.py"):
        (tmp_path / name).write_text((ROOT / "benchmarks" / name).read_text())
    (tmp_path / "bad.py").write_text("raise SystemExit(3)")
    (tmp_path / "good.py").write_text("print('measured')")
    result = subprocess.run([sys.executable, tmp_path, "bad", "good"], capture_output=True, text=True)
    assert result.returncode == 1 and "measured" in result.stdout
    assert re.search(r"bad +\|.*failed", result.stdout) and re.search(r"good +\|.*ok", result.stdout)
