"""Run the ffmpeg program on local files of known containers only, and report its errors in one line."""

import shutil
import subprocess
from functools import cache
from pathlib import Path

import imageio_ffmpeg

from rap.errors import UserError

# Containers that hold the video itself. Playlists, concat scripts and image sequences refer to other files.
FORMATS = "mov,matroska,avi,mpegts,mpeg,flv,ogg,asf"
PROTOCOLS = "file,pipe"
CURE = "install the imageio-ffmpeg wheel or the system's ffmpeg, or set IMAGEIO_FFMPEG_EXE to its path"


class VideoError(Exception):
    """Why a video cannot be used, in one line. The video is marked as failed; the run continues."""


@cache
def binary() -> str:
    """The ffmpeg executable: IMAGEIO_FFMPEG_EXE, else that of the imageio-ffmpeg wheel, else the system's."""
    try:
        name = imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError:
        raise UserError(f"ffmpeg: not found; {CURE}") from None
    path = shutil.which(name)
    if path is None:
        raise UserError(f"ffmpeg: {name} is not an executable program; {CURE}")
    return path


@cache
def version() -> str:
    """ffmpeg's version. Another version may decode or scale to different pixels."""
    words = run([binary(), "-version"]).split(b"\n", 1)[0].split()
    return words[2].decode() if words[:2] == [b"ffmpeg", b"version"] else "unknown"


def url(path: Path) -> str:
    """A name that ffmpeg reads as a local file, whatever characters it contains."""
    return f"file:{path.absolute()}"


def run(command: list[str], timeout: float = 60) -> bytes:
    """The command's stdout. Raises VideoError if it fails, or writes anything to stderr."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise VideoError(f"ffmpeg did not finish in {timeout:.0f} s") from None
    except OSError as error:
        raise UserError(f"ffmpeg: {command[0]} cannot be executed ({error.strerror}); {CURE}") from None
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
