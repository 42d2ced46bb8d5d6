"""A signal ends a command and its processes; a job runs once at a time; half-written files are removed."""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import do
import pytest
import tiny
from filelock import FileLock

from rap import params, paths
from rap.files import digest
from rap.jobs import Job

WAITING = """
import subprocess, sys
from concurrent.futures import ThreadPoolExecutor
from rap.runtime.signals import Ended, obey
obey()
try:
    with ThreadPoolExecutor(2) as pool:
        started = [pool.submit(subprocess.run, ["sleep", "60"]) for _ in range(2)]
        print("ready", flush=True)
        [one.result() for one in started]
except Ended as ended:
    sys.exit(ended.status)
"""


def children(process: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(process)], capture_output=True, text=True)
    return [int(line) for line in found.stdout.split()]


def alive(process: int) -> bool:
    state = Path(f"/proc/{process}/stat")
    return state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_to_the_command_alone_ends_what_its_threads_wait_for(number, status):
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    deadline = time.monotonic() + 30
    while len(started := children(process.pid)) < 2:
        assert time.monotonic() < deadline
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)  # not the 60 seconds of its children
    assert process.returncode == status and "Traceback" not in errors
    assert not any(map(alive, started))


def test_a_signal_that_the_starter_ignores_is_ignored():
    code = (
        "import os, signal; from rap.runtime.signals import obey; obey(); os.kill(os.getpid(), signal.SIGHUP); print(1)"
    )
    ignoring = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)  # noqa: E731  as nohup does
    done = subprocess.run([sys.executable, "-c", code], preexec_fn=ignoring, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "1\n")


IMPORTING = """
import os, signal, sys
from rap.__main__ import main
number, point = int(sys.argv.pop(1)), int(sys.argv.pop(1))
seen = []
def watch(event, arguments):
    if event == "import":
        seen.append(arguments[0])
        if len(seen) == point:
            os.kill(os.getpid(), number)
sys.addaudithook(watch)
try:
    main()
except SystemExit as ended:
    print(f"imports {len(seen)}", flush=True)
    raise
"""


@pytest.mark.slow
def test_a_signal_during_an_import_is_one_line(project):
    """POINTS=200 pytest -k during_an_import tries two hundred places in place of six, most while torch is loaded."""
    tiny.cache(project)

    def run(number, point):
        command = [sys.executable, "-c", IMPORTING, str(int(number)), str(point)]
        shutil.rmtree(paths.run("lorm", 0), ignore_errors=True)
        return subprocess.run([*command, "train", "--variant", "lorm", "--seed", "0"], capture_output=True, text=True)

    count = int(run(signal.SIGINT, 0).stdout.rpartition("imports ")[2])
    places = random.Random(0)
    for number, status, why in [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]:
        for _ in range(int(os.environ.get("POINTS", 6)) // 2):
            point = places.randrange(1, count)
            found = run(number, point)
            said = f"rap: {why}; run the same command again to continue\n"
            assert (found.returncode, found.stderr, point) == (status, said, point)


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tiny.project(tmp_path)


def test_the_second_of_two_processes_at_one_job_waits_and_says_so(project, capfd):
    job = Job(project, "features", {"cache": "video-0", "shard": 0})
    lock = paths.lock(digest(job.record)[:16])
    lock.parent.mkdir()
    held = FileLock(lock)
    held.acquire()
    said: list[str] = []
    second = threading.Thread(target=lambda: said.append(do.features(project, "video-0", 0)))
    second.start()
    second.join(1.5)
    assert second.is_alive() and not Path(job.record).exists()
    held.release()
    second.join(60)
    assert "4 rows, 4 computed" in said[0]
    assert (
        capfd.readouterr().err
        == "rap: another process is running `rap features --cache video-0 --shard 0`; waiting for it\n"
    )


def test_what_a_killed_process_left_half_written_is_swept_by_the_next_run(project):
    do.features(project, "video-0", 0)
    stem = paths.features(project.dataset.name, "video-0", 0)
    left = [stem.parent / f".shard-0.{end}.0a1b2c3d.tmp" for end in ("npy", "parquet", "json")]
    other = stem.parent / ".shard-1.npy.0a1b2c3d.tmp"  # of another job, which may be at work
    for file in (*left, other):
        file.touch()
    Path(f"{stem}.json").unlink()
    assert "4 rows, 0 computed" in do.features(project, "video-0", 0)
    assert not any(file.exists() for file in left) and other.exists()


def test_what_a_killed_process_left_beside_a_finished_job_is_swept_too(project):
    """It was killed after it had written the record, or before other parameters were set back."""
    tiny.cache(project)
    do.train(project, "lorm", 0)
    stem, folder = paths.features(project.dataset.name, "video-0", 0), paths.run("lorm", 0)
    left = [paths.run("lorm", 0).checkpoint, *paths.parts(stem), stem.parent / ".shard-0.json.0a1b2c3d.tmp"]
    left += [folder / f".{name}.0a1b2c3d.tmp" for name in ("checkpoint.pt", "costs.json", "run.json")]
    for file in left:
        file.touch()
    assert do.features(project, "video-0", 0).endswith("up to date")
    assert do.train(project, "lorm", 0).endswith("up to date")
    assert [file for file in left if file.exists()] == []


ENDLESS = """
from rap.frames import ffmpeg
source = ["-re", "-f", "lavfi", "-i", "testsrc2=r=1", "-f", "null", "-"]  # no output: no broken pipe ends it
ffmpeg.run([ffmpeg.binary(), "-nostdin", "-v", "error", *source])
"""


def endless(processes: list[int]) -> list[int]:
    """Those that are ffmpeg at its endless work: before, there are others for a moment."""
    found = []
    for process in processes:
        with suppress(OSError):
            name, command = (Path(f"/proc/{process}/{what}").read_text() for what in ("comm", "cmdline"))
            if name.startswith("ffmpeg") and "testsrc2" in command:
                found.append(process)
    return found


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="only Linux ends a process with its parent")
def test_ffmpeg_ends_with_a_process_that_was_killed_outright():
    process = subprocess.Popen([sys.executable, "-c", ENDLESS])
    deadline = time.monotonic() + 30
    while not (started := endless(children(process.pid))):
        assert time.monotonic() < deadline and process.poll() is None
    process.kill()
    process.wait()
    while any(map(alive, started)):
        assert time.monotonic() < deadline, "ffmpeg lives on"
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_signal_to_the_first_of_several_processes_ends_them_all(tmp_path, monkeypatch, number, status):
    monkeypatch.chdir(tmp_path)
    tiny.project(tmp_path, train={"epochs": 1000, "checkpoint_every": 1}, runtime={"threads": 1, "processes": 2})
    settings = params.load()
    tiny.cache(settings)
    command = [Path(sys.executable).with_name("rap"), "train", "--variant", "lorm", "--seed", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not paths.run("lorm", 0).checkpoint.exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    started = children(process.pid)
    process.send_signal(number)
    _, said = process.communicate(timeout=30)  # they hold the pipe as long as they live
    assert process.returncode == status and len(started) == 2
    assert said.count("run the same command again") == (number != signal.SIGKILL) and "Traceback" not in said
    deadline = time.monotonic() + 10
    while any(map(alive, started)):
        assert time.monotonic() < deadline, "a process lives on"
        time.sleep(0.05)
