"""A user's own videos, of several encodings and one of them broken, through every stage to the table and the search."""

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from clones import clone, edit, run
from PIL import Image

TRAIN = ("steady.mp4", "steady.webm", "open.mkv", "portrait.mp4", "stream.ts")
TEST = ("sparse.mp4", "picture.mp4", "sparse.webm", "broken.mp4")


def test_own_videos_become_a_table_and_a_broken_one_is_counted(clips, tmp_path):
    folder = clone(tmp_path)
    shutil.copytree(clips, folder / "my-videos")
    (folder / "my-videos/broken.mp4").touch()
    rows = [(name, f"a {name.replace('.', ' as ')}", "train" if name in TRAIN else "test") for name in TRAIN + TEST]
    pd.DataFrame(rows, columns=["path", "caption", "split"]).to_csv(folder / "my-videos.csv", index=False)

    def own(params: dict) -> None:
        params["dataset"] |= {
            "name": "folder",
            "annotations": "my-videos.csv",
            "videos": "my-videos",
            "max_failed": 0.2,
        }
        params["shards"] = [0]
        params["variants"] = {"ssf": params["variants"]["ssf"]}
        params["tables"] = {"table1": {**params["tables"]["table1"], "variants": ["ssf"]}}
        params["ablations"] = {}

    edit(folder, own)
    run(folder, "snakemake", "--cores", "2", "results/table1.csv")
    row = pd.read_csv(folder / "results/table1.csv").iloc[0]
    assert (row.videos, row.videos_total, row.queries) == (3, 4, 3)
    assert "broken.mp4" in (folder / "logs/download.log").read_text()
    found = run(folder, "rap", "search", "a dog jumps", "--variant", "ssf", "--split", "test")
    assert sorted(re.findall(r"my-videos/(\S+)", found)) == ["picture.mp4", "sparse.mp4", "sparse.webm"]

    # Another video breaks, one too many; what was there before must not pass for the result of the new parameters.
    (folder / "my-videos/picture.mp4").write_bytes(b"no video")
    edit(folder, lambda params: params["frames"].update(count=4))
    said = run(folder, "snakemake", "--cores", "2", "results/table1.csv", fails=True)
    assert "2 of 9 videos failed" in said and "picture.mp4: changed since the manifest was made" in said
    assert (folder / "data/folder/frames/shard-0.parquet").exists()
    assert "rap frames" in run(folder, "snakemake", "--dry-run", "--printshellcmds", "results/table1.csv")


@pytest.fixture(params=["clips", "real_clips"])
def footage(request) -> list[Path]:
    """Clips that ffmpeg made, and real ones, if there are any."""
    found = request.getfixturevalue(request.param)
    return found if isinstance(found, list) else sorted(found.iterdir())


def test_a_folder_becomes_a_search_and_with_captions_an_adapter(footage, tmp_path):
    folder = clone(tmp_path, small=False)
    demo = yaml.safe_load((folder / "params.yaml").read_text())["backbone"]
    (folder / "my-videos").mkdir()
    for clip in footage:
        shutil.copy(clip, folder / "my-videos")

    def searched(*command: str) -> str:
        found = run(folder, *command, "--top", "99")
        assert sorted(re.findall(r"my-videos/(\S+)", found)) == sorted(clip.name for clip in footage)
        return found

    run(folder, "rap", "dataset", "use", "folder")
    edit(folder, lambda params: params.update(backbone=demo, shards=[0]))  # ViT-B/32 is not at hand
    assert f"my-videos.csv: {len(footage)} videos" in run(folder, "rap", "dataset", "init", "my-videos")
    run(folder, "dvc", "repro", "features")
    searched("rap", "search", "a dog jumps", "--variant", "zero_shot", "--picture", "found.png")
    with Image.open(folder / "found.png") as picture:
        assert picture.height > 400

    def two(params: dict) -> None:
        params["variants"] = {name: params["variants"][name] for name in ("zero_shot", "rap")}
        params["seeds"], params["ablations"] = [0], {}
        params["tables"] = {
            "table1": params["tables"]["table1"] | {"variants": ["zero_shot", "rap"], "baseline": "rap"}
        }

    edit(folder, two)
    table = pd.read_csv(folder / "my-videos.csv")
    table["caption"] = [f"a clip, number {row}" for row in table.index]
    table["split"] = ["test" if row % 2 else "train" for row in table.index]
    table.to_csv(folder / "my-videos.csv", index=False)
    run(folder, "dvc", "repro")
    rows = pd.read_csv(folder / "results/table1.csv")
    assert rows.variant.tolist() == ["zero_shot", "rap"] and (rows.videos == len(footage) // 2).all()
    found = searched("rap", "search", "a dog jumps", "--variant", "rap")
    file = shutil.copy(folder / "results/runs/rap/seed-0/adapter.safetensors", tmp_path / "theirs.safetensors")
    shutil.rmtree(folder / "results")
    assert searched("rap", "search", "a dog jumps", "--adapter", str(file)).split(" in ")[0] in found
