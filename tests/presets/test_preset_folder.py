"""The preset for a user's own videos, from a folder to the table and the search, in one process."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
import random_clip
import yaml

from rap import params
from rap.download import init_csv
from rap.jobs import jobs, perform
from rap.presets import use
from rap.search.library import Library

pytestmark = pytest.mark.slow


def test_the_preset_caches_one_layer_and_trains_what_then_searches(clips, tmp_path, monkeypatch):
    """As it is, but for a smaller model of as many blocks, whose weights are random."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rap.report.tracking.log", lambda *_: None)
    shutil.copytree(clips, "my-videos")
    use.begin("folder")
    use.run(params.load(), "folder", random_clip.SMALL)
    values = yaml.safe_load(Path("params.yaml").read_text())
    values["backbone"]["weights"] = str(random_clip.weights(tmp_path / "w.safetensors"))
    Path("params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    init_csv.run(params.load(), "my-videos")
    table = pd.read_csv("my-videos.csv")
    table["caption"] = [f"a clip, number {row}" for row in table.index]
    table["split"] = ["test" if row % 2 else "train" for row in table.index]
    table.to_csv("my-videos.csv", index=False)
    settings = params.load()
    said = [
        perform(settings, job.stage, **job.item) for job in jobs(settings, ablations=False) if job.stage != "report"
    ]
    assert not [line for line in said if "would compute less" in line]
    assert {file.name for file in Path("data/folder/features").iterdir()} == {"video-12", "text-ids"}
    assert pd.read_csv("results/table1.csv").variant.tolist() == ["zero_shot", "lorm_head"]
    opened = Library.open(settings)
    assert opened.variant == "lorm_head"
    assert opened.text("a dog jumps") == Library.open(settings, "lorm_head").text("a dog jumps")
