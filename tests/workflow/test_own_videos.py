"""A user's own videos, of several encodings and one of them broken, through every stage to the table and the search."""

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from clones import clone, edit, run
from PIL import Image

from rap import params
from rap.retrieval.pretrained import untrained

pytestmark = [pytest.mark.engine, pytest.mark.slow]

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
        params["run"], params["ablations"] = ["ssf"], {}

    edit(folder, own)
    run(folder, "snakemake", "--cores", "2", "results/table1.csv")
    row = pd.read_csv(folder / "results/table1.csv").iloc[0]
    assert (row.videos, row.videos_total, row.queries) == (3, 4, 3)
    assert "broken.mp4" in (folder / "logs/download.log").read_text()
    found = run(folder, "rap", "search", "a dog jumps", "--variant", "ssf", "--split", "test")
    assert sorted(ranking(found)) == ["picture.mp4", "sparse.mp4", "sparse.webm"]

    # Another video breaks, one too many; what was there before must not pass for the result of the new parameters.
    (folder / "my-videos/picture.mp4").write_bytes(b"no video")
    edit(folder, lambda params: params["frames"].update(count=4))
    said = run(folder, "snakemake", "--cores", "2", "results/table1.csv", fails=True)
    assert "2 of 9 videos failed" in said
    assert "rap download" in run(folder, "snakemake", "--dry-run", "--printshellcmds", "results/table1.csv")


def test_a_folder_becomes_a_search_without_a_caption(clips, tmp_path, monkeypatch):
    folder = searched_folder(tmp_path, sorted(clips.iterdir()))
    monkeypatch.chdir(folder)
    model = untrained(params.load(), "zero_shot")
    said = run(folder, "rap", "search", "a red circle", "--variant", "zero_shot", "--top", "99")
    found = [Path("my-videos", name) for name in ranking(said)]
    cosines = model.texts(["a red circle"]) @ model.videos(found).T  # Python alone, from the files to the cosine
    assert [float(number) for number in re.findall(r"-?0\.\d{3}", said)] == pytest.approx(cosines[0].tolist(), abs=1e-3)


def test_with_captions_real_clips_become_a_table_and_an_adapter(real_clips, tmp_path):
    folder = searched_folder(tmp_path, real_clips)
    table = pd.read_csv(folder / "my-videos.csv")
    table["caption"] = [f"a clip, number {row}" for row in table.index]
    table["split"] = ["test" if row % 2 else "train" for row in table.index]
    table.to_csv(folder / "my-videos.csv", index=False)
    run(folder, "dvc", "repro", "table1")
    rows = pd.read_csv(folder / "results/table1.csv")
    assert rows.variant.tolist() == ["zero_shot", "rap"] and (rows.videos == len(real_clips) // 2).all()
    found = run(folder, "rap", "search", "a dog jumps")  # with what was trained
    assert ranking(found) == ranking(run(folder, "rap", "search", "a dog jumps", "--variant", "rap"))
    file = shutil.copy(folder / "results/runs/rap/seed-0/adapter.safetensors", tmp_path / "theirs.safetensors")
    shutil.rmtree(folder / "results")
    assert ranking(run(folder, "rap", "search", "a dog jumps", "--adapter", str(file))) == ranking(found)


def searched_folder(place: Path, videos: list[Path]) -> Path:
    """The commands of the README, up to the search, in a clone with two variants on the demo's backbone."""
    folder = clone(place / "clone", small=False)
    demo = yaml.safe_load((folder / "params.yaml").read_text())["backbone"]
    (folder / "my-videos").mkdir()
    for video in videos:
        shutil.copy(video, folder / "my-videos")

    def small(params: dict) -> None:
        params |= {"backbone": demo, "shards": [0], "seeds": [0], "ablations": {}}  # ViT-B/32 cannot be downloaded
        params["features"]["caches"] = ["video-0", "text-ids"]
        params["variants"] = {name: params["variants"][name] for name in ("zero_shot", "rap")}
        params["run"] = ["zero_shot", "rap"]
        params["tables"] = {"table1": {"title": "Ours", "variants": ["zero_shot", "rap"], "baseline": "zero_shot"}}

    run(folder, "rap", "dataset", "use", "folder")
    edit(folder, small)
    assert f"my-videos.csv: {len(videos)} videos" in run(folder, "rap", "dataset", "init", "my-videos")
    run(folder, "rap", "index")
    asked = ("rap", "search", "a dog jumps", "--picture", "found.png")
    assert sorted(ranking(run(folder, *asked, "--top", "99"))) == sorted(video.name for video in videos)
    with Image.open(folder / "found.png") as picture:
        assert picture.height > 400
    return folder


def ranking(said: str) -> list[str]:
    """The videos that a search printed, best first."""
    return re.findall(r"my-videos/(\S+)", said)
