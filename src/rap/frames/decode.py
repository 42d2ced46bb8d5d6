"""Decode a clip to the frames of a backbone, with the ffmpeg program or the decoder `sparse`.

A clip is divided into T segments of equal duration. A frame is the picture that a player shows at the middle of its
segment, whatever the frame rate. The picture is scaled to the backbone's size on its shortest side and cropped at its
centre, as CLIP's own transform does with PIL. docs/frames.md states how close the two are.
"""

import math
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import ffmpeg
import numpy as np

from rap.errors import UserError
from rap.files import digest_file
from rap.frames import ffmpeg as tool
from rap.frames import sparse
from rap.frames.ffmpeg import VideoError
from rap.frames.pixels import FORMAT, KERNELS, filters
from rap.frames.probe import probe, regular
from rap.frames.samplers import segments
from rap.params import Frames
from rap.shards import Item

# Seconds by which each segment is shortened at either end. An instant at which one picture gives way to the next is
# thereby drawn to the middle of the clip: a clip and its reversal give the same pictures. ffmpeg counts microseconds.
TICK = 2e-6


@dataclass(frozen=True)
class Recipe:
    """What determines the pixels of a clip, apart from the video."""

    frames: Frames
    size: int
    interpolation: str


def prepare(frames: Frames, preprocess: dict, where: str) -> Recipe:
    """The recipe for a backbone, from its config's `preprocess`. Raises UserError, naming `where`, if it has none."""
    if preprocess["resize_mode"] != "shortest" or preprocess["interpolation"] not in KERNELS:
        raise UserError(
            f"{where}: preprocessing by {preprocess['resize_mode']}, {preprocess['interpolation']} is not supported; "
            f"choose a backbone with shortest and one of {', '.join(KERNELS)}"
        )
    return Recipe(frames, preprocess["size"], preprocess["interpolation"])


def cut_clip(video: NamedTuple, recipe: Recipe, folder: Path) -> Item:
    """Decode the frames of one row of the manifest's videos."""
    if video.status != "ok":
        return Item(video.video_id, reason=video.reason)
    path = folder / video.path
    try:
        regular(path)
        if digest_file(path) != video.digest:
            raise VideoError("changed since the manifest was made; run `rap download` again")
        array = decode(path, recipe, video.start, video.end)
    except VideoError as error:
        return Item(video.video_id, reason=str(error))
    padded = np.zeros((recipe.frames.count, *array.shape[1:]), np.uint8)
    padded[: len(array)] = array
    return Item(video.video_id, padded, len(array))


def decode(path: Path, recipe: Recipe, start: float = math.nan, end: float = math.nan) -> np.ndarray:
    """The frames of the clip from `start` to `end` seconds (NaN: the video's own), [frames, size, size, 3] uint8 RGB.

    Raises VideoError with ffmpeg's last words, whichever decoder is asked first.
    """
    span = probe(path)
    begin = span.start if math.isnan(start) else start
    stop = span.end if math.isnan(end) else min(end, span.end)
    if not begin < stop:
        raise VideoError(f"its clip starts at {begin:.2f} s, but its pictures end at {span.end:.2f} s")
    count = segments(recipe.frames, stop - begin)
    step, first = (stop - begin) / count - 2 * TICK, span.zero + begin + count * TICK
    if recipe.frames.decoder == "sparse":
        with suppress(sparse.Unsure):
            return sparse.cut(path, span, recipe.size, recipe.interpolation, first, step, count)
    cut = partial(_cut, path, recipe, first, step, count, timeout=60 + 10 * span.end)
    if not (span.indexed and begin > span.start):
        return cut(seek=0.0)
    try:
        return cut(seek=begin)
    except VideoError:  # the pictures at a key frame may refer to ones before it: decode from the start
        return cut(seek=0.0)


def _cut(path: Path, recipe: Recipe, first: float, step: float, count: int, seek: float, timeout: float) -> np.ndarray:
    """`count` frames, each from the middle of `step` seconds, from `first` on by the container's clock, by ffmpeg.

    Decoding starts at the key frame before `seek` seconds: nothing is missed.
    """
    raw = tool.run(_command(path, recipe, seek, first, step, count), timeout)
    bytes_each = recipe.size * recipe.size * 3
    if len(raw) != count * bytes_each:
        raise VideoError(f"ffmpeg: gave {len(raw) // bytes_each} of {count} frames")
    return np.frombuffer(raw, np.uint8).reshape(count, recipe.size, recipe.size, 3)


def _command(path: Path, recipe: Recipe, seek: float, first: float, step: float, count: int) -> list[str]:
    whitelists = {"format_whitelist": tool.FORMATS, "protocol_whitelist": tool.PROTOCOLS}
    jump = {"noaccurate_seek": None, "ss": f"{seek:.6f}"} if seek else {}
    clip = ffmpeg.input(tool.url(path), **whitelists, **jump, threads=1)["V:0"]
    # fps with round=near gives, for step n, the last picture that comes before the step's middle.
    clip = clip.filter("settb", "AVTB").filter("fps", f"{1 / step:.12f}", start_time=f"{first:.6f}", round="near")
    for name, options in filters(recipe.size, recipe.interpolation):
        clip = clip.filter(name, **options)
    output = {"format": "rawvideo", "pix_fmt": FORMAT, "fps_mode": "passthrough", "frames:v": count, "threads": 1}
    strict = ("-nostdin", "-copyts", "-v", "error", "-xerror", "-filter_complex_threads", "1")
    return clip.output("pipe:", **output).global_args(*strict).compile(cmd=tool.binary())
