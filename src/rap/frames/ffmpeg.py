"""ffmpeg, kept on a short lead: which binary, which files it may open, and what it says when it fails."""

import shutil
import subprocess
from functools import cache
from pathlib import Path

import imageio_ffmpeg

from rap.errors import UserError

# Containers that hold the video themselves. Playlists, concat scripts and image sequences name other files: not here.
FORMATS = "mov,matroska,avi,mpegts,mpeg,flv,ogg,asf"
PROTOCOLS = "file,pipe"
CURE = "install the imageio-ffmpeg wheel or the system's ffmpeg, or set IMAGEIO_FFMPEG_EXE to one"


class VideoError(Exception):
    """Why one video cannot be used, in one line: the video is marked as failed and the run goes on."""


@cache
def binary() -> str:
    """The ffmpeg executable: IMAGEIO_FFMPEG_EXE, the one of the imageio-ffmpeg wheel, or the system's."""
    try:
        name = imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError:
        raise UserError(f"ffmpeg: not found; {CURE}") from None
    path = shutil.which(name)
    if path is None:
        raise UserError(f"ffmpeg: {name} is no program that can be run; {CURE}")
    return path


@cache
def version() -> str:
    """The words by which ffmpeg names its version: another version may decode or scale to other pixels."""
    words = run([binary(), "-version"]).split(b"\n", 1)[0].split()
    return words[2].decode() if words[:2] == [b"ffmpeg", b"version"] else "unknown"


def url(path: Path) -> str:
    """A name that ffmpeg takes for a local file, whatever characters it has."""
    return f"file:{path.absolute()}"


def run(command: list[str], timeout: float = 60) -> bytes:
    """What the command writes to stdout. Raises VideoError if it fails, or says anything at level error."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise VideoError(f"ffmpeg did not finish in {timeout:.0f} s") from None
    except OSError as error:
        raise UserError(f"ffmpeg: {command[0]} cannot be run ({error.strerror}); {CURE}") from None
    if done.returncode or done.stderr.strip():
        raise VideoError(f"ffmpeg: {last_words(done.stderr)} (exit status {done.returncode})")
    return done.stdout


def last_words(stderr: bytes) -> str:
    """The first complaint and the last one, without addresses: the first is the cause, the last the effect."""
    lines = [_plain(line) for line in stderr.decode(errors="replace").splitlines() if line.strip()]
    return "; ".join(dict.fromkeys([lines[0], lines[-1]])) if lines else "no words"


def _plain(line: str) -> str:
    """`[h264 @ 0x55d] text` to `h264: text`: addresses differ from run to run, reasons must not."""
    tags, text = [], line.strip()
    while text.startswith("[") and "]" in text:
        tag, _, text = text[1:].partition("]")
        tags.append(tag.partition(" @ ")[0])
        text = text.strip()
    return f"{tags[-1]}: {text}"[:200] if tags else text[:200]
