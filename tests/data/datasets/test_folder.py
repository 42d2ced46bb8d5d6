from pathlib import Path

import pandas as pd
import pytest

from rap.data.datasets import folder
from rap.errors import UserError

GOOD = "path,caption,split\na.mp4,a cat,train\n"


def prepare(project, text: str):
    Path("list.csv").write_bytes(text.encode("utf-8-sig"))
    return folder.prepare(project(), Path("videos"))


def test_rows_become_clips_with_all_their_captions(project):
    manifest = prepare(
        project,
        "split,caption,path,start,end,notes\n"
        'train,"a cat, asleep",a.mp4,,,x\ntrain,a pet,./a.mp4,,,\n'
        "test,it wakes,a.mp4,1.5,2,\nval,é “ö”,sub/ü.mp4,3,,\n",
    )
    assert list(manifest.videos.video_id) == ["a.mp4", "a.mp4@1.5-2", "sub/ü.mp4@3-"]
    assert list(manifest.videos.path) == ["a.mp4", "a.mp4", "sub/ü.mp4"]
    assert list(manifest.videos.split) == ["train", "test", "val"]
    assert manifest.videos.start.iloc[1:].tolist() == [1.5, 3] and manifest.videos.end.isna().tolist() == [1, 0, 1]
    assert list(manifest.captions.caption) == ["a cat, asleep", "a pet", "it wakes", "é “ö”"]
    assert list(manifest.captions.video_id) == ["a.mp4", "a.mp4", "a.mp4@1.5-2", "sub/ü.mp4@3-"]


def test_odd_captions_keep_their_characters_and_repeated_rows_are_counted(project):
    manifest = prepare(
        project,
        'path,caption,split\n-dash.mp4,"He said ""go"",\n then  left",test\n'
        "-dash.mp4,他走了 🎈,test\n./-dash.mp4,他走了 🎈 ,test\nb.mp4,他走了 🎈,test\n",
    )
    assert list(manifest.captions.caption) == ['He said "go", then left', "他走了 🎈", "他走了 🎈"]
    assert list(manifest.captions.caption_id) == ["row-2", "row-3", "row-5"]
    assert manifest.notes == ("1 rows repeat a caption of their clip: left out",)


def test_numeric_spans_in_parquet_equal_those_of_the_csv(project):
    table = pd.DataFrame({"path": "a.mp4", "caption": ["x", "y", "z"], "split": "test"})
    table["start"], table["end"] = [0.0, 1.5, 10.0], pd.array([1, 3, None], dtype="Int64")
    table.to_parquet("list.parquet")
    manifest = folder.prepare(project(dataset={"annotations": "list.parquet"}), Path("videos"))
    assert manifest.videos.start.tolist() == [0, 1.5, 10]
    assert manifest.videos.end.fillna(-1).tolist() == [1, 3, -1]
    assert list(manifest.videos.video_id) == ["a.mp4@0.0-1", "a.mp4@1.5-3", "a.mp4@10.0-"]


def test_parquet_and_csv_give_the_same_manifest(project):
    table = pd.DataFrame({"path": ["a.mp4", "b.mp4"], "caption": ["x", "y"], "split": "test", "start": [None, 0.5]})
    table.to_parquet("list.parquet")
    table.to_csv("list.csv", index=False)
    one, two = (
        folder.prepare(project(dataset={"annotations": name}), Path("videos")) for name in ("list.csv", "list.parquet")
    )
    pd.testing.assert_frame_equal(one.videos, two.videos)
    pd.testing.assert_frame_equal(one.captions, two.captions)


def test_a_clip_without_a_caption_is_kept_and_reported(project):
    manifest = prepare(project, GOOD + "a.mp4,  ,train\nb.mp4,,test\n")
    assert list(manifest.videos.video_id) == ["a.mp4", "b.mp4"] and list(manifest.captions.caption) == ["a cat"]
    assert manifest.notes == ("1 of 2 clips have no caption: they can only be searched",)
    assert len(prepare(project, "path,caption,split\na.mp4,,test\n").captions) == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,caption\na.mp4,x\n", "no column 'split'"),
        ("path,caption,split\n", "no rows"),
        ("", "cannot be read as a table"),
        (GOOD + "b.mp4,x,dev\n", "row 3: unknown split 'dev'; use one of train, val, test"),
        (GOOD + "a.mp4,x,test\n", "row 3: 'a.mp4' is already in train"),
        (GOOD + ",x,test\n", "row 3: no path"),
        (GOOD + "\nb.mp4,x,test\n", "row 3: no path"),
        (GOOD + "../b.mp4,x,test\n", "row 3: path '../b.mp4' leaves the folder"),
        (GOOD + "/etc/passwd,x,test\n", "row 3: path '/etc/passwd' leaves the folder"),
        (GOOD + "link/b.mp4,x,test\n", "row 3: path 'link/b.mp4' is a link out of the folder"),
        ("path,caption,split,start,end\nb.mp4,x,test,2,2\n", "row 2: start 2 is not before end 2"),
        ("path,caption,split,start,end\nb.mp4,x,test,-1,2\n", "row 2: start '-1' is not a time"),
        ("path,caption,split,start,end\nb.mp4,x,test,,nan\n", "row 2: end 'nan' is not a time"),
        ("path,caption,split,start,end\nb.mp4,x,test,0:10,\n", "row 2: start '0:10' is not a time"),
    ],
)
def test_a_mistake_gets_one_line_with_its_row(project, text, words):
    Path("videos/link").symlink_to("/tmp")
    with pytest.raises(UserError) as caught:
        prepare(project, text)
    assert words in str(caught.value) and "list.csv" in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_table_or_folder_or_another_encoding_is_named(project):
    with pytest.raises(UserError, match=r"dataset\.annotations: list\.csv does not exist"):
        folder.prepare(project(), Path("videos"))
    Path("list.csv").write_bytes(GOOD.encode() + b"b.mp4,caf\xe9,train\n")
    with pytest.raises(UserError, match="not UTF-8"):
        folder.prepare(project(), Path("videos"))
    with pytest.raises(UserError, match=r"dataset\.videos: elsewhere is not a folder"):
        folder.prepare(project(), Path("elsewhere"))
