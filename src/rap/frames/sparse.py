"""The decoder `sparse`: decodes only what the chosen pictures need, with PyAV, in this process.

It skips groups of pictures (from one key frame to the next) without a chosen picture, everything after the last chosen
picture of a group, and pictures that no other picture refers to. It seeks over long gaps, so a span of a recording
costs the same at any position. Both decoders use the same filters. The result is accepted only if each chosen picture
was decoded, undamaged, with its own time stamp, and libav logged no error. Otherwise the ffmpeg program decodes the
clip.
"""

import math
import struct
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path
from typing import Literal

import av
import numpy as np

from rap.frames.libav import capture_errors, open_container, video_stream
from rap.frames.pixels import FORMAT, filters
from rap.frames.probe import MICROSECONDS, Span
from rap.frames.samplers import Segments

# Decoders that output one picture per packet, with the pictures that each can skip without damage to others. A picture
# of H.264 or VP8 states that no other refers to it; one of HEVC states this for its own temporal layer only. VP9 and
# AV1 are left to the ffmpeg program, which finds more damage in them.
DECODERS: dict[str, Literal["NONREF", "DEFAULT"]] = {
    "h264": "NONREF",
    "vp8": "NONREF",
    "hevc": "DEFAULT",
}
GAP = 250  # packets in between, from which on a seek is faster than reading
LARGEST = 2**31 - 1  # of the numerator and the denominator of a rate in ffmpeg
# Display matrices of rotated pictures, and ffmpeg's filters for them.
ROTATIONS: dict[tuple, list[tuple[str, dict]]] = {
    (1, 0, 0, 1): [],
    (0, -1, 1, 0): [("transpose", {"dir": "cclock"})],
    (0, 1, -1, 0): [("transpose", {"dir": "clock"})],
    (-1, 0, 0, -1): [("hflip", {}), ("vflip", {})],
}


class Fallback(Exception):
    """Why the ffmpeg program must decode a clip. ffmpeg also reports the error of the video, if any."""


def cut(path: Path, span: Span, square: tuple[int, str, str], clips: Sequence[Segments]) -> list[np.ndarray]:
    """For each clip, the pictures on display in the middle of its segments: [count, size, size, 3] uint8 RGB.

    `square`: size, interpolation and mode, for rap.frames.pixels.filters. Raises Fallback.
    """
    if not (span.indexed and span.packets):
        raise Fallback("its container does not state the time of every picture")
    if span.ambiguous:
        raise Fallback("two pictures have the same time")
    found: dict[int, np.ndarray] = {}
    try:
        with capture_errors() as errors, open_container(path) as container:
            stream, graph = video_stream(container), None
            chosen = [choose(span, clip) for clip in clips]
            for time, picture in decoded(container, stream, span, set(chain(*chosen))):
                graph = graph or Graph(picture, stream, square)
                found[time] = graph(picture)
    except av.error.FFmpegError as error:
        raise Fallback(str(error)) from None
    times = [[span.packets[n].pts for n in numbers] for numbers in chosen]
    if errors or not span.clean or not found.keys() >= set(chain(*times)):
        raise Fallback("it is damaged, or decoding cannot start at a key frame")
    return [np.stack([found[time] for time in shown]) for shown in times]


def choose(span: Span, clip: Segments) -> list[int]:
    """The packet on display in the middle of each segment, as ffmpeg's filter `fps` chooses it: [count] numbers."""
    times, numbers = span.shown
    start, rate = int(float(f"{clip.first:.6f}") * MICROSECONDS), Fraction(float(f"{1 / clip.seconds:.12f}"))
    rate = rate.limit_denominator(LARGEST) if rate < 1 else 1 / (1 / rate).limit_denominator(LARGEST)
    instants = [start + (n + Fraction(1, 2)) * MICROSECONDS / rate for n in range(clip.count)]
    return [numbers[max(0, bisect_left(times, instant) - 1)] for instant in instants]


def needed(span: Span, chosen: set[int]) -> list[int]:
    """The packets to decode, in their order: of each group from its start to its last chosen picture."""
    return sorted(set().union(*(range(span.group(n), n + 1) for n in chosen)))


