"""Clips that follow each other in a file are decoded in one pass: the same frames as one by one, to the last bit."""

import math
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import do
import numpy as np
import pytest
from conftest import COUNTER, H264, film, put
from sealed import damage
from shipped import shipped

from rap.data.manifest import Manifest, Video
from rap.features.decoded import Decoded
from rap.files import digest_file
from rap.frames import ffmpeg, sparse
from rap.frames.decode import SOON, Files, Recipe, consecutive, cut_clips, decode, decode_all
from rap.frames.probe import probe
from rap.frames.stage import HELD, together
from rap.jobs import Job
from rap.shards import Shard

FILES = ("steady.mp4", "steady.webm", "sparse.mp4", "sparse.webm", "open.mp4", "open.mkv", "stream.ts")
# Spans of files of four seconds: next to each other, apart, one inside another, equal, to the end and beyond it.
SPANS = {
    "adjacent": [(0.0, 0.9), (0.9, 1.8), (1.8, 2.7), (2.7, 3.6)],
    "apart": [(0.5, 0.8), (1.3, 2.1), (3.0, 3.3)],
    "overlapping": [(0.2, 3.5), (0.6, 1.0), (0.6, 1.0), (0.8, 2.4)],
    "to the end": [(1.1, 2.2), (2.2, math.nan), (3.1, 9.0)],
    "out of order": [(2.9, 3.4), (0.3, 0.7)],
}


def recipe(decoder: str, count: int = 5, **sampler) -> Recipe:
    return Recipe(shipped("frames", count=count, decoder=decoder, **sampler), 48, "bicubic")


def row(name: str, start: float, end: float, path: Path) -> Video:
    return Video(name, path.name, "train", digest_file(path), start, end, 4.0, "", "ok", "")


@pytest.mark.slow
@pytest.mark.parametrize("spans", SPANS)
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("decoder", ["ffmpeg", "sparse"])
def test_together_and_alone_give_the_same_frames(clips, decoder, name, spans):
    path = clips / name
    span = probe(path)
    for how in (recipe(decoder), recipe(decoder, sampler="fps", fps=3.0)):
        together = decode_all(path, how, SPANS[spans], span)
        alone = [decode(path, how, start, end, span) for start, end in SPANS[spans]]
        assert [frames.shape for frames in together] == [frames.shape for frames in alone]
        assert all(np.array_equal(one, other) for one, other in zip(together, alone, strict=True))


@pytest.fixture
def runs(monkeypatch) -> list[list[str]]:
    """The commands of ffmpeg, as they run."""
    ffmpeg.decoders()  # asked once
    found: list[list[str]] = []
    run = ffmpeg.run
    monkeypatch.setattr(ffmpeg, "run", lambda command, *rest: found.append(command) or run(command, *rest))
    return found


def test_sparse_reads_each_packet_once(clips, monkeypatch, runs):
    packets = []
    pictures = sparse.pictures
    monkeypatch.setattr(
        sparse, "pictures", lambda *source: map(lambda one: packets.append(1) or one, pictures(*source))
    )
    decode_all(clips / "steady.mp4", recipe("sparse"), SPANS["adjacent"], probe(clips / "steady.mp4"))
    assert not runs and 80 < len(packets) <= 100


@pytest.mark.parametrize("count", [1, 3, 8])
def test_ffmpeg_runs_once_for_a_list_and_begins_at_a_key_frame(tmp_path, runs, count):
    path = film(tmp_path / "a.mp4", COUNTER, *H264, "-g", "10")
    spans = [(n * 0.35, n * 0.35 + 0.35) for n in range(5, 11)]
    runs.clear()  # without that of the encoder
    decode_all(path, recipe("ffmpeg", count=count), spans, probe(path))
    (command,) = runs
    assert 1.2 <= float(command[command.index("-ss") + 1]) <= 1.75
    decode_all(path, recipe("ffmpeg", count=count), [(n * 0.4, n * 0.4 + 0.4) for n in range(10)], probe(path))
    assert len(runs) == 2


def test_lists_are_clips_of_one_file_in_their_order_with_short_gaps():
    def video(path: str, start: float = math.nan, end: float = math.nan, status: str = "ok") -> SimpleNamespace:
        return SimpleNamespace(path=path, digest=path, start=start, end=end, status=status)

    spans = [video("a", 2.0 * n, 2.0 * n + 2) for n in range(6)]
    later = [video("a", 200, 201), video("a", 201 + SOON, 220), video("a", 203, 204), video("b", 205, 206)]
    changed = SimpleNamespace(path="b", digest="other", start=206, end=207, status="ok")
    others = [video("c"), video("c"), video("b", 1, 2, "failed"), video("b", 2, 3)]
    found = list(consecutive([*spans, *later, changed, *others], 4))
    assert list(chain(*found)) == [*spans, *later, changed, *others]
    assert [len(one) for one in found] == [4, 2, 2, 1, 1, 1, 1, 1, 1, 1]


