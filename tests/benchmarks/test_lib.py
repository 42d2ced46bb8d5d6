"""The tools of the benchmarks: turns, floors, tables, and projects of noise that the stages accept."""

import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from workbench import ROOT, workplace  # noqa: F401

from rap.clip.backbone import DEMO
from rap.clip.models import open_clip_config
from rap.features.cache import Cache

pytestmark = pytest.mark.slow


@pytest.fixture
def toy():
    """A toy project of noise with the demo's backbone, in the working directory."""
    from lib import ours, projects

    settings = projects.load(projects.values(DEMO, [3, 4], frames=2) | {"shards": [0, 1, 2]})
    projects.make(settings, projects.Size(trained=12, captions=2, tested=4, queries=4), validation=2, holes=True)
    ours.write_noise(settings)
    return settings


def test_ways_take_turns_and_are_compared_within_a_turn(monkeypatch):
    from lib import turns

    taken, clock = [], iter([1, 1, 10, 2, 10, 4, 40, 8])
    monkeypatch.setattr(turns, "timed", lambda way: way() or next(clock))
    found = turns.take({"a": lambda: taken.append("a"), "b": lambda: taken.append("b")}, 3)
    assert taken == ["a", "b"] * 4 and found == {"a": [10, 10, 40], "b": [2, 4, 8]}
    assert turns.median(found, "b") == 4 and turns.ratio(found, "a", "b") == 5


def held():
    """Work that holds 8 MB for long enough to be seen."""
    numbers = np.ones(10**6)
    time.sleep(0.1)
    return numbers


def test_cost_of_a_process_is_that_of_its_work_alone():
    from lib import turns

    cost = turns.costs({"held": prepared}, 1)["held"]
    assert 0.1 < cost.seconds < 1 and cost.megabytes == pytest.approx(8, rel=0.2)


def prepared():
    """Preparation that holds 80 MB, and `held`."""
    ballast = np.ones(10**7)
    return lambda: held()[0] + ballast[0]


def test_a_process_that_fails_raises_an_error():
    from lib import turns

    with pytest.raises(RuntimeError, match="impossible"):
        turns.apart(impossible)


def impossible():
    raise ValueError


def test_floor_is_the_longer_of_arithmetic_and_bytes():
    from lib.ceilings import Ceilings

    limits = Ceilings({"float32": 10.0, "bfloat16": 40.0}, bandwidth=5.0)
    assert (limits.floor(20, 5), limits.floor(20, 50), limits.floor(20, 0, "bfloat16")) == (2, 10, 0.5)


def test_ceilings_are_measured_at_the_shapes_of_a_block():
    from lib import ceilings, projects

    clip = projects.random_clip(projects.config(DEMO))
    assert ceilings.shapes(clip.visual) == [(128, 384), (128, 128), (128, 512), (512, 128)]
    found = ceilings.measure(clip, repeats=1)
    assert set(found.flops) == {"float32", "bfloat16"} and min(*found.flops.values(), found.bandwidth) > 1e8


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-B-16"])
def test_stored_configs_equal_those_of_open_clip(name):
    from lib import projects

    assert (projects.BACKBONES / f"{name}.json").exists()
    assert projects.config(name) == open_clip_config(name, "openai")


def test_the_features_stage_accepts_noise_and_replaces_it_for_other_weights(toy):
    from lib import ours, projects

    for cache in toy.features.caches:
        assert " rows, 0 computed, 0 failed" in ours.make_cache(toy, cache, 0)
    array = ours.rows(toy, "video-4")
    assert array.shape == (6, 2, 1, 128) and array.dtype == np.float16 and array.std() > 0.9
    ours.write_backbone(toy, projects.random_clip(other := projects.config(DEMO)).double(), other)
    ours.write_frames(toy, None)
    assert " 6 rows, 6 computed, 0 failed" in ours.make_cache(toy, "video-4", 0)


def test_frames_with_holes_take_no_disk(toy):
    from lib import ours

    for file in ours.cache_folder(toy, "frames").glob("*.npy"):
        assert file.stat().st_blocks * 512 < file.stat().st_size / 2


def mapped() -> int:
    """Bytes of files that are mapped into this process and in memory."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(lines["RssFile"].split()[0])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory of a process is read from /proc")
def test_a_batch_maps_its_own_rows_only(toy):
    """64 rows of 1 MiB, of which two are read: a cache need not fit into memory."""
    from lib import ours

    row = np.ones((1 << 18,), np.float32)
    for shard in toy.shards:
        ours.write_rows(toy, "video-all", shard, {f"v{shard}-{n}": "key" for n in range(22)}, row)
    cache = Cache(toy, "video-all", ours.load_clip(toy).visual)
    before = mapped()
    cache.batch(["v1-1", "v2-6"])
    few = mapped() - before
    cache.batch(list(cache.rows))
    assert few < 8 << 20 < 60 << 20 < mapped() - before


def test_a_cell_without_its_field_is_empty():
    from lib import report

    rows = [{"name": "a", "seconds": 1.25}, {"name": "b"}]
    found = report.table(rows, ("name | seconds, s", "{name} | {seconds:.1f}"))
    cells = [[cell.strip() for cell in line.split("|")[1:3]] for line in found.splitlines()]
    assert cells[0] == ["name", "seconds, s"] and cells[2:] == [["a", "1.2"], ["b", ""]]


def test_tables_in_the_docs_are_those_that_were_measured():
    from lib import report

    files = sorted(report.OWN.glob("*.md"))
    assert files
    for file in files:
        page = report.page_of(file.stem).read_text()
        assert report.quoted(page, file.stem, file.read_text()) == page, f"{file.name}: run its benchmark again"


def test_a_table_replaces_only_the_text_between_its_marks():
    from lib import report

    page = "a\n<!-- x: begin -->\nold\n<!-- x: end -->\nb <!-- y: begin -->\nc\n<!-- y: end -->\n"
    assert report.quoted(page, "x", "new\n") == page.replace("old", "new")
    with pytest.raises(AssertionError, match="no marks of z"):
        report.quoted(page, "z", "new\n")


def test_every_script_is_run_or_left_out_with_a_reason():
    source = (ROOT / "benchmarks/__main__.py").read_text()
    listed = set(re.findall(r'"(\w+)"', source.partition("def main")[0]))
    assert {file.stem for file in (ROOT / "benchmarks").glob("[!_]*.py")} == listed


def test_a_failure_does_not_stop_the_other_benchmarks(tmp_path):
    (tmp_path / "__main__.py").write_text((ROOT / "benchmarks/__main__.py").read_text())
    (tmp_path / "bad.py").write_text("raise SystemExit(3)")
    (tmp_path / "good.py").write_text("print('measured')")
    result = subprocess.run([sys.executable, tmp_path, "bad", "good"], capture_output=True, text=True)
    assert result.returncode == 1 and "measured" in result.stdout
    assert re.search(r"bad +\|.*failed", result.stdout) and re.search(r"good +\|.*ok", result.stdout)


def test_random_weights_are_reproducible_and_not_zero():
    from lib import projects

    first, second = (projects.random_clip(projects.config(DEMO)) for _ in range(2))
    assert all(torch.equal(a, b) and a.any() for a, b in zip(first.parameters(), second.parameters(), strict=True))
