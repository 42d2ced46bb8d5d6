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
from rap.demo.events import EVENTS
from rap.demo.film import render
from rap.demo.motions import MOTIONS
from rap.demo.scenes import KINDS, draw_scene, key, part
from rap.demo.things import BACKGROUNDS, PLACES, SHAPES, Thing
from rap.params import load

SMALL = shipped("dataset.demo", train=10, val=1, test=9)


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
    assert table.videos.split.value_counts().to_dict() == {"train": 20, "test": 18, "val": 2}
    assert table.split("train").captions.groupby("video_id").caption.nunique().eq(2).all()
    assert len(table.split("test").captions) == 18
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
    demo = shipped("dataset.demo")
    takes = list(draw_takes(demo))
    keys = {split: {key(take.scene) for take in takes if take.split == split} for split in ("train", "val", "test")}
    assert {split: len(found) for split, found in keys.items()} == {s: getattr(demo, s) for s in keys}
    assert keys["test"].isdisjoint(keys["train"] | keys["val"]) and keys["val"].isdisjoint(keys["train"])


def test_whatever_the_seed_training_never_sees_a_scene_that_another_seed_tests():
    """A digest of the scene decides, so a fresh test set cannot hold what the backbone or an adapter has seen."""
    for seed in range(3):
        for take in draw_takes(shipped("dataset.demo", seed=seed)):
            assert part(take.scene) == ("seen" if take.split == "train" else "held out")
            assert part(take.scene) == part(take.scene.backwards())


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


@pytest.mark.parametrize("kind", EVENTS)
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


@pytest.mark.parametrize("kind", KINDS)
def test_a_scene_reversed_twice_is_itself(kind):
    scene = draw_scene(np.random.default_rng(0), kind)
    assert scene.backwards() != scene and scene.backwards().backwards() == scene
    assert key(scene) == key(scene.backwards())


@pytest.mark.slow
@pytest.mark.parametrize("kind", MOTIONS)
def test_every_frame_of_a_motion_has_the_same_distribution_forwards_and_backwards(kind):
    """The mean picture of each of eight frames over many seeds equals that of the reversed scene, up to chance."""
    scene, seeds = draw_scene(np.random.default_rng(3), kind), range(300)
    ways = [[render(way, (seed,), 24) for seed in seeds] for way in (scene, scene.backwards())]
    middle = (np.arange(8) + 0.5) / 8
    sampled = np.array([[clip[(middle * len(clip)).astype(int)] for clip in way] for way in ways], float)
    forwards, backwards = sampled.mean(1)
    error = np.sqrt(sampled.var(1).sum(0) / len(seeds))
    apart = np.abs(forwards - backwards) / (error + 1)
    assert apart.mean() < 0.9 and (apart > 4).mean() < 0.002


@pytest.mark.parametrize("kind", MOTIONS)
def test_the_direction_of_a_motion_is_visible_in_the_order_of_frames(kind):
    """A clip is not the same as its reversal, whatever the phase: its first frames differ from its last ones."""
    clip = render(draw_scene(np.random.default_rng(2), kind), (5,)).astype(int)
    assert np.abs(clip - clip[::-1]).mean() > 0.5
