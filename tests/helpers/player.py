"""A second decoder: what a player shows of a video, decoded by PyAV and transformed by PIL and torchvision.

PyAV brings its own libavcodec, of another version than the ffmpeg program.
"""

from pathlib import Path

import av
import numpy as np
from PIL import Image
from torchvision.transforms import CenterCrop, InterpolationMode, Resize

BT601, BT709 = (0.299, 0.114), (0.2126, 0.0722)  # the weights of red and blue in luma
MODES = {"bicubic": InterpolationMode.BICUBIC, "bilinear": InterpolationMode.BILINEAR}


def middles(start: float, end: float, count: int) -> np.ndarray:
    return start + (np.arange(count) + 0.5) * (end - start) / count


def pictures(path: Path) -> list[tuple[float, av.VideoFrame]]:
    """All pictures in display order, with their times in seconds from the start of the container."""
    with av.open(str(path)) as container:
        zero = (container.start_time or 0) / av.time_base
        return [(float(frame.pts * frame.time_base) - zero, frame) for frame in container.decode(video=0)]


def at(times: list[float], instants) -> list[int]:
    """The index of the picture on display at each instant."""
    return (np.searchsorted(times, np.asarray(instants) + 1e-6, side="right") - 1).tolist()


def shown(path: Path, instants) -> list[av.VideoFrame]:
    times, decoded = zip(*pictures(path), strict=True)
    return [decoded[n] for n in at(times, instants)]


def weights(frame: av.VideoFrame) -> tuple[float, float]:
    return BT709 if int(frame.colorspace) == 1 else BT601


def planes(frame: av.VideoFrame) -> list[np.ndarray]:
    """Luma and the two chroma planes of a yuv420p frame, as decoded."""
    return [np.frombuffer(bytes(p), np.uint8).reshape(-1, p.line_size)[: p.height, : p.width] for p in frame.planes]


def image(frame: av.VideoFrame) -> Image.Image:
    """A yuv420p frame, converted to RGB in floating point."""
    luma, *chroma = (plane.astype(np.float32) for plane in planes(frame))
    blue, red = ((_big(plane, frame) - 128) / 224 for plane in chroma)
    kr, kb = weights(frame)
    y, b, r = (luma - 16) / 219, 2 * (1 - kb) * blue, 2 * (1 - kr) * red
    rgb = np.stack([y + r, y - (kb * b + kr * r) / (1 - kb - kr), y + b], axis=-1)
    return Image.fromarray((255 * rgb).round().clip(0, 255).astype(np.uint8))


def by_pil(frame: av.VideoFrame, size: int, interpolation: str) -> np.ndarray:
    """CLIP's transform of a yuv420p frame: [size, size, 3] float."""
    return np.asarray(CenterCrop(size)(Resize(size, MODES[interpolation])(image(frame))), float)


def _big(plane: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    return np.asarray(Image.fromarray(plane).resize((frame.width, frame.height), Image.BICUBIC))
