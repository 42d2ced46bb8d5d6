"""A scene over time, and its H.264 file."""

import hashlib
import subprocess
from dataclasses import asdict, replace
from pathlib import Path

import ffmpeg
import imageio_ffmpeg
import numpy as np

from rap.demo.draw import PIXELS, Layer, layer, paint
from rap.demo.scenes import Scene
from rap.files import atomic, digest

RATE = 12  # frames per second
CODE = hashlib.sha256(b"".join(Path(__file__).with_name(f"{n}.py").read_bytes() for n in ("draw", "film"))).hexdigest()
# Every frame is coded by itself, at a fixed quality: a clip and its twin decode to the very same pictures, so that not
# even the traces of compression tell the direction of time.
ENCODER = {"vcodec": "libx264", "preset": "veryfast", "qp": 22, "g": 1, "pix_fmt": "yuv420p", "threads": 1}
# nothing of the machine or the moment may enter the file
EXACT = {"fflags": "+bitexact", "flags:v": "+bitexact", "map_metadata": -1}


def film(scene: Scene, seed: tuple[int, ...], pixels: int = PIXELS) -> np.ndarray:
    """The scene forwards, uint8 [frames, pixels, pixels, 3], 24 to 48 frames; timing and jitter come from `seed`."""
    rng = np.random.default_rng(seed)
    frames = int(rng.integers(24, 49))
    layers = [layer(scene.bystander, frames, rng)] if scene.bystander else []
    layers += _event(scene, np.linspace(0, 1, frames, dtype=np.float32), rng)
    return paint(scene.background, layers, frames, pixels)


def _event(scene: Scene, time: np.ndarray, rng: np.random.Generator) -> list[Layer]:
    """The layers of what happens; `time` [frames] runs from 0 to 1. All courses are symmetric in time."""
    start, end = [layer(thing or scene.thing, len(time), rng) for thing in (scene.before or scene.after, scene.after)]
    match scene.kind:
        case "order":
            gap = rng.uniform(-0.04, 0.04)
            return [_flash(start, time, 0.26 + gap), _flash(end, time, 0.74 + gap)]
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


def _ease(time: np.ndarray, middle: float, length: float) -> np.ndarray:
    """From 0 to 1 around `middle`, slow at both ends (smoothstep)."""
    share = np.clip((time - middle) / length + 0.5, 0, 1)
    return share * share * (3 - 2 * share)


def _flash(one: Layer, time: np.ndarray, middle: float) -> Layer:
    shown = _ease(np.abs(time - middle), 0.18, -0.08)
    return replace(one, opacity=shown, radius=one.radius * (0.6 + 0.4 * shown))


def _blend(start: Layer, end: Layer, share: np.ndarray) -> Layer:
    def mix(name: str) -> np.ndarray:
        a, b = getattr(start, name), getattr(end, name)
        return a + (b - a) * (share[:, None] if a.ndim == 2 else share)

    return replace(start, **{name: mix(name) for name in ("x", "y", "radius", "colour")})


def recipe(scene: Scene, seed: tuple[int, ...], backwards: bool) -> str:
    """The digest of all that decides a clip's pixels; the file carries it as its comment."""
    return digest([asdict(scene), seed, backwards, CODE, ENCODER])


def shot(path: Path, recipe: str) -> bool:
    """Whether the file is there and whole: the comment stands at its very end, and it was renamed when finished."""
    return path.exists() and recipe.encode() in path.read_bytes()[-512:]


def encode(frames: np.ndarray, path: Path, recipe: str) -> None:
    """Write uint8 [frames, height, width, 3] as an mp4 whose bytes depend on the arguments and ffmpeg alone."""
    size = f"{frames.shape[2]}x{frames.shape[1]}"
    with atomic(path) as temporary:
        source = ffmpeg.input("pipe:", format="rawvideo", pix_fmt="rgb24", s=size, r=RATE)
        target = source.output(str(temporary), format="mp4", metadata=f"comment={recipe}", **ENCODER, **EXACT)
        command = target.global_args("-v", "error").compile(cmd=imageio_ffmpeg.get_ffmpeg_exe(), overwrite_output=True)
        subprocess.run(command, input=np.ascontiguousarray(frames).data, check=True, capture_output=True)
