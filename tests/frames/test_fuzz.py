"""Damaged copies of files of each codec: every one ends as frames or as a failure in one line, with either decoder.

FUZZ=1000 pytest -s tests/frames/test_fuzz.py tries a thousand copies, and prints how they ended: docs/frames.md has the
figures. Frames that differ from those of the whole file, without an error, are counted, not refused: most codecs cannot
tell. `sparse` must never give them where `ffmpeg` finds the damage.
"""

import os
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import film
from shipped import shipped

from rap.frames.decode import Recipe, decode
from rap.frames.ffmpeg import VideoError

COPIES = int(os.environ.get("FUZZ", 60))
MOVING = "testsrc2=s=160x120:r=25:d=2,hue=H=t"
QUICK = ("-deadline", "realtime", "-cpu-used", "8", "-b:v", "400k", "-g", "25")
CODECS = {
    "h264.mp4": ("-c:v", "libx264", "-g", "25"),
    "hevc.mp4": ("-c:v", "libx265", "-x265-params", "log-level=none:keyint=25"),
    "vp8.webm": ("-c:v", "libvpx", *QUICK),
    "vp9.webm": ("-c:v", "libvpx-vp9", *QUICK),
    "av1.mp4": ("-c:v", "libaom-av1", "-cpu-used", "8", "-g", "25"),
    "mpeg4.avi": ("-c:v", "mpeg4", "-q:v", "5", "-g", "25"),
}
WAYS = {
    "bytes of the pictures": lambda data, dice: flip(data, dice, dice.uniform(0.1, 0.9), dice.choice([1, 4, 64, 1000])),
    "bytes anywhere": lambda data, dice: flip(data, dice, dice.random(), dice.choice([1, 16, 400])),
    "head": lambda data, dice: flip(data, dice, 0.0, dice.choice([4, 32, 200])),
    "cut": lambda data, dice: data[: dice.randrange(len(data))],
    "hole": lambda data, dice: hole(data, dice),
}


def flip(data: bytes, dice: random.Random, place: float, count: int) -> bytes:
    start = int(place * len(data))
    hurt = bytearray(data)
    for at in range(start, min(start + count, len(data))):
        hurt[at] ^= dice.randrange(1, 256)
    return bytes(hurt)


def hole(data: bytes, dice: random.Random) -> bytes:
    start = dice.randrange(len(data))
    return data[:start] + data[start + dice.randrange(1, 3000) :]


def end(path: Path, decoder: str, whole: np.ndarray) -> str:
    """`failed`, `the same frames` or `other frames`; anything else fails the test."""
    try:
        found = decode(path, Recipe(shipped("frames", count=8, decoder=decoder), 64, "bicubic"))
    except VideoError as error:
        assert str(error) and "\n" not in str(error)
        return "failed"
    assert found.shape == whole.shape and found.dtype == np.uint8
    return "the same frames" if np.array_equal(found, whole) else "other frames"


@pytest.mark.slow
@pytest.mark.parametrize("name", CODECS)
def test_a_damaged_file_ends_as_frames_or_as_one_line(tmp_path, name):
    source = film(tmp_path / name, MOVING, *CODECS[name])
    whole = decode(source, Recipe(shipped("frames", count=8), 64, "bicubic"))

    def attempt(number: int) -> tuple[str, str, str]:
        dice = random.Random(f"{name} {number}")
        way = list(WAYS)[number % len(WAYS)]
        copy = tmp_path / f"{number}-{name}"
        copy.write_bytes(WAYS[way](source.read_bytes(), dice))
        return way, *(end(copy, decoder, whole) for decoder in ("ffmpeg", "sparse"))

    with ThreadPoolExecutor(2) as pool:
        ends = Counter(pool.map(attempt, range(COPIES // len(CODECS))))
    print(f"\n{name}: damage, then how `ffmpeg` and `sparse` ended")
    for (way, *how), count in sorted(ends.items()):
        print(f"  {count:5}  {way}: {', '.join(how)}")
    assert not [how for _, *how in ends if how == ["failed", "other frames"]]
