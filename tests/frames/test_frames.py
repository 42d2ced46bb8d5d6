import math
import os
from pathlib import Path

import do
import numpy as np
import pytest
from conftest import COUNTER, H264, PICTURE, film, number, put, recode
from open_clip import image_transform
from player import MODES, by_pil, image, middles, shown
from sealed import damage
from shipped import shipped

from rap.errors import UserError
from rap.frames import decode as decoding
from rap.frames import ffmpeg, pixels
from rap.frames.decode import Recipe, decode
from rap.frames.ffmpeg import VideoError
from rap.frames.probe import probe
from rap.shards import Shard


def recipe(count=8, size=32, interpolation="bicubic", **sampler) -> Recipe:
    return Recipe(shipped("frames", count=count, **sampler), size, interpolation)


def pictures(start: float, end: float, count: int) -> list[int]:
    """The picture at the middle of each segment; at a change of picture, the one nearer to the middle of the clip."""
    inwards = np.sign((start + end) / 2 - middles(start, end, count))
    return np.floor(25 * middles(start, end, count) + 1e-3 * inwards).astype(int).tolist()


@pytest.mark.parametrize("name", ["steady.mp4", "steady.webm", "open.mp4", "open.mkv", "stream.ts"])
@pytest.mark.parametrize(
    ("start", "end"), [(math.nan, math.nan), (0.5, 3.1), (2.32, math.nan), (math.nan, 1.0), (3, 9)]
)
def test_a_frame_is_the_picture_on_display_in_the_middle_of_its_segment(clips, name, start, end):
    begin = 0 if math.isnan(start) else start
    stop = 4 if math.isnan(end) else min(end, 4)
    got = number(decode(clips / name, recipe(), start, end))
    assert got.tolist() == pictures(begin, stop, 8)