def read(
    container: av.container.InputContainer, stream: av.VideoStream, span: Span, wanted: list[int]
) -> Iterator[tuple[int, av.Packet]]:
    """The packets with the numbers `wanted`, in their order. Raises Fallback if they do not match the file's span."""
    source, at = pictures(container, stream), 0
    for n in wanted:
        if n - at > GAP:
            container.seek(span.packets[n].pts, stream=stream)
            source = pictures(container, stream)
            first = next(source, None)
            found = span.number(first.pts) if first else None
            if first is None or found is None or found > n:
                raise Fallback("its index does not lead to the key frame")
            source, at = chain([first], source), found
        for packet in source:
            if packet.pts != span.packets[at].pts:
                raise Fallback("the file changed during decoding")
            at += 1
            if at > n:
                yield n, packet
                break


def pictures(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.Packet]:
    return (packet for packet in container.demux(stream) if packet.size)


def decoded(
    container: av.container.InputContainer, stream: av.VideoStream, span: Span, chosen: set[int]
) -> Iterator[tuple[int, av.VideoFrame]]:
    """The chosen pictures with their presentation times, in display order within each run of decoded packets."""
    decoder = stream.codec_context
    decoder.thread_count = 1
    decoder.flags |= av.codec.context.Flags.unaligned  # exact crop, as in ffmpeg; otherwise it is rounded
    if decoder.name not in DECODERS:
        raise Fallback(f"{decoder.name} is left to ffmpeg")
    wanted, times = needed(span, chosen), {span.packets[n].pts for n in chosen}
    ends = {n for n, later in pairwise([*wanted, math.inf]) if later != n + 1}
    for n, packet in read(container, stream, span, wanted):
        decoder.skip_frame = "DEFAULT" if n in chosen else DECODERS[decoder.name]
        yield from checked(decoder.decode(packet), times)
        if n in ends:
            yield from checked(decoder.decode(None), times)  # pictures that were delayed for reordering
            decoder.flush_buffers()


def checked(frames: list[av.VideoFrame], times: set[int]) -> Iterator[tuple[int, av.VideoFrame]]:
    for frame in frames:
        if frame.is_corrupt:
            raise Fallback("a picture is damaged")
        if frame.pts is not None and frame.pts in times:
            yield frame.pts, frame


class Graph:
    """The filter graph from decoded pictures of one format to the backbone's input."""

    def __init__(self, picture: av.VideoFrame, stream: av.VideoStream, square: tuple[int, str, str]):
        self.format = _format(picture)
        self.graph = av.filter.Graph()
        self.graph.threads = 1
        rotation, width, height, pixels, space, range = self.format
        if rotation not in ROTATIONS:
            raise Fallback("its display matrix is not a rotation by a right angle")
        aspect = stream.sample_aspect_ratio or Fraction(1)
        source = {
            "video_size": f"{width}x{height}",
            "pix_fmt": pixels,
            "time_base": str(stream.time_base),
            "pixel_aspect": f"{aspect.numerator}/{aspect.denominator}",
            "colorspace": space,
            "range": range,
        }
        steps = [
            ("buffer", source),
            *ROTATIONS[rotation],
            *filters(*square),
            ("format", {"pix_fmts": FORMAT}),
        ]
        nodes = [self.graph.add(name, **{key: str(value) for key, value in options.items()}) for name, options in steps]
        self.graph.link_nodes(*nodes, self.graph.add("buffersink")).configure()

    def __call__(self, picture: av.VideoFrame) -> np.ndarray:
        """[size, size, 3] uint8."""
        if _format(picture) != self.format:
            raise Fallback("its pictures change their format")
        self.graph.push(picture)
        return self.graph.pull().to_ndarray()


def _format(picture: av.VideoFrame) -> tuple:
    """Rotation, width, height, pixel format, colour space and range."""
    stored = picture.side_data.get("DISPLAYMATRIX")
    # PyAV's stubs type side data as object; it is a buffer.
    matrix = struct.unpack("=9i", bytes(stored)) if stored else (1 << 16, 0, 0, 0, 1 << 16)  # type: ignore[call-overload]
    rotation = tuple(Fraction(matrix[n], 1 << 16) for n in (0, 1, 3, 4))  # stored in 1/65536
    space, range = picture.colorspace, picture.color_range
    return rotation, picture.width, picture.height, picture.format.name, int(space), int(range)
