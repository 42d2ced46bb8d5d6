"""Progress if the output is not a terminal: nothing for short work, a line now and then for long work."""

import subprocess
import sys
import time

import pytest
import tiny

from rap import progress


def test_long_work_says_lines_and_short_work_nothing(monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY", 0.1)
    for number in progress.progress(range(60), "frames 0", unit="video"):
        time.sleep(0.01)
        if number == 30:
            progress.note("failed: one video")
    *lines, last = capsys.readouterr().err.splitlines()
    assert last.startswith("frames 0: 60 of 60, ") and last.endswith(" left") and "video/s" in last
    assert "failed: one video" in lines and 2 <= len(lines) <= 8
    assert not any("\r" in line or not line.strip() for line in lines)
    list(progress.progress(range(60), "frames 0", unit="video"))
    assert capsys.readouterr().err == ""


def test_a_bar_inside_another_one_adds_lines_alone(monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY", 0.05)
    for _ in progress.progress(range(2), "sweep"):
        for _ in progress.progress(range(10), "train", leave=False):
            time.sleep(0.01)
    assert all(line.startswith(("sweep: ", "train: ")) for line in capsys.readouterr().err.splitlines())


def test_a_changing_text_does_not_repeat_lines(monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY", 0.1)
    with progress.progress(total=50, desc="train") as bar:
        for _ in range(50):
            time.sleep(0.005)
            bar.set_postfix(loss=1.0)
            bar.update()
    assert capsys.readouterr().err.count("\n") <= 5


def test_a_last_line_is_said_once(monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    list(progress.progress(range(3), "train"))
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("train: 3 of 3") and len(lines) == len(set(lines))


@pytest.mark.slow
def test_a_short_stage_writes_no_bar_into_a_log(tmp_path):
    tiny.project(tmp_path)
    command = [sys.executable, "-m", "rap", "features", "--cache", "video-0", "--shard", "0"]
    with (tmp_path / "log").open("w") as log:
        subprocess.run(command, cwd=tmp_path, stdout=log, stderr=log, check=True)
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert line.startswith("data/demo/features/video-0/shard-0: 4 rows, 4 computed") and "\r" not in line