OPEN = {  # groups of twelve pictures, some of which are shown before their key frame
    "hevc.mp4": (
        "-c:v",
        "libx265",
        "-x265-params",
        "keyint=12:open-gop=1:bframes=4:log-level=none",
        "-pix_fmt",
        "yuv420p",
    ),
    "h264.mp4": (
        "-c:v",
        "libx264",
        "-x264-params",
        "open-gop=1:keyint=12:bframes=3",
        "-crf",
        "10",
        "-pix_fmt",
        "yuv420p",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPEN)
@pytest.mark.parametrize("decoder", ["ffmpeg", "sparse"])
def test_a_clip_that_begins_before_the_key_frame_of_an_open_group_has_its_first_pictures(tmp_path, name, decoder):
    path = film(tmp_path / name, COUNTER, *OPEN[name])
    for n in range(24, 40):
        start, end = n / 25 + 0.004, n / 25 + 0.684
        got = number(decode(path, recipe(4, decoder=decoder), start, end))
        assert abs(got - np.array(pictures(start, end, 4))).max() == 0, (n, got)


def test_what_follows_the_last_frame_is_not_decoded(clips, tmp_path):
    """Damage there fails nobody."""
    path = tmp_path / "a.mp4"
    path.write_bytes((clips / "steady.mp4").read_bytes())
    whole, span = decode(path, recipe(1), 0.0, 3.2), probe(path)
    damage(path, int(0.9 * path.stat().st_size), path.stat().st_size // 20)  # ffmpeg's decoder runs some pictures ahead
    with pytest.raises(VideoError):
        decode(path, recipe(12), math.nan, math.nan, span)
    assert np.array_equal(decode(path, recipe(1), 0.0, 3.2, span), whole)


@pytest.mark.parametrize("decoder", ["ffmpeg", "sparse"])
def test_pictures_that_change_their_size_are_counted_on(tmp_path, decoder):
    small = film(tmp_path / "small.h264", COUNTER, *H264, "-bf", "0", "-t", "2")
    large = film(tmp_path / "large.h264", COUNTER.replace("96x64", "192x128"), *H264, "-bf", "0", "-t", "2")
    both = tmp_path / "both.h264"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    clock = ("-c", "copy", "-bsf:v", "setts=ts=N/25/TB")
    path = recode(tmp_path / "both.mkv", both, *clock, before=("-f", "h264", "-r", "25"))
    got = number(decode(path, recipe(4, decoder=decoder)))
    assert got.tolist() == [12, 37, 12, 37]


@pytest.mark.parametrize("count", [2, 4, 8, 10, 20, 50, 100, 200])
def test_a_clip_and_its_reversal_give_the_same_pictures(clips, count):
    """Also if an instant falls on a change of picture, as with 2, 10 or 50 frames of 100 pictures."""
    got = number(decode(clips / "steady.mp4", recipe(count)))
    assert got.tolist() == pictures(0, 4, count) == [99 - n for n in got[::-1]]


@pytest.mark.parametrize("name", ["sparse.mp4", "sparse.webm"])
@pytest.mark.parametrize("start", [math.nan, 1.7, 2.5])
def test_variable_frame_rates_are_sampled_by_the_clock(clips, name, start):
    span = probe(clips / name)
    begin = 0 if math.isnan(start) else start
    picture = [math.floor(25 * t + 1e-6) for t in middles(begin, span.end, 12)]
    expected = [n if n < 50 else n // 10 * 10 for n in picture]
    assert number(decode(clips / name, recipe(12), start)).tolist() == expected


def test_the_fps_sampler_takes_one_frame_per_period_and_no_more_than_count(clips):
    assert number(decode(clips / "steady.mp4", recipe(sampler="fps", fps=1.0))).tolist() == [12, 37, 62, 87]
    many = decode(clips / "steady.mp4", recipe(sampler="fps", fps=10.0))
    assert np.array_equal(many, decode(clips / "steady.mp4", recipe()))
    assert len(decode(clips / "one.mp4", recipe(sampler="fps", fps=0.1))) == 1


@pytest.mark.parametrize("name", ["one.mp4", "one.webm"])
def test_a_single_picture_fills_all_frames(clips, name):
    got = decode(clips / name, recipe(3, 64))
    assert (got == got[:1]).all() and got.std() > 30


@pytest.mark.parametrize("interpolation", MODES)
@pytest.mark.parametrize(("name", "size"), [("picture.mp4", 224), ("picture.mp4", 64), ("portrait.mp4", 64)])
def test_pixels_match_clips_own_transform(clips, name, size, interpolation):
    """The mean absolute difference is below 0.25 of 255, without a bias, on a test pattern of sharp edges."""
    span = probe(clips / name)
    ours = decode(clips / name, recipe(4, size, interpolation)).astype(float)
    pil = np.stack([by_pil(f, size, interpolation) for f in shown(clips / name, middles(0, span.end, 4))])
    off = ours - pil
    assert abs(off).mean() < 0.25 and abs(off.mean()) < 0.05 and np.percentile(abs(off), 99) <= 3
    shifted = np.roll(pil, 1, axis=2)
    assert abs(ours - shifted).mean() > 2, "a crop that is off by one pixel would show"


@pytest.mark.parametrize("mode", pixels.MODES)
@pytest.mark.parametrize("interpolation", MODES)
@pytest.mark.parametrize("name", ["picture.mp4", "portrait.mp4"])
def test_every_resize_mode_matches_open_clips_transform(clips, name, interpolation, mode):
    span = probe(clips / name)
    ours = decode(clips / name, Recipe(shipped("frames", count=4), 64, interpolation, mode)).astype(float)
    theirs = image_transform(64, False, (0.0,) * 3, (1.0,) * 3, resize_mode=mode, interpolation=interpolation)
    pictures = [image(frame) for frame in shown(clips / name, middles(0, span.end, 4))]
    off = ours - np.stack([theirs(picture).mul(255).movedim(0, -1).numpy() for picture in pictures])
    assert abs(off).mean() < 0.25 and abs(off.mean()) < 0.08 and np.percentile(abs(off), 99) <= 3


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_rotation_is_applied(tmp_path, clips, turn):
    turned = recode(tmp_path / "t.mp4", clips / "picture.mp4", "-c", "copy", before=("-display_rotation", str(turn)))
    upright = decode(clips / "picture.mp4", recipe(2, 32)).astype(float)
    got = decode(turned, recipe(2, 32)).astype(float)
    # The clip has odd sides, so the two centre crops may lie half a pixel apart; a wrong rotation would differ by tens.
    assert abs(got - np.rot90(upright, turn // 90, axes=(1, 2))).mean() < 8
    assert abs(got - upright).mean() > 40


def test_non_square_pixels_are_displayed_as_in_a_player(tmp_path):
    square = film(tmp_path / "a.mp4", "testsrc2=s=256x128:r=5:d=1", *H264)
    narrow = film(tmp_path / "b.mp4", "testsrc2=s=256x128:r=5:d=1,scale=128:128,setsar=2", *H264)
    difference = abs(decode(square, recipe(2)).astype(float) - decode(narrow, recipe(2)).astype(float))
    assert difference.mean() < 6


def test_a_cover_picture_is_not_the_video(tmp_path, clips):
    cover = film(tmp_path / "c.png", "color=red:s=64x64", "-frames:v", "1")
    path = tmp_path / "covered.mp4"
    both = ("-i", str(clips / "steady.mp4"), "-map", "0", "-map", "1", "-c", "copy", "-disposition:v:0", "attached_pic")
    recode(path, cover, *both)
    assert number(decode(path, recipe(4))).tolist() == [12, 37, 62, 87]


def test_damage_is_reported_with_ffmpegs_message_and_the_same_message_each_time(tmp_path, clips):
    damaged = bytearray((clips / "picture.mp4").read_bytes())
    middle = damaged.index(b"mdat") + 20_000
    damaged[middle : middle + 2000] = bytes(byte ^ 0x5A for byte in damaged[middle : middle + 2000])
    path = tmp_path / "bad.mp4"
    path.write_bytes(damaged)
    words = []
    for _ in range(2):
        with pytest.raises(VideoError, match=r"^ffmpeg: dec:h264: ") as caught:
            decode(path, recipe())
        words.append(str(caught.value))
    assert words[0] == words[1] and "\n" not in words[0] and "0x" not in words[0]


def fill(clips: Path, extra: str = "") -> None:
    put(clips, "steady.mp4", "steady.webm", "picture.mp4", "one.mp4")
    rows = "steady.mp4,x,train,,\nsteady.webm,x,test,,\npicture.mp4,x,train,,\none.mp4,x,val,,\nsteady.mp4,x,test,1,2\n"
    Path("list.csv").write_text(f"path,caption,split,start,end\n{rows}{extra}")


def made(shard: int = 0) -> Shard:
    return Shard.read(f"data/folder/frames/shard-{shard}")


def test_the_stage_writes_its_shards_and_recomputes_only_changed_rows(project, clips):
    fill(clips)
    params = project(frames={"count": 5})
    do.download(params)
    assert "3 of 3 videos, 5 frames of 32 px each; 3 made now, 0 failed" in do.frames(params, 0)
    do.frames(params, 1)
    assert list(made(0).index.id) == ["steady.mp4", "picture.mp4", "steady.mp4@1-2"]
    assert made(1).array.shape == (2, 5, 32, 32, 3) and made(1).array.dtype == np.uint8
    assert number(made(0).array[2]).tolist() == [27, 32, 37, 42, 47]
    before = Path("data/folder/frames/shard-0.npy").read_bytes()
    assert "up to date" in do.frames(params, 0)
    film(Path("videos/picture.mp4"), PICTURE, "-vf", "negate", *H264)
    do.download(params)
    assert "1 made now" in do.frames(params, 0)
    after = Path("data/folder/frames/shard-0.npy").read_bytes()
    assert after != before
    for file in Path("data/folder/frames").iterdir():
        file.unlink()
    assert "3 made now" in do.frames(project(frames={"count": 5}, runtime={"workers": 1}), 0)
    assert Path("data/folder/frames/shard-0.npy").read_bytes() == after
    assert "3 made now" in do.frames(project(frames={"count": 5, "sampler": "fps", "fps": 2.0}), 0)
    assert list(made(0).index.length) == [5, 2, 2]
    assert not made(0).array[1, 2:].any()


def alter(file: Path) -> None:
    """Change a file so that neither its size nor its time tells."""
    was = file.stat()
    damage(file)
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))


def test_a_changed_folder_of_videos_is_refused_until_it_is_inspected_again(project, clips):
    fill(clips)
    do.download(project())
    put(clips, "portrait.mp4")
    with pytest.raises(UserError, match=r"made from another version of videos; run `rap download` first"):
        do.frames(project(), 0)
    do.download(project())
    assert "0 failed" in do.frames(project(), 0)


def test_videos_that_fail_keep_a_reason_and_too_many_stop_the_run_with_the_shard_written(project, clips, capsys):
    fill(clips, "steady.mp4,x,test,7,8\nabsent.mp4,x,test,,\n")
    params = project(dataset={"max_failed": 0.6})
    do.download(params)
    for name in ("picture.mp4", "one.mp4"):
        alter(Path("videos") / name)
    do.frames(params, 0)
    do.frames(params, 1)
    reasons = {row.id: row.reason for k in (0, 1) for row in made(k).index.itertuples()}
    assert reasons["steady.mp4"] == reasons["steady.webm"] == reasons["steady.mp4@1-2"] == ""
    assert "changed since the manifest was made" in reasons["picture.mp4"]
    assert "changed since the manifest was made" in reasons["one.mp4"]
    assert reasons["absent.mp4"] == "cannot be opened: No such file or directory"
    assert reasons["steady.mp4@7-8"] == "its clip starts at 7.00 s, but its pictures end at 4.00 s"
    assert "failed: picture.mp4: changed since" in capsys.readouterr().err
    # The first shard counts 2 failures of 7 videos: its own, and the failed download in the other shard.
    strict = project(dataset={"max_failed": 0.2})
    do.download(strict)
    with pytest.raises(UserError, match=r"2 of 7 videos failed.*the first here is picture\.mp4: "):
        do.frames(strict, 0)
    kept = Shard.open("data/folder/frames/shard-0")  # without a record: not finished
    assert list(kept.index.reason != "") == [False, True, False, True]
    with pytest.raises(UserError, match=r"shard-0\.json: not there"):
        made(0)
    alter(Path("videos/picture.mp4"))  # back to what it was
    strict = project(dataset={"max_failed": 0.3})
    do.download(strict)
    assert "2 made now, 1 failed" in do.frames(strict, 0)


def test_a_file_is_read_once_for_all_of_its_clips(project, clips, monkeypatch):
    fill(clips, "".join(f"steady.mp4,span {n},test,{n / 4},{n / 4 + 1}\n" for n in range(8)))
    params = project()
    do.download(params)
    read = []
    for name, work in (("digest_file", decoding.digest_file), ("probe", decoding.probe)):
        monkeypatch.setattr(
            decoding, name, lambda path, name=name, work=work: read.append((name, path.name)) or work(path)
        )
    params = project(runtime={"workers": 1})
    do.frames(params, 0)
    assert read.count(("digest_file", "steady.mp4")) == read.count(("probe", "steady.mp4")) == 1


def test_real_clips_run_through_both_stages_as_a_folder(project, real_clips):
    rows = [f"{path.name},what it shows,{('train', 'test')[i % 2]}\n" for i, path in enumerate(real_clips)]
    Path("list.csv").write_text("path,caption,split\n" + "".join(rows))
    params = project(dataset={"videos": str(real_clips[0].parent), "max_failed": 0.0})
    assert "0 failed" in do.download(params)
    for shard in params.shards:
        assert "0 failed" in do.frames(params, shard)
        assert all(array.std() > 10 for array in made(shard).array)


def test_a_missing_ffmpeg_or_backbone_is_a_user_error(project, clips, monkeypatch):
    fill(clips)
    do.download(project())
    try:
        for exe in ("/nowhere/ffmpeg", "/etc/hostname"):
            monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", exe)
            ffmpeg._program.cache_clear()
            with pytest.raises(UserError, match=f"ffmpeg: {exe} .* install the imageio-ffmpeg wheel"):
                do.frames(project(), 0)
    finally:
        ffmpeg._program.cache_clear()
    params = project()
    Path("data/backbones/demo-vit/backbone.json").unlink()
    with pytest.raises(UserError, match="run `rap backbone` first"):
        do.frames(params, 0)
