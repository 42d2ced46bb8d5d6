"""The decoder `sparse`: in this process, by PyAV, and no more than the chosen pictures need.

Not decoded are groups of pictures (from one key frame to the next) of which none is chosen, what follows the last
chosen picture of a group, and, of the rest, the pictures that no other refers to. The filters are those of the other
road. This one vouches only for what it can check: that every chosen picture came out whole, by its time, and that the
libraries had no complaint.
"""

import math
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from rap.frames.libav import listening, opened, video_stream
from rap.frames.pixels import FORMAT, filters
from rap.frames.probe import Packet, Span

# Decoders that give one picture for one packet, and which pictures each can leave out without harm to others. In H.264
# and VP8 a picture itself says that no other refers to it; in HEVC it says so of its own temporal layer alone.
DECODERS = {"h264": "NONREF", "vp8": "NONREF", "hevc": "DEFAULT", "vp9": "DEFAULT", "libdav1d": "DEFAULT"}
MICROSECONDS = 1_000_000
LARGEST = 2**31 - 1  # numerator and denominator of a rate in ffmpeg
TURNS = {  # marks that say how to turn a picture, as matrices in 1/65536, and the filters that ffmpeg takes for them
    (1, 0, 0, 1): [],
    (0, -1, 1, 0): [("transpose", {"dir": "cclock"})],
    (0, 1, -1, 0): [("transpose", {"dir": "clock"})],
    (-1, 0, 0, -1): [("hflip", {}), ("vflip", {})],
}


class Unsure(Exception):
    """Why these pictures cannot be vouched for: another decoder is to be asked, which also finds the words."""


def cut(path: Path, span: Span, size: int, interpolation: str, first: float, step: float, count: int) -> np.ndarray:
    """The pictures on display in the middle of each of `count` steps of `step` seconds, from `first` seconds on by the
    container's clock: [count, size, size, 3] uint8 RGB. Raises Unsure.
    """
    if not span.indexed or any(packet.pts is None for packet in span.packets):
        raise Unsure("its container does not say when every picture is shown")
    found: dict[int, np.ndarray] = {}
    try:
        with listening() as said, opened(path) as container:
            stream, graph = video_stream(container), None
            chosen = choose(span.packets, stream.time_base, first, step, count)
            for picture in decoded(container, stream, span.packets, set(chosen)):
                graph = graph or Graph(picture, stream, size, interpolation)
                found[picture.pts] = graph(picture)
    except av.error.FFmpegError as error:
        raise Unsure(str(error)) from None
    times = [span.packets[n].pts for n in chosen]
    if said or not span.quiet or not found.keys() >= set(times):
        raise Unsure("it is damaged, or decoding cannot start where it says")
    return np.stack([found[time] for time in times])


def choose(packets: tuple[Packet, ...], tick: Fraction, first: float, step: float, count: int) -> list[int]:
    """Which packet has the picture for each instant: the last that is shown before it, as ffmpeg's `fps` reckons it."""
    shown = sorted((microseconds(packet.pts, tick), n) for n, packet in enumerate(packets))
    times = [time for time, _ in shown]
    if len(set(times)) < len(times):
        raise Unsure("two pictures are shown at once")
    start, rate = int(float(f"{first:.6f}") * MICROSECONDS), Fraction(float(f"{1 / step:.12f}"))
    rate = rate.limit_denominator(LARGEST) if rate < 1 else 1 / (1 / rate).limit_denominator(LARGEST)
    instants = [start + (n + Fraction(1, 2)) * MICROSECONDS / rate for n in range(count)]
    return [shown[max(0, bisect_left(times, instant) - 1)][1] for instant in instants]


def microseconds(pts: int, tick: Fraction) -> int:
    """Rounded to the nearest."""
    return (2 * MICROSECONDS * pts * tick.numerator + tick.denominator) // (2 * tick.denominator)


def needed(packets: tuple[Packet, ...], chosen: set[int]) -> np.ndarray:
    """Which packets to decode, [packets] bool: from a key frame to the last chosen picture of its group.

    Groups of which a picture is shown before the key frame (open ones) refer to the group before, and count with it.
    """
    starts, earliest = [], math.inf
    for n, packet in reversed(list(enumerate(packets))):
        earliest = min(earliest, packet.pts)
        if n == 0 or (packet.key and packet.pts == earliest):
            starts.insert(0, n)
    wanted = np.zeros(len(packets), bool)
    for n in chosen:
        wanted[starts[bisect_right(starts, n) - 1] : n + 1] = True
    return wanted


def decoded(container, stream, packets: tuple[Packet, ...], chosen: set[int]) -> Iterator[av.VideoFrame]:
    """The chosen pictures, in the order in which they are shown within a run of packets."""
    decoder = stream.codec_context
    decoder.thread_count = 1
    if decoder.name not in DECODERS:
        raise Unsure(f"{decoder.name} may hold two pictures in one packet")
    wanted, times = needed(packets, chosen), {packets[n].pts for n in chosen}
    last = max(chosen)
    source = (packet for packet in container.demux(stream) if packet.size)
    for n, packet in enumerate(source):
        if packet.pts != packets[n].pts:
            raise Unsure("the file changed while it was read")
        if wanted[n]:
            decoder.skip_frame = "DEFAULT" if n in chosen else DECODERS[decoder.name]
            yield from checked(decoder.decode(packet), times)
        if wanted[n] and (n == last or not wanted[n + 1]):
            yield from checked(decoder.decode(None), times)  # those that it holds back to put them in order
            decoder.flush_buffers()
        if n == last:
            return


def checked(frames: list[av.VideoFrame], times: set[int]) -> Iterator[av.VideoFrame]:
    for frame in frames:
        if frame.is_corrupt:
            raise Unsure("a picture is damaged")
        if frame.pts in times:
            yield frame


class Graph:
    """The filters from pictures of one shape to the backbone's."""

    def __init__(self, picture: av.VideoFrame, stream: av.VideoStream, size: int, interpolation: str):
        self.shape = _shape(picture)
        self.graph = av.filter.Graph()
        self.graph.threads = 1
        turn, width, height, format, space, range = self.shape
        if turn not in TURNS:
            raise Unsure("it is turned by a mark of an uncommon kind")
        aspect = stream.sample_aspect_ratio or Fraction(1)
        source = {
            "video_size": f"{width}x{height}",
            "pix_fmt": format,
            "time_base": str(stream.time_base),
            "pixel_aspect": f"{aspect.numerator}/{aspect.denominator}",
            "colorspace": space,
            "range": range,
        }
        steps = [("buffer", source), *TURNS[turn], *filters(size, interpolation), ("format", {"pix_fmts": FORMAT})]
        nodes = [self.graph.add(name, **{key: str(value) for key, value in options.items()}) for name, options in steps]
        self.graph.link_nodes(*nodes, self.graph.add("buffersink")).configure()

    def __call__(self, picture: av.VideoFrame) -> np.ndarray:
        """[size, size, 3] uint8."""
        if _shape(picture) != self.shape:
            raise Unsure("its pictures change their shape")
        self.graph.push(picture)
        return self.graph.pull().to_ndarray()


def _shape(picture: av.VideoFrame) -> tuple:
    mark = picture.side_data.get("DISPLAYMATRIX")
    turn = struct.unpack("=9i", bytes(mark)) if mark else (1 << 16, 0, 0, 0, 1 << 16)
    turn = tuple(Fraction(turn[n], 1 << 16) for n in (0, 1, 3, 4))
    space, range = picture.colorspace, picture.color_range
    return turn, picture.width, picture.height, picture.format.name, int(space), int(range)
