"""Run the ffmpeg program on local files of known containers only, and report its errors in one line."""

import shutil
import subprocess
from functools import cache
from pathlib import Path

import imageio_ffmpeg

from rap.errors import UserError
from rap.runtime.signals import tied

# Containers that hold the video itself. Playlists, concat scripts and image sequences refer to other files.
FORMATS = "mov,matroska,avi,mpegts,mpeg,flv,ogg,asf"
PROTOCOLS = "file,pipe"
STRICT = {"vp9": "libvpx-vp9"}
REMEDY = "install the imageio-ffmpeg wheel or the system's ffmpeg, or set IMAGEIO_FFMPEG_EXE to its path"


class VideoError(Exception):
    """Why a video cannot be used, in one line. The video is marked as failed; the run continues."""


def binary() -> str:
    """The ffmpeg executable: IMAGEIO_FFMPEG_EXE, else that of the imageio-ffmpeg wheel, else the system's."""
    return _program()[0]


def version() -> str:
    """ffmpeg's version. Another version may decode or scale to different pixels."""
    return _program()[1]


@cache
def _program() -> tuple[str, str]:
    try:
        name = imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError:
        raise UserError(f"ffmpeg: not found; {REMEDY}") from None
    path = shutil.which(name)
    if path is None:
        raise UserError(f"ffmpeg: {name} is not an executable program; {REMEDY}")
    try:
        words = subprocess.run([path, "-version"], stdin=subprocess.DEVNULL, capture_output=True).stdout.split()
    except OSError as error:
        raise UserError(f"ffmpeg: {path} cannot be executed ({error.strerror}); {REMEDY}") from None
    if words[:2] != [b"ffmpeg", b"version"]:
        raise UserError(f"ffmpeg: {path} is another program; {REMEDY}")
    return path, words[2].decode()


@cache
def decoders() -> frozenset[str]:
    """The names of the decoders that ffmpeg has."""
    lines = run([binary(), "-v", "error", "-decoders"]).decode().splitlines()
    return frozenset(words[1] for line in lines if len(words := line.split()) > 1)


def strict_decoder(codec: str) -> str | None:
    """A decoder that finds more damage than ffmpeg's default one, if there is one: docs/frames.md has the rates."""
    name = STRICT.get(codec)
    return name if name in decoders() else None


def url(path: Path) -> str:
    """A name that ffmpeg reads as a local file, with any characters."""
    return f"file:{path.absolute()}"


def run(command: list[str], timeout: float = 60) -> bytes:
    """The command's stdout. Raises VideoError if it fails, or writes anything to stderr."""
    try:
        done = subprocess.run(tied(command), stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise VideoError(f"ffmpeg did not finish in {timeout:.0f} s") from None
    if done.returncode or done.stderr.strip():
        raise VideoError(f"ffmpeg: {messages(done.stderr)} (exit status {done.returncode})")
    return done.stdout


def messages(stderr: bytes) -> str:
    """The first and the last line of stderr: the cause and the effect."""
    lines = [_plain(line) for line in stderr.decode(errors="replace").splitlines() if line.strip()]
    return "; ".join(dict.fromkeys([lines[0], lines[-1]])) if lines else "no message"


def _plain(line: str) -> str:
    """`[h264 @ 0x55d] text` to `h264: text`: addresses differ between runs, reasons must not."""
    tags, text = [], line.strip()
    while text.startswith("[") and "]" in text:
        tag, _, text = text[1:].partition("]")
        tags.append(tag.partition(" @ ")[0])
        text = text.strip()
    return f"{tags[-1]}: {text}"[:200] if tags else text[:200]
