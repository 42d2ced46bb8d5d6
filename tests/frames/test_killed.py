"""`rap frames`, killed in the middle, repeats at most the clips in flight and ends with the same bytes."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import do
import pytest
import yaml

from rap import paths

CLIPS = 60
RAP = [str(Path(sys.executable).with_name("rap")), "frames", "--shard", "0"]


def finished_rows() -> int:
    journal = paths.frames("folder", 0).parent / ".shard-0.rows.part"
    return len(journal.read_text().splitlines()) - 1 if journal.exists() else 0


@pytest.mark.slow
def test_a_killed_frames_stage_repeats_only_the_clips_in_flight(project, clips):
    names = [f"{number}.mp4" for number in range(CLIPS)]
    for name in names:
        shutil.copy(clips / "picture.mp4", Path("videos") / name)
    Path("list.csv").write_text("path,caption,split\n" + "".join(f"{name},a caption,train\n" for name in names))
    params = project(shards=[0], runtime={"workers": 2})
    Path("params.yaml").write_text(yaml.safe_dump(params.model_dump(mode="json", by_alias=True)))
    do.download(params)
    stem = paths.frames("folder", 0)
    subprocess.run(RAP, check=True, capture_output=True)
    whole = [Path(f"{stem}.{end}").read_bytes() for end in ("npy", "parquet", "json")]
    shutil.rmtree(stem.parent)
    killed = subprocess.Popen(RAP, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while (kept := finished_rows()) < 10:
        assert killed.poll() is None
        time.sleep(0.002)
    killed.kill()
    killed.wait()
    kept = finished_rows()
    said = subprocess.run(RAP, check=True, capture_output=True, text=True).stdout
    made = int(re.search(r"; (\d+) made now", said)[1])
    assert made <= CLIPS - kept < CLIPS
    assert [Path(f"{stem}.{end}").read_bytes() for end in ("npy", "parquet", "json")] == whole
    assert not [name for name in os.listdir(stem.parent) if name.startswith(".")]
