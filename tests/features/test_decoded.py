"""`frames.store: false`: the features of videos whose frames never reach the disk are those of stored frames."""

import shutil
from itertools import pairwise
from pathlib import Path

import do
import numpy as np
import pytest
import sealed
import tiny
from safetensors.torch import save_file

from rap import paths
from rap.errors import UserError
from rap.features import stage
from rap.features.cache import choose
from rap.features.decoded import Decoded
from rap.files import digest_file, write_json
from rap.frames.pictures import Pictures, reasons
from rap.jobs import Job
from rap.shards import Shard

CLIPS = ("steady.mp4", "sparse.mp4", "picture.mp4", "broken.mp4", "portrait.mp4", "one.mp4", "open.mp4", "stream.ts")
GOOD = len(CLIPS) - 1


@pytest.fixture
def ready(project, clips):
    """`ready(store)`: the parameters of a project after the download: eight clips, one with damaged pictures."""
    for name in CLIPS:
        shutil.copy(clips / ("picture.mp4" if name == "broken.mp4" else name), Path("videos") / name)
    Path("list.csv").write_text("path,caption,split\n" + "".join(f"{name},a caption,train\n" for name in CLIPS))
    home = Path("data/backbones/demo-vit")
    save_file(tiny.clip().state_dict(), home / "weights.safetensors")
    write_json(home / "config.json", tiny.CONFIG | {"digest": digest_file(home / "weights.safetensors")})

    def configured(store: bool, max_failed: float = 0.5, decoder: str = "ffmpeg"):
        return project(
            shards=[0],
            dataset={"max_failed": max_failed},
            frames={"count": 4, "store": store, "decoder": decoder},
            features={"caches": ["video-1", "text-ids"], "batch": 3, "max_words": 12},
            runtime={"workers": 2},
        )

    content = Path("videos/broken.mp4").read_bytes()
    sealed.damage("videos/broken.mp4", content.index(b"mdat") + 20_000, 2_000)  # in its pictures, not in its index
    do.download(configured(True))
    return configured


def features(params) -> str:
    do.frames(params, 0)
    return do.features(params, "video-1", 0)


def rows() -> list[bytes]:
    """The arrays, the keys, the checksums and the reasons."""
    stem = paths.features("folder", "video-1", 0)
    return [Path(f"{stem}.{end}").read_bytes() for end in ("npy", "parquet")]


def size() -> int:
    return Path(f"{paths.frames('folder', 0)}.npy").stat().st_size


@pytest.mark.parametrize("decoder", ["ffmpeg", "sparse"])
def test_both_ways_write_the_same_rows_and_keys(ready, decoder):
    features(ready(True, decoder=decoder))
    stored, stored_size = rows(), size()
    shutil.rmtree("data/folder/features")
    said = features(ready(False, decoder=decoder))
    assert rows() == stored and f"{len(CLIPS)} computed, 1 failed" in said
    assert size() < 1_000 < stored_size


def test_a_change_of_the_way_decodes_what_failed_again_and_nothing_else(ready):
    features(ready(False))
    before = rows()
    for store in (True, False):
        assert " 1 computed, 1 failed" in features(ready(store)) and rows() == before
    assert "up to date" in features(ready(False))


def test_an_interrupted_run_goes_on_with_the_same_batches(ready, monkeypatch):
    """The failed clip lies in the second batch: after the interruption, it must not move those behind it."""
    params = ready(False)
    features(params)
    whole = rows()
    shutil.rmtree("data/folder/features")
    prefix, batches = stage.prefix, []

    def dies_in_the_third(*arguments):
        batches.append(len(arguments[1]))
        if len(batches) == 3:
            raise KeyboardInterrupt
        return prefix(*arguments)

    monkeypatch.setattr(stage, "prefix", dies_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        features(params)
    assert batches == [3, 3, 1]
    assert f" {len(CLIPS) - 3} computed" in features(params)
    assert rows() == whole


def test_a_changed_video_is_decoded_again(ready):
    features(ready(False))
    before = Shard.read(paths.features("folder", "video-1", 0)).rows(range(len(CLIPS)))
    shutil.copy("videos/open.mp4", "videos/one.mp4")
    do.download(ready(False))
    assert " 2 computed, 1 failed" in features(ready(False))
    after = Shard.read(paths.features("folder", "video-1", 0)).rows(range(len(CLIPS)))
    assert [name for name, a, b in zip(CLIPS, before, after, strict=True) if (a != b).any()] == ["one.mp4"]


def test_too_many_failures_stop_the_features_stage(ready):
    do.download(strict := ready(False, max_failed=0.1))
    with pytest.raises(UserError, match=r"1 of 8 videos failed.*\(0\.1\); the first here is broken.mp4"):
        features(strict)
    assert Job(strict, "features", {"cache": "video-1", "shard": 0}).stale() == "not there"
    do.download(ready(False))
    assert " 1 computed" in features(ready(False))


def test_batches_hold_the_clips_that_can_be_decoded_in_the_order_of_the_manifest(ready):
    """The bits of a row may depend on what shares its batch."""
    params = ready(False)
    do.frames(params, 0)
    decoded = Decoded(Job(params, "features", {"cache": "video-1", "shard": 0}), 0, reasons := {})
    good = [name for name in CLIPS if name != "broken.mp4"]
    assert [ids for ids, _ in decoded.rounds(3, list(CLIPS))] == [good[:3], good[3:6], good[6:]]
    assert list(reasons) == ["broken.mp4"]


def test_a_strip_reaches_from_the_first_frame_to_the_last(ready):
    pictures = Pictures(ready(False))
    every = pictures.strip("steady.mp4", 99)
    assert len(every) == 4 and all((a != b).any() for a, b in pairwise(every))  # a film in which every picture differs
    np.testing.assert_array_equal(pictures.strip("steady.mp4", 2), every[[0, 3]])


def test_pictures_and_reasons_are_the_same(ready):
    features(ready(True))
    ids = [id for id in Shard.read(paths.frames("folder", 0)).index.id if id != "broken.mp4"]
    stored, why = [Pictures(ready(True)).strip(id, 3) for id in ids], reasons(ready(True))
    features(ready(False))
    decoded = Pictures(ready(False))
    for id, strip in zip(ids, stored, strict=True):
        np.testing.assert_array_equal(decoded.strip(id, 3), strip)
    assert reasons(ready(False)) == why and len(ids) == GOOD and why["broken.mp4"]
    for store in (True, False):
        features(ready(store))
        with pytest.raises(UserError, match=r"broken\.mp4: "):
            Pictures(ready(store)).strip("broken.mp4", 3)


def test_no_method_trains_on_frames_that_are_not_stored(ready):
    tower = tiny.clip().visual
    assert choose(ready(True), "video", tower, 0) == "frames"
    with pytest.raises(UserError, match="add video-0"):
        choose(ready(False), "video", tower, 0)


def test_several_processes_are_refused(project):
    with pytest.raises(UserError, match=r"set runtime\.processes to 1"):
        project(frames={"store": False}, runtime={"processes": 2})
