"""The display times of a video's pictures, read from its container packet by packet, without decoding."""

import math
import os
import stat
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import av

from rap.frames.ffmpeg import VideoError
from rap.frames.libav import capture_errors, open_container, video_stream

INDEXED = ("mov", "matroska")  # containers with an index: seeks are exact and the stated duration is reliable
SHORT = 0.9  # a file that ends before this share of its stated duration is cut short
MICROSECONDS = 1_000_000
GUESSED_RATE = 25  # frames per second of a stream that states neither a rate nor durations


class Packet(NamedTuple):
    """A picture as it is stored."""

    pts: int  # presentation time, in ticks of the stream's clock
    key: bool  # whether decoding can start here


@dataclass(frozen=True)
class Span:
    """The time span of the first video stream's pictures, in seconds from the start of the container."""

    start: float
    end: float
    indexed: bool
    zero: float  # the time stamp of the container's start
    codec: str
    packets: tuple[Packet, ...]  # the pictures in decoding order; empty unless each one states its time
    tick: Fraction | None = None  # of the stream's clock, in seconds
    clean: bool = True  # whether libav logged no error while reading

    @cached_property
    def shown(self) -> tuple[list[int], list[int]]:
        """The pictures in display order: their times in microseconds, and the numbers of their packets."""
        order = sorted((self.microseconds(packet.pts), n) for n, packet in enumerate(self.packets))
        return [time for time, _ in order], [n for _, n in order]

    @cached_property
    def ambiguous(self) -> bool:
        """Whether two pictures have the same time."""
        return any(one == other for one, other in pairwise(self.shown[0]))

    @cached_property
    def groups(self) -> list[int]:
        """The first packet of each group of pictures.

        An open group, with a picture that is shown before its key frame, refers to the previous group and is merged
        with it.
        """
        starts, earliest = [], math.inf
        for n in range(len(self.packets) - 1, -1, -1):
            packet = self.packets[n]
            earliest = min(earliest, packet.pts)
            if n == 0 or (packet.key and packet.pts == earliest):
                starts.append(n)
        return starts[::-1]

    def microseconds(self, pts: int) -> int:
        """A presentation time in microseconds, rounded to the nearest."""
        assert self.tick is not None, "packets that state their times have a clock"
        return (2 * MICROSECONDS * pts * self.tick.numerator + self.tick.denominator) // (2 * self.tick.denominator)

    def number(self, pts: int | None) -> int | None:
        """The number of the packet with this presentation time; None: there is none."""
        if pts is None:
            return None
        times, numbers = self.shown
        place = bisect_left(times, self.microseconds(pts))
        return numbers[place] if place < len(numbers) and self.packets[numbers[place]].pts == pts else None

    def group(self, n: int) -> int:
        """The first packet of the group that packet `n` belongs to."""
        return self.groups[bisect_right(self.groups, n) - 1]


def probe(path: Path) -> Span:
    """Read all packets of a video. Raises VideoError unless it is a complete local video file."""
    regular(path)
    try:
        with capture_errors() as errors, open_container(path) as container:
            return replace(_span(container), clean=not errors)
    except av.error.FFmpegError as error:
        raise VideoError(f"not a readable video: {error.strerror or type(error).__name__}") from None


def regular(path: Path) -> None:
    """Raises VideoError unless `path` is a regular file that is not empty: opening a pipe would block."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise VideoError(f"cannot be opened: {error.strerror}") from None
    if not stat.S_ISREG(status.st_mode):
        raise VideoError("not a regular file")
    if status.st_size == 0:
        raise VideoError("empty file")


def _span(container: av.container.InputContainer) -> Span:
    video = video_stream(container)
    zero = (container.start_time or 0) / av.time_base
    first, last, latest = math.inf, -math.inf, 0.0
    packets: list[Packet] = []
    timed = True
    for packet in container.demux():
        if packet.is_corrupt:
            raise VideoError("cut short: its last packet is incomplete")
        if packet.stream_index == video.index and packet.size:
            timed = timed and packet.pts is not None
            if packet.pts is not None:
                packets.append(Packet(packet.pts, packet.is_keyframe))
        if packet.pts is None or packet.is_discard:
            continue
        start = float(packet.pts * packet.time_base) - zero
        end = start + float((packet.duration or 0) * packet.time_base)
        latest = max(latest, end)
        if packet.stream_index == video.index:
            first = min(first, start)
            last = max(last, end if packet.duration else start + 1 / float(video.average_rate or GUESSED_RATE))
    if first == math.inf:
        raise VideoError("its video stream has no pictures")
    kind = container.format.name.split(",")[0]
    indexed = kind in INDEXED
    stated = (container.duration or 0) / av.time_base
    if kind == "matroska":  # it states its end, by a clock that may start late
        stated -= zero
    if indexed and latest < SHORT * stated:
        raise VideoError(f"cut short: it ends after {latest:.2f} s of {stated:.2f} s")
    codec, tick = video.codec_context.codec.canonical_name, video.time_base
    return Span(first, last, indexed, zero, codec, tuple(packets) if timed and tick else (), tick)
