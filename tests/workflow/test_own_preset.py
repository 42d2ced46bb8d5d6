"""The preset for a user's own videos, from a folder to the table and the search.

Apart from test_own_videos, so that two processes share the time.
"""

import re
import shutil

import pandas as pd
import pytest
import random_clip
from clones import clone, edit, run

pytestmark = [pytest.mark.engine, pytest.mark.slow]

VIDEO = re.compile(r"my-videos/(\S+)")


def test_the_preset_caches_one_layer_and_trains_what_then_searches(clips, tmp_path):
    """As it is, but for a smaller model of as many blocks, whose weights are random."""
    folder = clone(tmp_path / "clone", small=False)
    shutil.copytree(clips, folder / "my-videos")
    run(folder, "rap", "dataset", "use", "folder", "--backbone", random_clip.SMALL)
    edit(folder, lambda params: params["backbone"].update(weights=str(random_clip.weights(tmp_path / "w.safetensors"))))
    run(folder, "rap", "dataset", "init", "my-videos")
    table = pd.read_csv(folder / "my-videos.csv")
    table["caption"] = [f"a clip, number {row}" for row in table.index]
    table["split"] = ["test" if row % 2 else "train" for row in table.index]
    table.to_csv(folder / "my-videos.csv", index=False)
    said = run(folder, "dvc", "repro", "table1")
    assert "a deeper cache" not in said
    assert {file.name for file in (folder / "data/folder/features").iterdir()} == {"video-12", "text-ids"}
    assert pd.read_csv(folder / "results/table1.csv").variant.tolist() == ["zero_shot", "lorm_head"]
    found = run(folder, "rap", "search", "a dog jumps")
    assert "by lorm_head" in found
    assert VIDEO.findall(found) == VIDEO.findall(run(folder, "rap", "search", "a dog jumps", "--variant", "lorm_head"))
