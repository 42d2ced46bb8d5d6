"""Frames from `decode` against all pictures as PyAV decodes them: the same instants and the same pixels."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import player
import pytest
import torch
from conftest import H264, film, recode
from open_clip import image_transform
from shipped import shipped
from torchvision.transforms.functional import center_crop

from rap.frames.decode import Recipe, decode
from rap.frames.probe import probe

# Colours within the range of RGB: where RGB clips, luma cannot be recovered.
PALE = "testsrc2=s=161x121:r=25:d=2,lutyuv=y=64+val/2:u=64+val/2:v=64+val/2"
B_FRAMES = (*H264, "-x264-params", "bframes=3:b-adapt=0:b-pyramid=normal:keyint=20:open-gop=1")
UNEVEN = ("-vf", "select='not(mod(n*n,7)-1)+not(mod(n,5))'", "-fps_mode", "vfr")

# In steps of 255: mean, 99th percentile, largest. Those of `shortest` with bicubic are in docs/frames.md.
BOUNDS = {
    ("native", "shortest", "bicubic"): (0.03, 1, 2),
    (224, "shortest", "bicubic"): (0.2, 1, 4),
    (224, "shortest", "bilinear"): (0.2, 1, 5),
    (224, "squash", "bicubic"): (0.25, 1, 12),
    (224, "squash", "bilinear"): (0.25, 1, 16),
}


def luma(rgb: np.ndarray, red: float, blue: float) -> np.ndarray:
    """The luma of RGB pictures; rounding to RGB moved it by less than half a step."""
    return 16 + 219 / 255 * (rgb @ np.array([red, 1 - red - blue, blue], np.float32))


def compare(path: Path) -> None:
    """With one frame per picture at full size, luma equals that of PyAV exactly.

    The neighbouring pictures differ from the frame somewhere, so it is this picture and no other.
    """
    span = probe(path)
    times, decoded = zip(*player.pictures(path), strict=True)
    turns = decoded[0].rotation // 90
    planes = np.stack([np.rot90(player.planes(frame)[0], turns) for frame in decoded])
    side, count = min(planes.shape[1:]), len(decoded) // 2 * 2
    planes = center_crop(torch.from_numpy(planes), side).numpy()
    ours = decode(path, Recipe(shipped("frames", count=count), side, "bicubic"))

    middle = player.middles(span.start, span.end, count)
    inwards = np.sign((span.start + span.end) / 2 - middle)  # at a change of picture, the one nearer to the middle
    for frame, n in zip(ours, player.at(times, middle + 2e-6 * inwards), strict=True):
        held = ((frame > 0) & (frame < 255)).all(axis=-1)
        assert held.mean() > 0.5
        got = luma(frame.astype(np.float32), *player.weights(decoded[n])).round()[held]
        assert np.array_equal(got, planes[n][held]), f"{path.name}: picture {n} at {times[n]:.3f} s"
        for other in {max(n - 1, 0), min(n + 1, len(planes) - 1)} - {n}:
            assert not np.array_equal(got, planes[other][held]), f"{path.name}: picture {other} is as good as {n}"


@pytest.mark.slow
def test_every_picture_of_real_clips_has_the_luma_that_pyav_decodes(real_clips):
    for path in real_clips:
        compare(path)


def test_the_bounds_cover_every_kind_of_resizing_that_a_tag_needs():
    tags = [open_clip.get_pretrained_cfg(*pair) for pair in open_clip.list_pretrained()]
    assert {(tag["resize_mode"], tag["interpolation"]) for tag in tags} == {kind[1:] for kind in BOUNDS}


@pytest.mark.slow
@pytest.mark.parametrize(("size", "mode", "interpolation"), BOUNDS)
def test_the_pixels_of_real_clips_are_within_the_bounds(real_clips, size, mode, interpolation):
    """Against PyAV, RGB in floating point, and open_clip's own transform with PIL."""
    for path in real_clips:
        span = probe(path)
        frames = player.shown(path, player.middles(span.start, span.end, 8))
        side = min(frames[0].width, frames[0].height) if size == "native" else size
        theirs = image_transform(side, False, (0.0,) * 3, (1.0,) * 3, resize_mode=mode, interpolation=interpolation)
        pil = np.stack([theirs(player.image(frame)).mul(255).round().movedim(0, -1).numpy() for frame in frames])
        off = abs(decode(path, Recipe(shipped("frames", count=8), side, interpolation, mode)) - pil)
        mean, most, largest = BOUNDS[size, mode, interpolation]
        assert off.mean() <= mean and np.percentile(off, 99) <= most and off.max() <= largest, path.name


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize("options", [H264, B_FRAMES, (*UNEVEN, *B_FRAMES)], ids=["simple", "b-frames", "uneven"])
def test_b_frames_uneven_rates_and_odd_sides(tmp_path, name, options):
    compare(film(tmp_path / name, PALE, *options))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_pictures_that_start_after_the_sound(tmp_path, name):
    sound = ("-f", "lavfi", "-i", "sine=d=3", "-itsoffset", "0.73")
    picture = film(tmp_path / "p.mp4", PALE, *B_FRAMES)
    path = recode(tmp_path / name, picture, "-map", "1:v", "-map", "0:a", "-c:v", "copy", before=sound)
    assert probe(path).start > 0.5
    compare(path)


def test_a_span_gives_the_same_pictures_wherever_decoding_starts(tmp_path, monkeypatch):
    path = film(tmp_path / "a.mp4", "testsrc2=s=64x64:r=12:d=3", *H264, "-g", "6")
    spans = [(0.1 * n, 0.1 * n + 0.8) for n in range(1, 20)]  # some instants fall on a change of picture
    recipe = Recipe(shipped("frames", count=8), 32, "bicubic")
    sought = [decode(path, recipe, *span) for span in spans]
    monkeypatch.setattr("rap.frames.decode.probe", lambda path: replace(probe(path), indexed=False))
    assert all((decode(path, recipe, *span) == frames).all() for span, frames in zip(spans, sought, strict=True))


def test_a_clip_that_an_edit_list_starts_between_key_frames(tmp_path):
    whole = film(tmp_path / "p.mp4", PALE, *B_FRAMES, "-x264-params", "bframes=3:b-adapt=0:keyint=20")
    path = recode(tmp_path / "a.mp4", whole, "-c", "copy", before=("-ss", "1.1"))
    assert len(player.pictures(path)) < 50
    compare(path)


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_rotated_videos(tmp_path, turn):
    whole = film(tmp_path / "p.mp4", PALE, *B_FRAMES)
    compare(recode(tmp_path / "a.mp4", whole, "-c", "copy", before=("-display_rotation", str(turn))))
