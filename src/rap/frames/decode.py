"""Decode clips to the frames of a backbone, with the ffmpeg program or the decoder `sparse`.

A clip is divided into T segments of equal duration. A frame is the picture that a player shows at the middle of its
segment, for any frame rate. The picture is scaled to the backbone's size on its shortest side and cropped at its
centre, as CLIP's own transform does with PIL. docs/frames.md states how close the two are.

Clips that follow each other in a file are decoded together: a recording is decoded once, not once per clip.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
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
from rap.frames.probe import MICROSECONDS, Span, probe, regular
from rap.frames.samplers import Segments, segments
from rap.params import Sampling
from rap.shards import Item

# Seconds by which each segment is shortened at both ends. An instant at which the picture changes thereby moves towards
# the middle of the clip, so that a clip and its reversal give the same pictures. ffmpeg counts in microseconds.
TICK = 2e-6
SOON = 10.0  # seconds between two clips that are decoded together, about one group of pictures


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


def consecutive(videos: Iterable[Video], most: int) -> Iterator[list[Video]]:
    """The videos in their order, in lists: each is one video, or up to `most` clips of one file to decode together."""
    found: list[Video] = []
    for video in videos:
        if found and not (len(found) < most and _follows(video, found[-1])):
            yield found
            found = []
        found.append(video)
    if found:
        yield found


def _follows(video: Video, earlier: Video) -> bool:
    """Whether a clip begins soon after another of the same file, or during it."""
    same = (video.path, video.digest) == (earlier.path, earlier.digest) and video.status == earlier.status == "ok"
    return same and earlier.start <= video.start <= earlier.end + SOON


def cut_clips(videos: Sequence[Video], recipe: Recipe, files: Files) -> list[Item]:
    """The frames of each video of a `consecutive` list, or the reason why there are none."""
    try:
        if videos[0].status != "ok":
            raise VideoError(videos[0].reason)
        path, span = files.span(videos[0])
        arrays = decode_all(path, recipe, [(video.start, video.end) for video in videos], span)
    except VideoError as error:
        if len(videos) == 1:
            return [Item(videos[0].video_id, reason=str(error))]
        half = len(videos) // 2  # to find the clip that fails, and why
        return cut_clips(videos[:half], recipe, files) + cut_clips(videos[half:], recipe, files)
    return [_padded(video, array, recipe.frames.count) for video, array in zip(videos, arrays, strict=True)]


def _padded(video: Video, array: np.ndarray, count: int) -> Item:
    padded = np.zeros((count, *array.shape[1:]), np.uint8)
    padded[: len(array)] = array
    return Item(video.video_id, padded, len(array))


def decode(
    path: Path, recipe: Recipe, start: float = math.nan, end: float = math.nan, span: Span | None = None
) -> np.ndarray:
    """The frames from `start` to `end` seconds (NaN: of the whole video), [frames, size, size, 3] uint8 RGB.

    `span`: the file's, if known. Raises VideoError with ffmpeg's error messages, also for the decoder `sparse`.
    """
    return decode_all(path, recipe, [(start, end)], span or probe(path))[0]


def decode_all(path: Path, recipe: Recipe, clips: Sequence[tuple[float, float]], span: Span) -> list[np.ndarray]:
    """`decode` for several clips of a file: the same frames, in one pass.

    Raises VideoError if one of the clips cannot be decoded.
    """
    segmented = [_segments(recipe.frames, span, *clip) for clip in clips]
    if recipe.frames.decoder == "sparse":
        with suppress(sparse.Fallback):
            return sparse.cut(path, span, (recipe.size, recipe.interpolation, recipe.mode), segmented)
    cut = partial(_cut, path, span.codec, recipe, segmented, timeout=60 + 10 * span.end)
    with suppress(VideoError):  # the first group may refer to earlier pictures
        if seek := _key(span, segmented):
            return cut(seek=seek)
    return cut(seek=0.0)


def _key(span: Span, clips: Sequence[Segments]) -> float:
    """Where decoding can start: seconds from the start of the file to the last key frame that is not shown after the
    first frame of any clip. 0: at the start, also if the file has no index.

    A key frame that is shown later would not do, although it is stored earlier: the pictures of an open group that are
    shown before its key frame refer to the group before it, and a decoder drops them.
    """
    if not (span.indexed and span.packets):
        return 0.0
    shown = min(span.packets[sparse.choose(span, clip)[0]].pts for clip in clips)
    keys = [packet.pts for packet in span.packets[1:] if packet.key and packet.pts <= shown]
    return (span.microseconds(max(keys)) + 1) / MICROSECONDS - span.zero if keys else 0.0


def _segments(frames: Sampling, span: Span, start: float, end: float) -> Segments:
    """The segments of a clip, by the container's clock. Raises VideoError if the file ends before it."""
    begin = span.start if math.isnan(start) else start
    stop = span.end if math.isnan(end) else min(end, span.end)
    if not begin < stop:
        raise VideoError(f"its clip starts at {begin:.2f} s, but its pictures end at {span.end:.2f} s")
    count = segments(frames, stop - begin)
    return Segments(span.zero + begin + count * TICK, (stop - begin) / count - 2 * TICK, count)


