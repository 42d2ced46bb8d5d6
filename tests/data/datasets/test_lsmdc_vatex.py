"""LSMDC and VATEX from small files of the official formats."""

import json
from pathlib import Path

import pytest

from rap.data.datasets import lsmdc, vatex
from rap.data.registry import departures
from rap.errors import UserError


def movie(number: int) -> str:
    return f"0001_American_Beauty_00.0{number}.00.000-00.0{number}.03.500"


@pytest.fixture
def annotations(tmp_path) -> Path:
    folder = tmp_path / "annotations"
    folder.mkdir()
    rows = {"train": (1, 2), "val": (3,), "test": (4, 5)}
    for split, numbers in rows.items():
        lines = [
            f'{movie(n)}\t00:00:01.0\t00:00:02.0\t00:00:01.0\t00:00:02.0\tSOMEONE says "hm, {n}\n' for n in numbers
        ]
        (folder / lsmdc.FILES[split]).write_text("".join(lines))
    return folder


def test_lsmdc_has_a_sentence_a_clip_and_finds_clips_in_folders_of_movies(project, annotations):
    clip = Path("videos/0001_American_Beauty", f"{movie(4)}.avi")
    clip.parent.mkdir()
    clip.touch()
    settings = project(dataset={"name": "lsmdc", "annotations": str(annotations)})
    manifest = lsmdc.prepare(settings, Path("videos"))
    videos = manifest.videos.set_index("video_id")
    assert videos.split.value_counts().to_dict() == {"train": 2, "test": 2, "val": 1}
    assert videos.path[movie(4)] == str(clip.relative_to("videos")) and videos.path[movie(5)] == f"{movie(5)}.avi"
    assert manifest.captions.set_index("video_id").caption[movie(4)] == 'SOMEONE says "hm, 4'
    assert len(manifest.captions) == 5


def test_lsmdc_refuses_a_file_of_another_form(project, annotations):
    settings = project(dataset={"name": "lsmdc", "annotations": str(annotations)})
    (annotations / lsmdc.FILES["val"]).write_text("a,b\n")
    with pytest.raises(UserError, match="1 columns in place of 6"):
        lsmdc.prepare(settings, Path("videos"))
    (annotations / lsmdc.FILES["val"]).unlink()
    with pytest.raises(UserError, match=r"has no LSMDC16_annos_val\.csv"):
        lsmdc.prepare(settings, Path("videos"))


def test_vatex_has_ten_queries_a_clip_and_finds_files_by_either_name(project, tmp_path):
    folder = tmp_path / "vatex"
    folder.mkdir()
    ids = {name: f"{name}-abcdefg_000010_000020" for name in ("aaa", "bbb", "ccc", "ddd")}
    entries = [
        {"videoID": id, "enCap": [f"{name} {n}" for n in range(10)], "chCap": ["一"] * 10} for name, id in ids.items()
    ]
    (folder / vatex.FILES[0]).write_text(json.dumps(entries[:2]))
    (folder / vatex.FILES[1]).write_text(json.dumps(entries[2:]))
    for split, names in (("train", ("aaa", "bbb")), ("val", ("ccc",)), ("test", ("ddd",))):
        (folder / f"{split}_list.txt").write_text("".join(f"{ids[name]}\n" for name in names))
    Path("videos/ddd-abcdefg.mp4").touch()
    Path(f"videos/{ids['aaa']}.mp4").touch()
    settings = project(dataset={"name": "vatex", "annotations": str(folder)})
    manifest = vatex.prepare(settings, Path("videos"))
    videos = manifest.videos.set_index("video_id")
    assert videos.path[ids["ddd"]] == "ddd-abcdefg.mp4" and videos.path[ids["aaa"]] == f"{ids['aaa']}.mp4"
    assert manifest.captions.video_id.value_counts().to_dict() == dict.fromkeys(ids.values(), 10)
    assert vatex.DATASET.name_pattern.fullmatch(ids["ddd"])["id"] == "ddd-abcdefg"
    assert any("1 videos were found under another name" in note for note in manifest.notes)
    assert departures(settings)  # the demo's frames and words are not those of published results
