"""What a video's container says, read packet by packet without decoding: from when to when it shows pictures."""

import math
import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import av

from rap.frames.ffmpeg import VideoError
from rap.frames.libav import listening, opened, video_stream

INDEXED = ("mov", "matroska")  # containers with an index: a seek is exact, and the stated duration can be relied on
SHORT = 0.9  # a file that ends before this share of its stated duration has been cut short
GUESSED_RATE = 25  # frames per second of a stream that states neither a rate nor how long a frame lasts


class Packet(NamedTuple):
    """One picture as it is stored."""

    pts: int | None  # when it is shown, in ticks of the stream's clock
    key: bool  # decoding can start here


@dataclass(frozen=True)
class Span:
    """The seconds, counted from the container's own start, in which the first video stream shows pictures."""

    start: float
    end: float
    indexed: bool
    zero: float  # the container's start by its own time stamps
    packets: tuple[Packet, ...]  # those of the pictures, in the order of decoding
    quiet: bool = True  # whether reading them went without a complaint


def probe(path: Path) -> Span:
    """Read all packets of a video. Raises VideoError if it is no whole local video file."""
    regular(path)
    try:
        with listening() as said, opened(path) as container:
            return replace(_span(container), quiet=not said)
    except av.error.FFmpegError as error:
        raise VideoError(f"no video that can be read: {error.strerror or type(error).__name__}") from None


def regular(path: Path) -> None:
    """Raises VideoError unless `path` is a regular file with something in it (a pipe would wait for ever)."""
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
    packets = []
    for packet in container.demux():
        if packet.is_corrupt:
            raise VideoError("cut short: its last packet is not whole")
        if packet.stream_index == video.index and packet.size:
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
    if kind == "matroska":  # what it states is when it ends, by its own clock, which may start late
        stated -= zero
    if indexed and latest < SHORT * stated:
        raise VideoError(f"cut short: it ends after {latest:.2f} s of {stated:.2f} s")
    return Span(first, last, indexed, zero, tuple(packets))
