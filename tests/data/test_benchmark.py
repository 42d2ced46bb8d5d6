"""Odd annotations of a benchmark: each kind follows a rule and is reported."""

import json
import pickle
from pathlib import Path

import pytest

from rap.data import benchmark
from rap.data.datasets import activitynet, didemo, msrvtt, msvd
from rap.data.manifest import Manifest
from rap.errors import UserError

MODULES = {"msrvtt": msrvtt, "msvd": msvd, "didemo": didemo, "activitynet": activitynet}


def write(files: dict) -> Path:
    folder = Path("annotations")
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def prepared(project):
    """`prepared("msvd", {file: content, …})` writes the files and returns the manifest."""

    def prepare(name: str, files: dict, **keys) -> Manifest:
        settings = project(dataset={"name": name, "annotations": str(write(files)), "validation": 0, **keys})
        return MODULES[name].prepare(settings, Path("videos"))

    return prepare


def lists(train="", val="", test="") -> dict[str, str]:
    return {"train_list.txt": train, "val_list.txt": val, "test_list.txt": test}


def tiny_msrvtt(**files) -> dict:
    sentences = [{"video_id": f"video{n}", "caption": f"caption {k}"} for n in range(4) for k in range(2)]
    usual = {
        "MSRVTT_data.json": {"sentences": sentences},
        "MSRVTT_train.9k.csv": "video_id\nvideo0\nvideo1\n",
        "MSRVTT_JSFUSION_test.csv": "key,vid_key,video_id,sentence\nret0,msr2,video2,a query\n",
    }
    return usual | {name.replace("_JSON", ".json").replace("_CSV", ".csv"): value for name, value in files.items()}


def test_captions_keep_unicode_quotes_and_commas_and_lose_line_breaks(prepared):
    texts = ["  the piñata,\n breaks ", 'he says "go"', "它 跳\t🎈", "it's; `x` \\ $(y)"]
    manifest = prepared("msvd", {**lists(train="-a_1_2\n"), "captions_msvd.json": {"-a_1_2": texts}})
    assert list(manifest.captions.caption) == ["the piñata, breaks", 'he says "go"', "它 跳 🎈", "it's; `x` \\ $(y)"]
    assert manifest.videos.path[0] == "-a_1_2.mp4"
    query = 'key,vid_key,video_id,sentence\nret0,msr2,video2,"a ""big"", red\nbus"\n'
    manifest = prepared("msrvtt", tiny_msrvtt(MSRVTT_JSFUSION_test_CSV=query))
    assert manifest.split("test").captions.caption[0] == 'a "big", red bus'


def test_empty_captions_are_left_out_and_the_others_keep_their_numbers(prepared):
    captions = {"a": ["one", " \n", "two"], "b": ["", " "]}
    manifest = prepared("msvd", {**lists(train="a\n", test="b\n"), "captions_msvd.json": captions})
    assert list(manifest.captions.caption_id) == ["a#0", "a#2"]
    assert list(manifest.videos.video_id) == ["a"]
    assert manifest.notes == ("1 videos have no caption: left out", "3 captions are empty: left out")


def test_repeated_captions_are_kept_because_published_results_count_them(prepared):
    manifest = prepared("msvd", {**lists(test="a\nb\n"), "captions_msvd.json": {"a": ["x", "x ", "y"], "b": ["x"]}})
    assert list(manifest.captions.caption) == ["x", "x", "y", "x"]
    assert manifest.notes == ("1 captions repeat another of their video: kept, as in the protocol",)


def test_videos_without_captions_and_captions_without_videos_are_left_out(prepared):
    captions = {"a": ["x"], "stray": ["y", "z"]}
    manifest = prepared("msvd", {**lists(train="a\nmute\n\n  \n"), "captions_msvd.json": captions})
    assert list(manifest.videos.video_id) == ["a"] and list(manifest.captions.caption) == ["x"]
    assert manifest.notes == (
        "1 videos have no caption: left out",
        "2 captions belong to 1 videos in no split: left out",
    )


def test_a_video_of_several_splits_is_not_trained_on(prepared):
    split = lists(train="a\nb\nc\n", val="b\nc\n", test="c\n")
    manifest = prepared("msvd", {**split, "captions_msvd.json": {id: ["x"] for id in "abc"}})
    assert dict(zip(manifest.videos.video_id, manifest.videos.split, strict=True)) == {
        "a": "train", "b": "val", "c": "test",
    }  # fmt: skip
    assert manifest.notes == ("3 videos are in several splits: kept in test, or else in val",)


