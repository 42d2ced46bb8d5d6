"""The decoder `sparse` against `ffmpeg`, which decodes every picture: equal frames, and no failure goes unnoticed."""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import do
import numpy as np
import pytest
from conftest import H264, film, put, recode
from shipped import shipped

from rap.frames import libav, sparse
from rap.frames.decode import Recipe, decode
from rap.frames.ffmpeg import VideoError
from rap.frames.probe import Packet, Span, probe
from rap.frames.samplers import Segments
from rap.frames.stage import row_key
from rap.shards import Shard

MOVING = "testsrc2=s=162x121:r=25:d=4"
PYRAMID = "bframes=3:b-adapt=0:b-pyramid=normal"
QUICK = ("-deadline", "realtime", "-cpu-used", "8")
HIDDEN = ("-auto-alt-ref", "1", "-lag-in-frames", "16", "-g", "30")  # pictures that are decoded but never shown
KINDS = {  # codecs and groups of pictures that `sparse` decodes itself
    "long.mp4": ("-c:v", "libx264", "-x264-params", PYRAMID),
    "long.mkv": ("-c:v", "libx264", "-x264-params", PYRAMID),
    "short.mp4": ("-c:v", "libx264", "-x264-params", f"{PYRAMID}:keyint=12"),
    "strict.mkv": ("-c:v", "libx264", "-x264-params", "keyint=25:bframes=6:b-adapt=0:b-pyramid=strict"),
    "open.mp4": ("-c:v", "libx264", "-x264-params", f"{PYRAMID}:keyint=12:open-gop=1"),
    "refresh.mp4": ("-c:v", "libx264", "-x264-params", "intra-refresh=1:keyint=25:bframes=2"),
    "fields.mp4": ("-c:v", "libx264", "-flags", "+ildct+ilme", "-x264-params", "tff=1:keyint=25"),
    "colours.mp4": ("-c:v", "libx264", "-pix_fmt", "yuvj444p", "-colorspace", "bt709", "-g", "25"),
    "hevc.mp4": ("-c:v", "libx265", "-preset", "fast", "-x265-params", "log-level=error:keyint=12"),
    "hevc-layers.mp4": ("-c:v", "libx265", "-x265-params", "log-level=error:temporal-layers=3:open-gop=0:keyint=25"),
    "vp8.webm": ("-c:v", "libvpx", *QUICK, *HIDDEN),
}
LEFT = {  # those that it leaves to ffmpeg
    "vp9.webm": ("-c:v", "libvpx-vp9", "-cpu-used", "5", *HIDDEN),
    "av1.mp4": ("-c:v", "libaom-av1", "-cpu-used", "8", "-g", "30"),
    "packed.mp4": ("-c:v", "libxvid", "-bf", "2", "-b:v", "500k"),
    "mpeg4.mp4": ("-c:v", "mpeg4", "-bf", "2", "-b:v", "500k"),
    "no-index.ts": ("-c:v", "libx264"),
    "no-index.avi": ("-c:v", "libx264"),
    "never-whole.mp4": ("-c:v", "libx264", "-x264-params", "intra-refresh=1:keyint=25:bframes=0"),
}
SPANS = [(math.nan, math.nan), (1.3, 2.2), (2.02, 2.9), (2.6, math.nan)]
# The bounds in docs/frames.md, in steps of 255: mean, largest. With the locked versions the difference is 0.
MEAN, LARGEST = 0.01, 1


def recipe(decoder: str, count=8, size=64, interpolation="bicubic", **sampler) -> Recipe:
    return Recipe(shipped("frames", count=count, decoder=decoder, **sampler), size, interpolation)


@pytest.fixture
def no_fallback(monkeypatch):
    """A fallback to ffmpeg fails the test."""
    cut = sparse.cut

    def must(*arguments):
        try:
            return cut(*arguments)
        except sparse.Fallback as reason:
            pytest.fail(f"fallback: {reason}")

    monkeypatch.setattr(sparse, "cut", must)


def same(path: Path, start=math.nan, end=math.nan, **how) -> None:
    everything = decode(path, recipe("ffmpeg", **how), start, end).astype(float)
    off = abs(everything - decode(path, recipe("sparse", **how), start, end))
    assert off.mean() <= MEAN and off.max() <= LARGEST, f"{path.name}, {start} to {end}, {how}"


def same_everywhere(path: Path) -> None:
    for start, end in SPANS:
        for count in (1, 3, 8):
            same(path, start, end, count=count)
    same(path, count=100)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_codecs_and_groups_of_all_kinds(tmp_path, no_fallback, name):
    same_everywhere(film(tmp_path / name, MOVING, *KINDS[name]))


