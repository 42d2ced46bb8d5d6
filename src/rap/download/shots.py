"""The shots of a video, from one cut to the next, by ffmpeg's detector of scene changes (the filter `scdet`)."""

import re
from itertools import pairwise
from pathlib import Path

from rap.frames import ffmpeg

THRESHOLD = 10  # of 100: how much a picture must differ from the one before; ffmpeg's default
SHORTEST = 1.0  # seconds: quick cuts stay within one shot
WIDTH = 160  # pixels: enough to detect a cut, and cheap


def shots(path: Path, end: float) -> list[tuple[float, float]]:
    """Start and end of each shot of a video that lasts until `end` seconds, without gaps. Decodes the whole file.

    Raises VideoError if it cannot be decoded to its end.
    """
    starts = [0.0]
    for cut in cuts(path, timeout=60 + 10 * end):
        if cut - starts[-1] >= SHORTEST and end - cut >= SHORTEST:
            starts.append(cut)
    return list(pairwise([*starts, end]))


def cuts(path: Path, timeout: float) -> list[float]:
    """The seconds of the cuts."""
    filters = f"scale={WIDTH}:-2:flags=bilinear,scdet=threshold={THRESHOLD},metadata=print:key=lavfi.scd.time:file=-"
    whitelists = ("-format_whitelist", ffmpeg.FORMATS, "-protocol_whitelist", ffmpeg.PROTOCOLS)
    command = [ffmpeg.binary(), "-nostdin", "-v", "error", *whitelists, "-i", ffmpeg.url(path)]
    printed = ffmpeg.run([*command, "-map", "0:V:0", "-vf", filters, "-f", "null", "-"], timeout)
    return [float(time) for time in re.findall(rb"lavfi\.scd\.time=([\d.]+)", printed)]
