"""Samplers: the number of equal segments of a clip. One frame is taken at the middle of each segment.

To add a sampler, add a function to SAMPLERS and its name to `rap.params.Sampling.sampler`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from rap.params import Sampling


@dataclass(frozen=True)
class Segments:
    """The equal segments of a clip."""

    first: float  # when the first begins, in seconds of the container's clock
    seconds: float  # between two of them
    count: int


def uniform(frames: Sampling, seconds: float) -> int:
    """`frames.count` segments, for any duration."""
    return frames.count


def fps(frames: Sampling, seconds: float) -> int:
    """`frames.fps` segments per second; at least one, at most `frames.count`."""
    return min(frames.count, max(1, round(seconds * frames.fps)))


SAMPLERS: dict[str, Callable[[Sampling, float], int]] = {"uniform": uniform, "fps": fps}


def segments(frames: Sampling, seconds: float) -> int:
    """The number of segments of a clip that lasts `seconds`."""
    return SAMPLERS[frames.sampler](frames, seconds)