def _cut(
    path: Path, codec: str, recipe: Recipe, clips: Sequence[Segments], seek: float, timeout: float
) -> list[np.ndarray]:
    """The frames of each clip, from ffmpeg. Decoding starts at the key frame before `seek` seconds."""
    raw = tool.run(_command(path, codec, recipe, clips, seek), timeout)
    counts, bytes_each = [clip.count for clip in clips], recipe.size * recipe.size * 3
    if len(raw) != sum(counts) * bytes_each:
        raise VideoError(f"ffmpeg: returned {len(raw) // bytes_each} of {sum(counts)} frames")
    frames = np.frombuffer(raw, np.uint8).reshape(-1, recipe.size, recipe.size, 3)
    return np.split(frames, np.cumsum(counts)[:-1])


def _command(path: Path, codec: str, recipe: Recipe, clips: Sequence[Segments], seek: float) -> list[str]:
    """The pictures go to a chain of filters for each clip; the frames of one clip follow those of another."""
    whitelists = {"format_whitelist": tool.FORMATS, "protocol_whitelist": tool.PROTOCOLS}
    jump = {"noaccurate_seek": None, "ss": f"{seek:.6f}"} if seek else {}
    strict = tool.strict_decoder(codec)
    decoder = {"c:v": strict} if strict else {}
    # If the size of the pictures changes, a new chain of filters would count from 0 again; this one adapts.
    opened = ffmpeg.input(tool.url(path), **whitelists, **jump, **decoder, threads=1, reinit_filter=0)
    pictures = opened["V:0"].filter("settb", "AVTB")
    copies = pictures.filter_multi_output("split", len(clips))
    chains = [_chain(copies[n], recipe, clip) for n, clip in enumerate(clips)]
    frames = ffmpeg.concat(*chains) if len(chains) > 1 else chains[0]
    count = sum(clip.count for clip in clips)  # ffmpeg stops after the last frame, without reading on
    output = {"format": "rawvideo", "pix_fmt": FORMAT, "fps_mode": "passthrough", "frames:v": count, "threads": 1}
    switches = ("-nostdin", "-copyts", "-v", "error", "-xerror", "-filter_complex_threads", "1")
    clock = "1:1000000"  # by default it is the rate of the frames, too coarse after `concat`
    return frames.output("pipe:", enc_time_base=clock, **output).global_args(*switches).compile(cmd=tool.binary())


def _chain(pictures: ffmpeg.nodes.FilterableStream, recipe: Recipe, clip: Segments) -> ffmpeg.nodes.FilterableStream:
    # For segment n, fps with round=near takes the last picture before the middle of the segment.
    rate, start = f"{1 / clip.seconds:.12f}", f"{clip.first:.6f}"
    frames = pictures.filter("fps", rate, start_time=start, round="near").filter("trim", end_frame=clip.count)
    for name, options in filters(recipe.size, recipe.interpolation, recipe.mode):
        frames = frames.filter(name, **options)
    return frames
