"""A file system that is read-only: each stage that has work to do says so in one line, and changes nothing."""

import shutil
import subprocess
from pathlib import Path

import pytest
import whole

from rap import cli
from rap.errors import UserError
from rap.jobs import jobs, perform


@pytest.mark.slow
def test_a_read_only_disk_is_one_line_with_a_remedy(tmp_path, disk, monkeypatch):
    params = whole.project(disk)
    shutil.rmtree(disk / "data/demo/features")
    monkeypatch.chdir(disk)
    before = {file: file.read_bytes() for file in disk.rglob("*") if file.is_file()}
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    for job in jobs(params):
        if job.stage in ("features", "train", "evaluate", "table"):
            monkeypatch.setattr("rap.params.load", lambda: params)
            with pytest.raises(UserError) as error:
                cli._guarded(lambda params, job=job: perform(params, job.stage, **job.item))
            said = str(error.value)
            assert "\n" not in said and ("the file system is read-only" in said or "run `rap" in said), job.command
    assert {file: file.read_bytes() for file in disk.rglob("*") if file.is_file()} == before
    assert Path("params.yaml").exists()
