"""Render a scene over time and encode it as an H.264 file."""

import subprocess
from dataclasses import asdict
from pathlib import Path

import ffmpeg
import imageio_ffmpeg
import numpy as np

from rap.demo.animate import layers
from rap.demo.draw import PIXELS, paint
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
    return paint(scene.background, layers(scene, frames, rng), frames, pixels)


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
