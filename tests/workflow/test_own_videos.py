"""A user's own videos, of several encodings and one of them broken, through every stage to the table."""

import shutil

import pandas as pd
from clones import clone, edit, run

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

    # Another video breaks, one too many; what was there before must not pass for the result of the new parameters.
    (folder / "my-videos/picture.mp4").write_bytes(b"no video")
    edit(folder, lambda params: params["frames"].update(count=4))
    said = run(folder, "snakemake", "--cores", "2", "results/table1.csv", fails=True)
    assert "2 of 9 videos failed" in said and "picture.mp4: changed since the manifest was made" in said
    assert (folder / "data/folder/frames/shard-0.parquet").exists()
    assert "rap frames" in run(folder, "snakemake", "--dry-run", "--printshellcmds", "results/table1.csv")