def test_msrvtt_uses_the_chosen_training_list_and_only_the_csv_for_testing(prepared):
    files = tiny_msrvtt() | {"MSRVTT_train.7k.csv": "video_id\nvideo1\n"}
    nine, seven = prepared("msrvtt", files), prepared("msrvtt", files, msrvtt={"train": "7k"})
    assert list(nine.videos.video_id) == ["video0", "video1", "video2"]
    assert list(seven.videos.video_id) == ["video1", "video2"]
    assert list(nine.captions.caption) == ["caption 0", "caption 1"] * 2 + ["a query"]
    assert nine.notes == ("2 captions belong to 1 videos in no split: left out",)
    assert len(prepared("msrvtt", files, validation=1).split("val").captions) == 2


def test_the_pickle_gives_the_same_captions_as_the_json(prepared):
    words = {"a": [["a", "cat"], ["it", "s", "ö"]], "-b": [["two"]]}
    split = lists(train="a\n", test="-b\n")
    plain = prepared("msvd", {**split, "captions_msvd.json": {k: [" ".join(w) for w in v] for k, v in words.items()}})
    Path("annotations/captions_msvd.json").unlink()
    for protocol in (0, 2, 4):
        Path("annotations/raw-captions.pkl").write_bytes(pickle.dumps(words, protocol))
        pickled = prepared("msvd", split)
        assert pickled.captions.equals(plain.captions) and pickled.videos.equals(plain.videos)


@pytest.mark.parametrize(
    ("name", "files", "words"),
    [
        ("msvd", lists(), "annotations has no captions_msvd.json or raw-captions.pkl"),
        ("didemo", {}, "annotations has no train_data.json; .* `rap dataset use didemo`"),
        ("msvd", lists() | {"captions_msvd.json": {}}, "no video with a caption"),
        ("msvd", lists() | {"captions_msvd.json": '{"a": ["x"'}, r"captions_msvd.json: whole file: Invalid JSON"),
        ("msvd", lists() | {"captions_msvd.json": {"a": [None]}}, r"captions_msvd.json: a\.0.*: Input should be"),
        ("msvd", lists("../a\n") | {"captions_msvd.json": {"../a": ["x"]}}, "'../a' is not a video's name"),
        ("didemo", {f"{s}_data.json": [{"video": "/x.mp4", "description": "y"}] for s in ("train", "val", "test")},
         "'/x' is not a video's name"),
        ("activitynet", {"train.json": {"v_a": {}}}, "train.json: v_a.sentences: Field required"),
        ("msrvtt", tiny_msrvtt(MSRVTT_JSFUSION_test_CSV="video_id\nvideo2\n"), "test.csv: no column 'sentence'"),
        ("msrvtt", tiny_msrvtt() | {"MSRVTT_train.9k.csv": ""}, "9k.csv: cannot be read as a table"),
        ("msrvtt", tiny_msrvtt() | {"validation": "2"}, "dataset.validation: 2 leaves none of 2 videos"),
    ],
)  # fmt: skip
def test_unreadable_annotations_are_one_line(prepared, name, files, words):
    keys = {"validation": int(files.pop("validation"))} if "validation" in files else {}
    with pytest.raises(UserError, match=words) as caught:
        prepared(name, files, **keys)
    assert "\n" not in str(caught.value)


def test_another_encoding_and_a_missing_folder_of_videos_are_one_line(prepared):
    Path("annotations").mkdir()
    Path("annotations/train_data.json").write_bytes(b'[{"video": "caf\xe9.mp4"}]')
    with pytest.raises(UserError, match=r"train_data\.json: not UTF-8"):
        prepared("didemo", {})
    Path("videos").rmdir()
    with pytest.raises(UserError, match=r"dataset\.videos: videos is not a folder"):
        prepared("msvd", {**lists(train="a"), "captions_msvd.json": {"a": ["x"]}})


def test_of_several_files_of_a_video_the_preferred_suffix_is_used(prepared):
    for name in ("sub/a.mkv", "a.webm", "B.MP4", ".hidden/a.mp4", "c.", "c.txt", "a.part", "d.e.mp4"):
        path = Path("videos") / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    split = {
        **lists(train="a\nB\nc\nd.e\nb\n"),
        "captions_msvd.json": {id: ["x"] for id in ("a", "B", "c", "d.e", "b")},
    }
    manifest = prepared("msvd", split)
    assert list(manifest.videos.path) == ["sub/a.mkv", "B.MP4", "c.", "d.e.mp4", "b.mp4"]
    assert manifest.notes == ("1 videos have several files: the first by suffix is used (mp4, mkv, webm, …)",)


def test_a_link_to_a_video_is_a_video(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store/blob").touch()
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/-x.mp4").symlink_to(tmp_path / "store/blob")
    assert benchmark.by_stem(tmp_path / "videos") == {"-x": ["-x.mp4"]}