def test_a_list_is_bounded_by_memory_and_leaves_work_for_every_worker(project):
    spans = [SimpleNamespace(path="a", digest="a", start=float(n), end=n + 1.0, status="ok") for n in range(40)]
    for count, workers, most in ((12, 2, 16), (12, 8, 5), (64, 2, 3), (500, 1, 1), (12, 99, 1)):
        params = project(frames={"count": count}, runtime={"workers": workers})
        assert max(map(len, together(params, spans))) == most <= max(1, HELD // count)


@pytest.mark.parametrize("decoder", ["ffmpeg", "sparse"])
def test_a_clip_that_fails_leaves_others_their_frames(tmp_path, decoder):
    """Clips shortly before the damage may fail as well: ffmpeg's decoder runs some pictures ahead."""
    path = film(tmp_path / "a.mp4", COUNTER.replace("d=4", "d=12"), *H264, "-g", "10")
    whole = [decode(path, recipe(decoder), n, n + 1.0) for n in range(12)]
    damage(path, path.stat().st_size // 2, 600)
    found = cut_clips([row(str(n), n, n + 1.0, path) for n in range(12)], recipe(decoder), Files(tmp_path))
    assert [item.id for item in found] == [str(n) for n in range(12)]
    failed = {n for n, item in enumerate(found) if item.reason}
    assert failed and max(failed) - min(failed) <= 4 and all(found[n].reason.startswith("ffmpeg: ") for n in failed)
    assert all(np.array_equal(found[n].array, whole[n]) for n in range(12) if n not in failed)


def test_a_clip_beyond_the_end_has_a_reason_of_its_own(clips, tmp_path, runs):
    path = tmp_path / "a.mp4"
    path.write_bytes((clips / "steady.mp4").read_bytes())
    videos = [row(str(n), n / 4, n / 4 + 0.25, path) for n in range(16)] + [row("late", 4.0, 5.0, path)]
    found = cut_clips(videos, recipe("ffmpeg"), Files(tmp_path))
    assert [bool(item.reason) for item in found] == [False] * 16 + [True]
    assert "its clip starts at 4.00 s" in found[-1].reason and len(runs) <= 5


def test_a_changed_file_fails_every_clip(clips, tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes((clips / "steady.mp4").read_bytes())
    videos = [row(str(n), n, n + 1, path) for n in range(3)]
    path.write_bytes((clips / "open.mp4").read_bytes())
    found = cut_clips(videos, recipe("ffmpeg"), Files(tmp_path))
    assert [item.id for item in found] == ["0", "1", "2"] and all("changed since" in item.reason for item in found)


@pytest.mark.slow
@pytest.mark.parametrize("decoder", ["ffmpeg", "sparse"])
def test_the_stages_give_each_span_its_own_frames(project, clips, decoder):
    """Stored by the frames stage, or decoded ahead of the model; in the order of the manifest."""
    put(clips, "steady.mp4", "open.mkv")
    spans = [(name, n / 2, n / 2 + 0.5) for name in ("steady.mp4", "open.mkv") for n in range(8)]
    lines = "".join(f"{name},x,train,{start},{end}\n" for name, start, end in spans)
    Path("list.csv").write_text("path,caption,split,start,end\n" + lines)
    params = project(shards=[0], frames={"count": 4, "decoder": decoder}, runtime={"workers": 2})
    do.download(params)
    do.frames(params, 0)
    made = Shard.read("data/folder/frames/shard-0")
    videos = {video.video_id: video for video in Manifest.read("data/folder/manifest").rows()}
    how = Recipe(params.frames.sampling, 32, "bicubic")
    alone = [decode(Path("videos") / video.path, how, video.start, video.end) for video in videos.values()]
    assert list(made.index.id) == list(videos) and np.array_equal(made.array, np.stack(alone))
    ahead = Decoded(Job(params, "features", {"cache": "video-all", "shard": 0}), 0, {})
    rounds = list(ahead.rounds(3, list(videos)))
    assert [id for ids, _ in rounds for id in ids] == list(videos)
    assert np.array_equal(np.concatenate([batch.x.numpy() for _, batch in rounds]), np.stack(alone))