@pytest.mark.slow
def test_the_clips_of_all_tests(clips, no_fallback):
    for path in clips.iterdir():
        if path.suffix not in (".ts", ".webm"):
            for start, end in [(math.nan, math.nan), (0.1, 0.5)] if "one." not in path.name else [(math.nan, math.nan)]:
                for how in ({"count": 3}, {"count": 12}, {"sampler": "fps", "fps": 2.0}, {"interpolation": "bilinear"}):
                    same(path, start, end, **how)


@pytest.mark.slow
def test_real_clips(real_clips, no_fallback):
    for path in real_clips:
        for how in ({"count": 1}, {"count": 12, "size": 224}, {"count": 40, "sampler": "fps", "fps": 3.0}):
            same(path, **how)
        same(path, 1.1, 1.9, count=5)  # its middle is a change of picture in three of the clips


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_rotated_videos_and_non_square_pixels(tmp_path, no_fallback, turn):
    narrow = film(tmp_path / "n.mp4", "testsrc2=s=130x128:r=25:d=1,setsar=2", *H264)
    same(narrow)
    same(recode(tmp_path / "t.mp4", narrow, "-c", "copy", before=("-display_rotation", str(turn))))


@pytest.mark.slow
def test_clips_that_start_late_or_at_an_edit(tmp_path, no_fallback):
    whole = film(tmp_path / "w.mp4", MOVING, *KINDS["short.mp4"])
    sound = ("-f", "lavfi", "-i", "sine=d=5", "-itsoffset", "0.73")
    both = ("-map", "1:v", "-map", "0:a", "-c:v", "copy")
    same_everywhere(recode(tmp_path / "cut.mp4", whole, "-c", "copy", before=("-ss", "1.1")))
    for name in ("late.mp4", "late.mkv"):
        late = recode(tmp_path / name, whole, *both, before=sound)
        same_everywhere(late)
        same(late, 0.0, 1.5)  # the first instants are before the first picture


CROPS = ((0, 6, 0, 2), (6, 0, 2, 0), (6, 4, 2, 4), (32, 0, 32, 0))  # left, right, top, bottom


@pytest.mark.slow
@pytest.mark.parametrize(("name", "filter"), [("long.mp4", "h264_metadata"), ("hevc.mp4", "hevc_metadata")])
def test_a_crop_in_the_bit_stream_is_exact(tmp_path, no_fallback, name, filter):
    """libavcodec alone rounds a crop at the left."""
    whole = film(tmp_path / name, MOVING, *KINDS[name])
    for crop in CROPS:
        sides = ":".join(f"crop_{side}={n}" for side, n in zip(("left", "right", "top", "bottom"), crop, strict=True))
        same(recode(tmp_path / f"crop-{name}", whole, "-c", "copy", "-bsf:v", f"{filter}={sides}"))


@pytest.mark.slow
@pytest.mark.parametrize("name", LEFT)
def test_unsupported_videos_fall_back_to_ffmpeg(tmp_path, monkeypatch, name):
    path = film(tmp_path / name, MOVING, *LEFT[name])
    reasons = []
    cut = sparse.cut

    def noted(*arguments):
        try:
            return cut(*arguments)
        except sparse.Fallback as reason:
            reasons.append(reason)
            raise

    monkeypatch.setattr(sparse, "cut", noted)
    same(path)
    assert reasons


def test_only_what_the_chosen_pictures_need_is_decoded():
    """Groups I P b P | I P b P | I b P; the last is open: its b is displayed before its I."""
    times = [0, 2, 1, 3, 4, 6, 5, 7, 9, 8, 10]
    packets = tuple(Packet(time, place in (0, 4, 8)) for place, time in enumerate(times))
    span = Span(0, 1, True, 0, "h264", packets, Fraction(1, 25))

    def decoded(*chosen: int) -> list[int]:
        return sparse.needed(span, set(chosen))

    assert decoded(1) == [0, 1] and decoded(6) == [4, 5, 6] and decoded(0, 5) == [0, 4, 5]
    assert decoded(9) == [4, 5, 6, 7, 8, 9] == decoded(5, 9), "an open group needs the one before"
    assert decoded(10) == [4, 5, 6, 7, 8, 9, 10]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["long.mp4", "open.mp4", "hevc-layers.mp4", "vp8.webm"])
def test_a_seek_over_every_gap_changes_no_frame(tmp_path, monkeypatch, name):
    """Where the index does not lead to a key frame, ffmpeg decodes."""
    monkeypatch.setattr(sparse, "GAP", 0)
    same_everywhere(film(tmp_path / name, MOVING, *KINDS[name]))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_span_of_a_recording_is_read_from_its_key_frame(tmp_path, no_fallback, monkeypatch, name):
    path = film(tmp_path / name, "testsrc2=s=64x64:r=25:d=60", "-c:v", "libx264", "-preset", "ultrafast", "-g", "50")
    came = []
    pictures = sparse.pictures
    monkeypatch.setattr(sparse, "pictures", lambda *source: map(lambda one: came.append(one) or one, pictures(*source)))
    for start in (30.5, 51.0):
        same(path, start, start + 4)
    assert len(came) <= 2 * 150, "of 1,500 packets: those of three groups for each span"


