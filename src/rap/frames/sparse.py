"""The decoder `sparse`: decodes only what the chosen pictures need, with PyAV, in this process.

It skips groups of pictures (from one key frame to the next) without a chosen picture, everything after the last chosen
picture of a group, and pictures that no other picture refers to. Both decoders use the same filters. The result counts
only if it is checked: each chosen picture was decoded, undamaged, with its own time stamp, and libav logged no error.
Otherwise the ffmpeg program decodes the clip.
"""

import math
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np

from rap.frames.libav import capture_errors, open_container, video_stream
from rap.frames.pixels import FORMAT, filters
from rap.frames.probe import Packet, Span

# Decoders that output one picture per packet, with the pictures that each can skip without damage to others. A picture
# of H.264 or VP8 states that no other refers to it; one of HEVC states this for its own temporal layer only. VP9 and
# AV1 are left to the ffmpeg program, which finds more damage in them.
DECODERS: dict[str, Literal["NONREF", "DEFAULT"]] = {
    "h264": "NONREF",
    "vp8": "NONREF",
    "hevc": "DEFAULT",
}
MICROSECONDS = 1_000_000
LARGEST = 2**31 - 1  # of the numerator and the denominator of a rate in ffmpeg
# Display matrices of rotated pictures, and ffmpeg's filters for them.
ROTATIONS: dict[tuple, list[tuple[str, dict]]] = {
    (1, 0, 0, 1): [],
    (0, -1, 1, 0): [("transpose", {"dir": "cclock"})],
    (0, 1, -1, 0): [("transpose", {"dir": "clock"})],
    (-1, 0, 0, -1): [("hflip", {}), ("vflip", {})],
}


class Fallback(Exception):
    """Why the ffmpeg program must decode a clip. It also reports what is wrong with the video, if anything."""


def cut(path: Path, span: Span, square: tuple[int, str, str], first: float, step: float, count: int) -> np.ndarray:
    """The pictures on display in the middle of each of `count` steps of `step` seconds, counted from `first` seconds of
    the container's clock: [count, size, size, 3] uint8 RGB. Raises Fallback.

    `square`: size, interpolation and mode, for rap.frames.pixels.filters.
    """
    if not (span.indexed and span.packets):
        raise Fallback("its container does not state the time of every picture")
    found: dict[int, np.ndarray] = {}
    try:
        with capture_errors() as errors, open_container(path) as container:
            stream, graph = video_stream(container), None
            if stream.time_base is None:
                raise Fallback("its stream states no time base")
            chosen = choose(span.packets, stream.time_base, first, step, count)
            for time, picture in decoded(container, stream, span.packets, set(chosen)):
                graph = graph or Graph(picture, stream, square)
                found[time] = graph(picture)
    except av.error.FFmpegError as error:
        raise Fallback(str(error)) from None
    times = [span.packets[n].pts for n in chosen]
    if errors or not span.clean or not found.keys() >= set(times):
        raise Fallback("it is damaged, or decoding cannot start at a key frame")
    return np.stack([found[time] for time in times])


def choose(packets: tuple[Packet, ...], tick: Fraction, first: float, step: float, count: int) -> list[int]:
    """The packet on display in the middle of each step, as ffmpeg's filter `fps` chooses it: [count] indices."""
    shown = sorted((microseconds(packet.pts, tick), n) for n, packet in enumerate(packets))
    times = [time for time, _ in shown]
    if len(set(times)) < len(times):
        raise Fallback("two pictures have the same time")
    start, rate = int(float(f"{first:.6f}") * MICROSECONDS), Fraction(float(f"{1 / step:.12f}"))
    rate = rate.limit_denominator(LARGEST) if rate < 1 else 1 / (1 / rate).limit_denominator(LARGEST)
    instants = [start + (n + Fraction(1, 2)) * MICROSECONDS / rate for n in range(count)]
    return [shown[max(0, bisect_left(times, instant) - 1)][1] for instant in instants]


def microseconds(pts: int, tick: Fraction) -> int:
    """A presentation time in microseconds, rounded to the nearest."""
    return (2 * MICROSECONDS * pts * tick.numerator + tick.denominator) // (2 * tick.denominator)


def needed(packets: tuple[Packet, ...], chosen: set[int]) -> np.ndarray:
    """Which packets to decode, [packets] bool: from a key frame to the last chosen picture of its group.

    An open group, with a picture that is shown before its key frame, refers to the group before it: both are one group.
    """
    starts: list[int] = []
    earliest = math.inf
    for n, packet in reversed(list(enumerate(packets))):
        earliest = min(earliest, packet.pts)
        if n == 0 or (packet.key and packet.pts == earliest):
            starts.insert(0, n)
    wanted = np.zeros(len(packets), bool)
    for n in chosen:
        wanted[starts[bisect_right(starts, n) - 1] : n + 1] = True
    return wanted


def decoded(
    container: av.container.InputContainer, stream: av.VideoStream, packets: tuple[Packet, ...], chosen: set[int]
) -> Iterator[tuple[int, av.VideoFrame]]:
    """The chosen pictures with their presentation times, in display order within each run of decoded packets."""
    decoder = stream.codec_context
    decoder.thread_count = 1
    decoder.flags |= av.codec.context.Flags.unaligned  # crop where the stream says, as ffmpeg does; else it is rounded
    if decoder.name not in DECODERS:
        raise Fallback(f"{decoder.name} is left to ffmpeg")
    wanted, times = needed(packets, chosen), {packets[n].pts for n in chosen}
    last = max(chosen)
    source = (packet for packet in container.demux(stream) if packet.size)
    for n, packet in enumerate(source):
        if packet.pts != packets[n].pts:
            raise Fallback("the file changed during decoding")
        if wanted[n]:
            decoder.skip_frame = "DEFAULT" if n in chosen else DECODERS[decoder.name]
            yield from checked(decoder.decode(packet), times)
        if wanted[n] and (n == last or not wanted[n + 1]):
            yield from checked(decoder.decode(None), times)  # pictures that it delayed to put them in order
            decoder.flush_buffers()
        if n == last:
            return


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
