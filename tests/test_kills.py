"""A stage that is killed and run again gives the same bytes as a run without kills, and no other file.

KILLS=60 pytest tests/test_kills.py kills each stage sixty times at random moments, and before each operation on files.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import killed_at
import pytest
import tiny

from rap import paths

KILLS = int(os.environ.get("KILLS", 1))
STAGES = {
    "features": ["features", "--cache", "video-1", "--shard", "0"],
    "train": ["train", "--variant", "lorm", "--seed", "0"],
    "evaluate": ["evaluate", "--variant", "lorm", "--seed", "0"],
}
VARY = {"costs.json"}  # times and memory


def rap(folder: Path, *arguments: str) -> subprocess.Popen:
    command = [Path(sys.executable).with_name("rap"), *arguments]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(folder: Path, *arguments: str) -> None:
    process = rap(folder, *arguments)
    _, errors = process.communicate()
    assert process.returncode == 0, errors


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but logs, locks and what varies, by its path."""
    files = [file for part in ("data", "results") for file in (folder / part).rglob("*") if file.is_file()]
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in files
        if file.name not in VARY and "locks" not in file.parts
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Folders before and after each stage, and the seconds that it took."""
    folder = tmp_path_factory.mktemp("whole")
    tiny.project(folder, videos=64, train={"epochs": 6, "checkpoint_every": 10}, runtime={"threads": 1})
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tiny.cache(tiny.params.load())
        shutil.rmtree(paths.features("demo", "video-1", 0).parent)
        finish(folder, "features", "--cache", "video-1", "--shard", "1")
        for stage, command in STAGES.items():
            before = Path(shutil.copytree(folder, folder.with_name(f"before-{stage}")))
            began = time.monotonic()
            finish(folder, *command)
            found[stage] = before, contents(folder), time.monotonic() - began
    return found


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_is_killed_at_random_moments_ends_with_the_same_bytes(whole, tmp_path, stage):
    before, expected, seconds = whole[stage]
    moments = random.Random(stage)
    folder = Path(shutil.copytree(before, tmp_path / "killed"))
    for _ in range(KILLS):
        process = rap(folder, *STAGES[stage])
        time.sleep(moments.uniform(0.4, 1.0) * seconds)
        process.kill()
        process.communicate()
    finish(folder, *STAGES[stage])
    found = contents(folder)
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_is_killed_before_an_operation_on_files_ends_with_the_same_bytes(whole, tmp_path, stage):
    before, expected, _ = whole[stage]
    folder = Path(shutil.copytree(before, tmp_path / "counted"))
    operations = int(killed_at.rap(folder, 0, *STAGES[stage]).stdout.rpartition("operations ")[2])
    assert contents(folder) == expected
    points = range(1, operations + 1)
    for point in points if "KILLS" in os.environ else random.Random(stage).sample(points, KILLS):
        folder = Path(shutil.copytree(before, tmp_path / str(point)))
        assert killed_at.rap(folder, point, *STAGES[stage]).returncode == -signal.SIGKILL
        finish(folder, *STAGES[stage])
        found = contents(folder)
        assert (found.keys(), point) == (expected.keys(), point)
        assert [name for name in found if found[name] != expected[name]] == [], point
        shutil.rmtree(folder)
