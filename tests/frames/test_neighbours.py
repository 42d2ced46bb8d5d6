"""Clips that follow each other in a file are decoded in one pass: the same frames as one by one, to the last bit."""

import math
from itertools import chain, pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import COUNTER, H264, film
from shipped import shipped

from rap.data.manifest import Video
from rap.files import digest_file
from rap.frames import ffmpeg, sparse
from rap.frames.decode import NEAR, TOGETHER, Files, Recipe, cut_clips, decode, decode_all, neighbours
from rap.frames.ffmpeg import VideoError
from rap.frames.probe import probe

FILES = ("steady.mp4", "steady.webm", "sparse.mp4", "sparse.webm", "open.mp4", "open.mkv", "stream.ts")
# Spans of files of four seconds: next to each other, apart, one inside another, equal, to the end and beyond it.
SPANS = {
    "adjacent": [(0.0, 0.9), (0.9, 1.8), (1.8, 2.7), (2.7, 3.6)],
    "apart": [(0.5, 0.8), (1.3, 2.1), (3.0, 3.3)],
    "overlapping": [(0.2, 3.5), (0.6, 1.0), (0.6, 1.0), (0.8, 2.4)],
    "to the end": [(1.1, 2.2), (2.2, math.nan), (3.1, 9.0)],
}


def recipe(decoder: str, **sampler) -> Recipe:
    return Recipe(shipped("frames", count=5, decoder=decoder, **sampler), 48, "bicubic")


def row(name: str, start: float, end: float, path: Path, status: str = "ok", reason: str = "") -> Video:
    return Video(name, path.name, "train", digest_file(path), start, end, 4.0, "", status, reason)


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


@pytest.mark.parametrize("decoder", ["ffmpeg", "sparse"])
def test_neighbours_are_decoded_in_one_pass(clips, monkeypatch, decoder):
    runs, packets = [], []
    run, pictures = ffmpeg.run, sparse.pictures
    monkeypatch.setattr(ffmpeg, "run", lambda *arguments: runs.append(1) or run(*arguments))
    monkeypatch.setattr(
        sparse, "pictures", lambda *source: map(lambda one: packets.append(1) or one, pictures(*source))
    )
    decode_all(clips / "steady.mp4", recipe(decoder), SPANS["adjacent"], probe(clips / "steady.mp4"))
    assert (len(runs), packets) == (1, []) if decoder == "ffmpeg" else (len(runs), len(packets) <= 100) == (0, True)


def test_neighbours_are_clips_of_one_file_in_their_order_with_short_gaps():
    def video(path: str, start: float = math.nan, end: float = math.nan, status: str = "ok") -> SimpleNamespace:
        return SimpleNamespace(path=path, digest=path, start=start, end=end, status=status)

    spans = [video("a", 2.0 * n, 2.0 * n + 2) for n in range(TOGETHER + 2)]
    later = [video("a", 200, 201), video("a", 201 + NEAR, 220), video("a", 203, 204), video("b", 205, 206)]
    others = [video("c"), video("c"), video("", status="failed"), video("", status="failed")]
    found = list(neighbours([*spans, *later, *others]))
    assert list(chain(*found)) == [*spans, *later, *others]
    assert [len(one) for one in found] == [TOGETHER, 2, 2, 1, 1, 1, 1, 1, 1]
    assert all(one.path == other.path for clips in found for one, other in pairwise(clips))


@pytest.mark.parametrize("decoder", ["ffmpeg", "sparse"])
def test_a_clip_that_fails_leaves_its_neighbours_their_frames(tmp_path, decoder):
    path = film(tmp_path / "a.mp4", COUNTER, *H264, "-g", "10")
    data = bytearray(path.read_bytes())
    place = len(data) // 2
    data[place : place + 60] = bytes(60)
    path.write_bytes(data)
    videos = [row(str(n), n / 2, n / 2 + 0.5, path) for n in range(8)] + [row("late", 4.0, 5.0, path)]
    found = {item.id: item for item in cut_clips(videos, recipe(decoder), Files(tmp_path))}
    assert list(found) == [video.video_id for video in videos] and "its clip starts at 4.00 s" in found["late"].reason
    for video in videos[:-1]:
        try:
            frames = decode(path, recipe(decoder), video.start, video.end, probe(path))
            assert np.array_equal(found[video.video_id].array, frames)
        except VideoError as error:
            assert found[video.video_id].reason == str(error)
    assert {bool(found[video.video_id].reason) for video in videos[:-1]} == {True, False}


def test_a_changed_file_fails_every_clip(clips, tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes((clips / "steady.mp4").read_bytes())
    videos = [row(str(n), n, n + 1, path) for n in range(3)]
    path.write_bytes((clips / "open.mp4").read_bytes())
    found = cut_clips(videos, recipe("ffmpeg"), Files(tmp_path))
    assert [item.id for item in found] == ["0", "1", "2"] and all("changed since" in item.reason for item in found)
