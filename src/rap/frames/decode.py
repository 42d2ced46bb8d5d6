"""Decode a clip to the frames of a backbone, with the ffmpeg program or the decoder `sparse`.

A clip is divided into T segments of equal duration. A frame is the picture that a player shows at the middle of its
segment, for any frame rate. The picture is scaled to the backbone's size on its shortest side and cropped at its
centre, as CLIP's own transform does with PIL. docs/frames.md states how close the two are.
"""

import math
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import ffmpeg
import numpy as np

from rap.data.manifest import Video
from rap.errors import UserError
from rap.files import digest_file
from rap.frames import ffmpeg as tool
from rap.frames import sparse
from rap.frames.ffmpeg import VideoError
from rap.frames.pixels import FORMAT, KERNELS, MODES, filters
from rap.frames.probe import Span, probe, regular
from rap.frames.samplers import segments
from rap.params import Sampling
from rap.shards import Item

# Seconds by which each segment is shortened at both ends. An instant at which the picture changes thereby moves towards
# the middle of the clip, so that a clip and its reversal give the same pictures. ffmpeg counts in microseconds.
TICK = 2e-6


@dataclass(frozen=True)
class Recipe:
    """The settings that determine the pixels of a clip, apart from the video."""

    frames: Sampling
    size: int
    interpolation: str
    mode: str = "shortest"  # how the picture becomes a square: one of rap.frames.pixels.MODES


def prepare(frames: Sampling, preprocess: dict, where: str) -> Recipe:
    """The recipe for a backbone, from `preprocess` of its config. Raises UserError, naming `where`, if unsupported."""
    if preprocess["resize_mode"] not in MODES or preprocess["interpolation"] not in KERNELS:
        raise UserError(
            f"{where}: resize_mode {preprocess['resize_mode']} with interpolation {preprocess['interpolation']} is not "
            f"supported; choose a backbone that uses {' or '.join(MODES)} with {' or '.join(KERNELS)}"
        )
    return Recipe(frames, preprocess["size"], preprocess["interpolation"], preprocess["resize_mode"])


class Files:
    """The video files of a folder. A file is read once for all of its clips, unless its size or time changes."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._digest = lru_cache(64)(lambda path, mark: digest_file(path))
        self._span = lru_cache(4)(lambda path, mark: probe(path))  # a span lists every picture

    def span(self, video: Video) -> tuple[Path, Span]:
        """The file of a video and the times of its pictures. Raises VideoError, also if the file has changed."""
        path = self.folder / video.path
        regular(path)
        mark = (path.stat().st_size, path.stat().st_mtime_ns)
        if self._digest(path, mark) != video.digest:
            raise VideoError("changed since the manifest was made; run `rap download` again")
        return path, self._span(path, mark)


def cut_clip(video: Video, recipe: Recipe, files: Files) -> Item:
    """The frames of one video of the manifest, or the reason why there are none."""
    if video.status != "ok":
        return Item(video.video_id, reason=video.reason)
    try:
        path, span = files.span(video)
        array = decode(path, recipe, video.start, video.end, span)
    except VideoError as error:
        return Item(video.video_id, reason=str(error))
    padded = np.zeros((recipe.frames.count, *array.shape[1:]), np.uint8)
    padded[: len(array)] = array
    return Item(video.video_id, padded, len(array))


def decode(
    path: Path, recipe: Recipe, start: float = math.nan, end: float = math.nan, span: Span | None = None
) -> np.ndarray:
    """The frames from `start` to `end` seconds (NaN: of the whole video), [frames, size, size, 3] uint8 RGB.

    `span`: the file's, if known. Raises VideoError with ffmpeg's error messages, also for the decoder `sparse`.
    """
    span = span or probe(path)
    begin = span.start if math.isnan(start) else start
    stop = span.end if math.isnan(end) else min(end, span.end)
    if not begin < stop:
        raise VideoError(f"its clip starts at {begin:.2f} s, but its pictures end at {span.end:.2f} s")
    count = segments(recipe.frames, stop - begin)
    step, first = (stop - begin) / count - 2 * TICK, span.zero + begin + count * TICK
    if recipe.frames.decoder == "sparse":
        with suppress(sparse.Fallback):
            return sparse.cut(path, span, (recipe.size, recipe.interpolation, recipe.mode), first, step, count)
    cut = partial(_cut, path, span.codec, recipe, first, step, count, timeout=60 + 10 * span.end)
    if not (span.indexed and begin > span.start):
        return cut(seek=0.0)
    try:
        return cut(seek=begin)
    except VideoError:  # the group may refer to earlier pictures: decode from the start
        return cut(seek=0.0)


def _cut(
    path: Path, codec: str, recipe: Recipe, first: float, step: float, count: int, seek: float, timeout: float
) -> np.ndarray:
    """`count` frames, one at the middle of each `step` seconds from `first` on, by the container's clock, from ffmpeg.

    Decoding starts at the key frame before `seek` seconds.
    """
    raw = tool.run(_command(path, codec, recipe, seek, first, step, count), timeout)
    bytes_each = recipe.size * recipe.size * 3
    if len(raw) != count * bytes_each:
        raise VideoError(f"ffmpeg: returned {len(raw) // bytes_each} of {count} frames")
    return np.frombuffer(raw, np.uint8).reshape(count, recipe.size, recipe.size, 3)


def _command(path: Path, codec: str, recipe: Recipe, seek: float, first: float, step: float, count: int) -> list[str]:
    whitelists = {"format_whitelist": tool.FORMATS, "protocol_whitelist": tool.PROTOCOLS}
    jump = {"noaccurate_seek": None, "ss": f"{seek:.6f}"} if seek else {}
    strict = tool.strict_decoder(codec)
    decoder = {"c:v": strict} if strict else {}
    clip = ffmpeg.input(tool.url(path), **whitelists, **jump, **decoder, threads=1)["V:0"]
    # For step n, fps with round=near takes the last picture before the middle of the step.
    clip = clip.filter("settb", "AVTB").filter("fps", f"{1 / step:.12f}", start_time=f"{first:.6f}", round="near")
    for name, options in filters(recipe.size, recipe.interpolation, recipe.mode):
        clip = clip.filter(name, **options)
    output = {"format": "rawvideo", "pix_fmt": FORMAT, "fps_mode": "passthrough", "frames:v": count, "threads": 1}
    switches = ("-nostdin", "-copyts", "-v", "error", "-xerror", "-filter_complex_threads", "1")
    return clip.output("pipe:", **output).global_args(*switches).compile(cmd=tool.binary())
