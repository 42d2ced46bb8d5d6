"""Render a scene over time and encode it as an H.264 file."""

import subprocess
from dataclasses import asdict, replace
from pathlib import Path

import ffmpeg
import imageio_ffmpeg
import numpy as np

from rap.demo.draw import PIXELS, Layer, layer, paint
from rap.demo.scenes import Scene
from rap.files import atomic, digest
from rap.provenance import code

RATE = 12  # frames per second
# Every frame is a key frame of fixed quality, so a clip and its twin decode to the same pictures: compression artefacts
# do not reveal the direction of time.
ENCODER = {"vcodec": "libx264", "preset": "veryfast", "qp": 22, "g": 1, "pix_fmt": "yuv420p", "threads": 1}
# The file records neither the machine nor the date.
EXACT = {"fflags": "+bitexact", "flags:v": "+bitexact", "map_metadata": -1}


def render(scene: Scene, seed: tuple[int, ...], pixels: int = PIXELS) -> np.ndarray:
    """The scene forwards, uint8 [frames, pixels, pixels, 3], 24 to 48 frames; `seed` determines timing and jitter."""
    rng = np.random.default_rng(seed)
    frames = int(rng.integers(24, 49))
    layers = [layer(scene.bystander, frames, rng)] if scene.bystander else []
    layers += _event(scene, np.linspace(0, 1, frames, dtype=np.float32), rng)
    return paint(scene.background, layers, frames, pixels)


def _event(scene: Scene, time: np.ndarray, rng: np.random.Generator) -> list[Layer]:
    """The layers of the event; `time` [frames] runs from 0 to 1. Every course is symmetric in time."""
    start, end = [layer(thing, len(time), rng) for thing in scene.ends]
    match scene.kind:
        case "appear":
            shown = _ease(time, rng.uniform(0.38, 0.62), 0.24)
            shown = 1 - shown if scene.before else shown
            return [replace(start, opacity=shown, radius=start.radius * (0.6 + 0.4 * shown))]
        case "colour":
            return [_blend(start, replace(start, colour=end.colour), _ease(time, rng.uniform(0.38, 0.62), 0.24))]
        case "size":
            return [_blend(start, replace(start, radius=end.radius), _ease(time, rng.uniform(0.42, 0.58), 0.6))]
        case "move":
            return [_blend(start, end, _ease(time, rng.uniform(0.44, 0.56), rng.uniform(0.5, 0.7)))]
        case "order":
            gap = rng.uniform(-0.04, 0.04)
            return [_flash(start, time, 0.26 + gap), _flash(end, time, 0.74 + gap)]


def _ease(time: np.ndarray, middle: float, length: float) -> np.ndarray:
    """Smoothstep from 0 to 1, centred at `middle`."""
    share = np.clip((time - middle) / length + 0.5, 0, 1)
    return share * share * (3 - 2 * share)


def _flash(one: Layer, time: np.ndarray, middle: float) -> Layer:
    shown = _ease(np.abs(time - middle), 0.18, -0.08)
    return replace(one, opacity=shown, radius=one.radius * (0.6 + 0.4 * shown))


def _blend(start: Layer, end: Layer, share: np.ndarray) -> Layer:
    def mix(name: str) -> np.ndarray:
        a, b = getattr(start, name), getattr(end, name)
        return a + (b - a) * (share[:, None] if a.ndim == 2 else share)

    return replace(start, x=mix("x"), y=mix("y"), radius=mix("radius"), colour=mix("colour"))


def fingerprint(scene: Scene, seed: tuple[int, ...], backwards: bool) -> str:
    """The digest of everything that determines a clip's pixels; the file stores it as its comment."""
    return digest([asdict(scene), seed, backwards, code(__name__), ENCODER])


def complete(path: Path, fingerprint: str) -> bool:
    """Whether the file exists and is whole: it has its comment at the very end."""
    return path.exists() and fingerprint.encode() in path.read_bytes()[-512:]


def encode(frames: np.ndarray, path: Path, fingerprint: str) -> None:
    """Write uint8 [frames, height, width, 3] as an mp4 whose bytes depend only on the arguments and ffmpeg."""
    size = f"{frames.shape[2]}x{frames.shape[1]}"
    with atomic(path) as temporary:
        source = ffmpeg.input("pipe:", format="rawvideo", pix_fmt="rgb24", s=size, r=RATE)
        target = source.output(str(temporary), format="mp4", metadata=f"comment={fingerprint}", **ENCODER, **EXACT)
        command = target.global_args("-v", "error").compile(cmd=imageio_ffmpeg.get_ffmpeg_exe(), overwrite_output=True)
        subprocess.run(command, input=np.ascontiguousarray(frames).data, check=True, capture_output=True)