def test_unreferenced_pictures_are_not_decoded(tmp_path, monkeypatch):
    path = film(tmp_path / "a.mp4", MOVING, "-c:v", "libx264", "-x264-params", "bframes=3:b-adapt=0:b-pyramid=none")
    came = []
    checked = sparse.checked
    monkeypatch.setattr(sparse, "checked", lambda frames, times: checked(came.extend(frames) or frames, times))
    decode(path, recipe("sparse", count=4))
    assert 25 <= len(came) <= 30, "of 100 pictures: every fourth, and the chosen ones"


def damaged(path: Path, source: Path, place: float) -> Path:
    data = bytearray(source.read_bytes())
    at = int(place * len(data))
    data[at : at + 20] = bytes(byte ^ 0x5A for byte in data[at : at + 20])
    path.write_bytes(data)
    return path


def outcome(path: Path, decoder: str) -> str | bytes:
    try:
        return decode(path, recipe(decoder)).tobytes()
    except VideoError as error:
        return str(error)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["short.mp4", "strict.mkv", "hevc.mp4"])
def test_damage_gives_ffmpegs_message_or_leaves_the_frames_intact(tmp_path, name):
    whole = film(tmp_path / name, MOVING, *KINDS[name])
    good, seen = outcome(whole, "ffmpeg"), set()
    for n in range(16):
        path = damaged(tmp_path / f"damaged-{name}", whole, 0.1 + 0.05 * n)
        ours, theirs = outcome(path, "sparse"), outcome(path, "ffmpeg")
        assert ours in (theirs, good)
        seen.add(type(ours))
    assert str in seen


def test_incomplete_videos_fail_with_either_decoder(tmp_path, clips):
    sound = film(tmp_path / "sound.mp4", "sine=d=1")
    (tmp_path / "empty.mp4").touch()
    short = tmp_path / "short.mp4"
    short.write_bytes((clips / "steady.mp4").read_bytes()[:-6000])  # its index is at the front
    for path in (sound, tmp_path / "empty.mp4", short, tmp_path / "absent.mp4"):
        assert isinstance(outcome(path, "sparse"), str) and outcome(path, "sparse") == outcome(path, "ffmpeg")


def test_the_key_of_a_row_depends_on_the_decoder_the_span_and_the_code():
    video, other = (SimpleNamespace(digest="d", start=math.nan, end=end) for end in (2.0, 3.0))
    keys = [row_key(recipe(decoder), video, "code") for decoder in ("ffmpeg", "sparse")]
    keys += [row_key(recipe("ffmpeg"), other, "code"), row_key(recipe("ffmpeg"), video, "other code")]
    assert len(set(keys)) == 4 and keys[0] == row_key(recipe("ffmpeg"), video, "code")


def test_the_stage_writes_the_same_shard_with_several_workers(project, clips):
    put(clips, "steady.mp4", "picture.mp4", "open.mp4", "sparse.webm")
    rows = "".join(f"{name},x,train\n" for name in ("steady.mp4", "picture.mp4", "open.mp4", "sparse.webm"))
    Path("list.csv").write_text("path,caption,split\n" + rows)
    made = {}
    for decoder, workers in (("ffmpeg", 2), ("sparse", 2), ("sparse", 1)):
        for file in Path(".").glob("data/folder/frames/*"):
            file.unlink()
        params = project(shards=[0], frames={"decoder": decoder}, runtime={"workers": workers})
        do.download(params)
        assert "4 made now, 0 failed" in do.frames(params, 0)
        made[decoder, workers] = np.array(Shard.read("data/folder/frames/shard-0").array)
    assert np.array_equal(made["sparse", 1], made["sparse", 2])
    assert abs(made["sparse", 2].astype(int) - made["ffmpeg", 2]).max() <= LARGEST


def test_each_thread_captures_its_own_errors_and_logging_is_off_afterwards():
    def captured(n: int) -> list[str]:
        with libav.capture_errors() as errors:
            for _ in range(50):
                av.logging.log(av.logging.ERROR, "rap", f"error {n}")
            return [text for *_, text in errors]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(captured, [1, 1, 2, 3])) == [[f"error {n}"] * 50 for n in (1, 1, 2, 3)]
    assert av.logging.get_level() is None


def test_an_error_while_probing_forces_a_fallback(clips):
    span = probe(clips / "steady.mp4")
    assert span.clean
    with pytest.raises(sparse.Fallback):
        sparse.cut(
            clips / "steady.mp4", replace(span, clean=False), (32, "bicubic", "shortest"), [Segments(0.0, 1.0, 4)]
        )
