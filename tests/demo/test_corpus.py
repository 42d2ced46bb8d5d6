"""The demo corpus: reproducible video files, each with a time-reversed twin."""

import subprocess

import imageio_ffmpeg
import numpy as np
import pytest
from shipped import shipped

from rap.demo.captions import caption, describe, vocabulary, words
from rap.demo.corpus import DIRECTIONS, draw_takes, manifest, prepare, write_clips
from rap.demo.draw import SHAPES as DRAWN
from rap.demo.draw import paint, still
from rap.demo.film import render
from rap.demo.scenes import BACKGROUNDS, KINDS, PLACES, SHAPES, Thing, draw_scene
from rap.params import load

SMALL = shipped("dataset.demo", train=5, val=1, test=4)


@pytest.fixture(scope="module")
def params():
    params = load()
    return params.model_copy(update={"dataset": params.dataset.model_copy(update={"demo": SMALL})})


@pytest.fixture(scope="module")
def corpus(params, tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    return prepare(params, folder), folder


def decode(path):
    """uint8 [frames, 96, 96, 3]."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    return np.frombuffer(subprocess.run(command, check=True, capture_output=True).stdout, np.uint8).reshape(
        -1, 96, 96, 3
    )


def test_the_splits_have_the_scenes_and_captions_asked_for(corpus):
    table, _ = corpus
    assert table.videos.split.value_counts().to_dict() == {"train": 10, "test": 8, "val": 2}
    assert table.split("train").captions.groupby("video_id").caption.nunique().eq(2).all()
    assert len(table.split("test").captions) == 8
    assert set(table.captions.kind) == set(KINDS)


def test_twins_name_each_other_and_differ_in_caption(corpus):
    videos = corpus[0].videos.set_index("video_id")
    assert (videos.twin[videos.twin].to_numpy() == videos.index.to_numpy()).all()
    texts = {video: set(rows.caption) for video, rows in corpus[0].captions.groupby("video_id")}
    assert all(texts[video].isdisjoint(texts[twin]) for video, twin in videos.twin.items())


def test_a_twin_decodes_to_the_same_pictures_in_reverse(corpus):
    table, folder = corpus
    for row in table.videos[table.videos.video_id.str.endswith(DIRECTIONS[0])].itertuples():
        clip, twin = decode(folder / row.path), decode(folder / f"{row.twin}.mp4")
        assert 24 <= len(clip) <= 48 and (clip == twin[::-1]).all() and not (clip == twin).all()


def test_the_bytes_of_clips_are_reproducible(corpus, tmp_path):
    take = next(draw_takes(SMALL))
    write_clips(take, tmp_path)
    for way in DIRECTIONS:
        name = f"{take.name(way)}.mp4"
        assert (tmp_path / name).read_bytes() == (corpus[1] / name).read_bytes()


def test_a_second_run_writes_only_missing_or_incomplete_clips(params, corpus, tmp_path):
    take = next(draw_takes(SMALL))
    assert [write_clips(take, tmp_path), write_clips(take, tmp_path)] == [2, 0]
    incomplete = tmp_path / f"{take.name('forwards')}.mp4"
    whole = incomplete.read_bytes()
    incomplete.write_bytes(whole[: len(whole) // 2])
    assert write_clips(take, tmp_path) == 1 and incomplete.read_bytes() == whole


def test_no_test_scene_is_a_train_scene_in_either_direction():
    takes = list(draw_takes(shipped("dataset.demo")))
    keys = {split: {take.scene.key() for take in takes if take.split == split} for split in ("train", "val", "test")}
    assert [len(keys[split]) for split in ("train", "val", "test")] == [400, 40, 125]
    assert keys["test"].isdisjoint(keys["train"] | keys["val"]) and keys["val"].isdisjoint(keys["train"])


def test_more_train_scenes_leave_the_test_scenes_alone():
    test = [
        [take for take in draw_takes(shipped("dataset.demo", train=train)) if take.split == "test"] for train in (3, 30)
    ]
    assert test[0] == test[1]


def test_the_vocabulary_covers_every_caption():
    known, rng = set(vocabulary()), np.random.default_rng(0)
    used = {
        word for text in manifest(list(draw_takes(shipped("dataset.demo")))).captions.caption for word in words(text)
    }
    for kind in KINDS * 200:
        scene = draw_scene(rng, kind)
        things = [Thing("ring", "red", place, size) for place in PLACES for size in ("small", "large")]
        used |= set(words(caption(scene, rng))) | set(words(describe(scene.background, things, rng)))
    assert used == known


def test_a_scene_and_its_reverse_never_share_a_caption():
    rng = np.random.default_rng(0)
    for kind in KINDS * 100:
        scene = draw_scene(rng, kind)
        assert caption(scene, rng) != caption(scene.backwards(), rng)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_event_changes_the_picture(kind):
    frames = render(draw_scene(np.random.default_rng(1), kind), (1, 2)).astype(int)
    change = np.abs(frames - frames[0]).mean((1, 2, 3))
    assert change.max() > 1
    assert (change[-1] < 0.1) if kind == "order" else (change[-1] == change.max())


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_are_centred_at_their_place_and_differ_from_each_other(shape):
    def mask(name):
        picture = still("dark", [Thing(name, "yellow", "centre", "large")], np.random.default_rng(0))
        return picture[..., 0] > 150

    y, x = np.nonzero(mask(shape))
    assert abs(x.mean() - 48) < 6 and abs(y.mean() - 48) < 6
    assert all((mask(shape) ^ mask(other)).mean() > 0.01 for other in DRAWN if other != shape)


def test_backgrounds_differ():
    pictures = [paint(name, [], 1).astype(int) for name in BACKGROUNDS]
    assert all(np.abs(a - b).mean() > 10 for i, a in enumerate(pictures) for b in pictures[:i])
