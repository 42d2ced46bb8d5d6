"""A disk that is full at any moment: a job ends in one line, with nothing half-written; with room, the same bytes."""

import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from rap.cli import REMEDIES
from rap.errors import UserError
from rap.jobs import Job, jobs, perform
from rap.params import Params
from rap.training.state import _save

KB = 1024
ROOM = (0, 4, 8, 16, 32, 64, 128)  # KB that are left
MADE = ("features", "train", "evaluate", "table")


def fill(disk: Path, room: int) -> Path:
    """A file that leaves `room` KB of the disk."""
    file = disk / "filler"
    with file.open("wb") as opened:
        os.posix_fallocate(opened.fileno(), 0, shutil.disk_usage(disk).free - room * KB)
    return file


def ends(params: Params, job: Job) -> str:
    """What is wrong with the end of a job, or nothing."""
    try:
        perform(params, job.stage, **job.item)
    except UserError as error:
        return "" if "\n" not in str(error) and "room" in str(error) else f"said {error}"
    except OSError as error:  # the command makes a line of it
        return "" if error.errno in REMEDIES else repr(error)
    except Exception as error:
        return repr(error)
    return ""


def test_a_checkpoint_without_room_is_the_systems_error(disk):
    """torch hides it; it is larger than the buffer of a file."""
    fill(disk, 1024)
    with pytest.raises(OSError) as error:
        _save({"weights": torch.zeros(500_000)}, disk / "checkpoint.pt")
    assert error.value.errno == errno.ENOSPC


@pytest.mark.slow
@pytest.mark.parametrize("room", ROOM)
def test_a_full_disk_costs_a_line_and_no_bytes(made, disk, monkeypatch, room):
    folder, params = made
    shutil.copytree(folder, disk, dirs_exist_ok=True)
    monkeypatch.chdir(disk)
    monkeypatch.setattr("rap.report.tracking.log", lambda *_: None)
    wrong = []
    for job in jobs(params):
        if job.stage not in MADE or {"shard": 1, "variant": "ssf"}.items() & job.item.items():
            continue
        expected = {file: Path(file).read_bytes() for file in job.outputs}
        for file in job.outputs:
            Path(file).unlink()
        filler = fill(disk, room)
        if said := ends(params, job):
            wrong.append(f"`{job.command}` {said}")
        left = [str(file) for file in disk.rglob("*") if file.name.endswith(".tmp")]
        filler.unlink()
        with suppress(UserError):
            perform(params, job.stage, **job.item)
        other = [file for file in expected if not Path(file).exists() or Path(file).read_bytes() != expected[file]]
        if left or other:
            wrong.append(f"`{job.command}` left {left}, made other bytes of {other}")
            for file, content in expected.items():
                Path(file).write_bytes(content)
    assert wrong == []
