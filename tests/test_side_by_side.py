"""All seeds of a variant, or shards of a cache, at once: the bytes of one after another, and nothing left behind."""

import io
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from rap import cli, params, paths, side_by_side
from rap.errors import UserError

RAP = [sys.executable, "-m", "rap"]
TRAIN = [*RAP, "train", "--variant", "lorm"]
SEEDS = (0, 1, 2)


@pytest.fixture
def project(cached, tmp_path, monkeypatch):
    """A tiny project with three seeds and all caches, as the working directory."""
    shutil.copytree(cached[0], tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return change(seeds=list(SEEDS))


def change(runtime: dict | None = None, **keys) -> params.Params:
    values = yaml.safe_load(Path("params.yaml").read_text()) | keys
    values["runtime"] |= runtime or {}
    Path("params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return params.load()


def rap(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([*RAP, *arguments], capture_output=True, text=True)


def weights() -> list[bytes]:
    return [(paths.run("lorm", seed) / "adapter.safetensors").read_bytes() for seed in SEEDS]


@pytest.mark.slow
def test_all_seeds_at_once_give_the_bytes_of_one_after_another(project):
    one_by_one = [rap("train", "--variant", "lorm", "--seed", str(seed)).stdout for seed in SEEDS]
    assert all("steps on" in said for said in one_by_one)
    expected = weights()
    for seed in (0, 2):
        shutil.rmtree(paths.run("lorm", seed))
    said = rap("train", "--variant", "lorm").stdout
    assert said.count("steps on") == 2 and said.count("up to date") == 1 and weights() == expected
    assert rap("train", "--variant", "lorm").stdout.count("up to date") == len(SEEDS)


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_as_many_run_at_once_as_params_yaml_says(project, monkeypatch, jobs):
    """The barrier opens for `jobs` at once; the last round may have fewer, so the seeds are a multiple."""
    settings, barrier = change(runtime={"jobs": jobs}, seeds=list(range(2 * jobs))), side_by_side.FORK.Barrier(jobs)

    def work(job, several, parent):
        say("begins")
        barrier.wait(timeout=20)
        say("ends")

    monkeypatch.setattr(side_by_side, "_work", work)
    side_by_side.run(settings, "train", {"variant": "lorm"})
    steps = [1 if word == "begins" else -1 for word in said()]
    assert len(steps) == 4 * jobs and max(sum(steps[:n]) for n in range(len(steps))) <= jobs


def say(word: str) -> None:
    """Append a word to a file that all processes share."""
    with Path("said.txt").open("a") as file:
        file.write(f"{word}\n")


def said() -> list[str]:
    return Path("said.txt").read_text().split()


def test_a_stage_is_imported_once_for_all_seeds(project, monkeypatch):
    monkeypatch.delitem(sys.modules, "rap.training.stage")
    monkeypatch.setattr(side_by_side, "_work", lambda *_: say(str("rap.training.stage" in sys.modules)))
    side_by_side.run(project, "train", {"variant": "lorm"})
    assert said() == ["True"] * len(SEEDS)


@pytest.mark.slow
def test_all_shards_of_a_cache_give_the_bytes_of_one_after_another(project):
    files = [paths.features("demo", "video-0", shard).array for shard in project.shards]
    assert len(files) > 1
    expected = [file.read_bytes() for file in files]
    shutil.rmtree(files[0].parent)
    done = rap("features", "--cache", "video-0")
    assert done.stdout.count("computed") == len(files) and done.returncode == 0
    assert [file.read_bytes() for file in files] == expected


def test_lines_of_processes_do_not_mix_and_are_not_bars(tmp_path):
    written = []

    class Raw(io.FileIO):
        def write(self, data):
            written.append(bytes(data))
            return len(data)

    stream = side_by_side.LogStream(Raw(tmp_path / "said", "w"), "ascii", "backslashreplace", line_buffering=True)
    print("a ca\u00f1on:", 2, file=stream)
    assert written == [b"a ca\\xf1on: 2\n"] and not stream.isatty()


def test_torchrun_starts_one_job(project, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UserError, match=r"^torchrun runs one job: add --seed, one of 0, 1, 2$"):
        cli._stages("train", variant="lorm", seed=None)


@pytest.mark.slow
def test_a_seed_that_fails_stops_no_other_and_the_command_fails(project):
    (paths.run("lorm", 1) / "adapter.safetensors").mkdir(parents=True)
    done = rap("train", "--variant", "lorm")
    assert done.returncode == 2 and "a folder lies where a file belongs" in done.stderr
    assert done.stdout.count("steps on") == 2 and "Traceback" not in done.stderr


def test_a_single_seed_needs_no_other_process(project, monkeypatch, capsys):
    change(seeds=[0])
    monkeypatch.delattr(side_by_side, "_work")
    cli._stages("train", variant="lorm", seed=None)
    assert "steps on" in capsys.readouterr().out


def test_nothing_waits_for_seeds_that_have_not_begun(project, monkeypatch):
    """The command is interrupted while the first seed runs: that one ends, and no other begins."""

    def work(job, several, parent):
        say(str(job.item["seed"]))
        time.sleep(20)
        say("survived")

    def interrupted(sentinels):
        while not (Path("said.txt").exists() and said()):
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(side_by_side, "_work", work)
    monkeypatch.setattr(side_by_side, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        side_by_side.run(change(runtime={"jobs": 1}), "train", {"variant": "lorm"})
    assert said() == ["0"] and not multiprocessing.active_children()


def test_a_killed_process_is_one_line(project, monkeypatch):
    def killed(job, several, parent):
        if job.item["seed"] == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(side_by_side, "_work", killed)
    with pytest.raises(UserError, match=r"`rap train --variant lorm --seed 1` was killed by signal 9; if memory"):
        side_by_side.run(project, "train", {"variant": "lorm"})


@pytest.mark.slow
@pytest.mark.parametrize(("number", "jobs"), [(signal.SIGTERM, 3), (signal.SIGKILL, 3), (signal.SIGTERM, 1)])
def test_the_processes_end_with_the_command_and_no_other_starts(project, number, jobs):
    change(train=project.train.model_dump(mode="json") | {"epochs": 100_000}, runtime={"jobs": jobs})
    command = subprocess.Popen(TRAIN, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while sum((paths.run("lorm", seed) / "checkpoint.pt").exists() for seed in SEEDS) < jobs:
        assert command.poll() is None
        time.sleep(0.05)
    children = [int(child) for task in Path(f"/proc/{command.pid}/task").iterdir() for child in _children(task)]
    command.send_signal(number)
    said = command.communicate(timeout=60)[1]
    assert len(children) == jobs
    assert sum(paths.run("lorm", seed).exists() for seed in SEEDS) == jobs
    for child in children:
        deadline = time.monotonic() + 20
        while _alive(child):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    if number == signal.SIGTERM:
        assert command.returncode == 143 and said.splitlines()[-1].startswith("rap: terminated; run the same command")


def _children(task: Path) -> list[str]:
    return (task / "children").read_text().split()


def _alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
