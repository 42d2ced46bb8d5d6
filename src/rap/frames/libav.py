"""PyAV on local files of known containers only: opening, the video stream, logged errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

import av

from rap.frames.ffmpeg import FORMATS, PROTOCOLS, VideoError

_lock, _captures = Lock(), 0


def open_container(path: Path) -> av.container.InputContainer:
    """Open a local file, without access to other files. The caller closes it. Raises FFmpegError."""
    options = {"format_whitelist": FORMATS, "protocol_whitelist": PROTOCOLS}
    return av.open(str(path.absolute()), options=options, metadata_errors="replace")


def video_stream(container: av.container.InputContainer) -> av.VideoStream:
    """The first video stream that is not a cover picture. Raises VideoError if there is none."""
    video = next((stream for stream in container.streams.video if not _is_cover(stream)), None)
    if video is None:
        raise VideoError("no video stream")
    return video


def _is_cover(stream: av.VideoStream) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


@contextmanager
def capture_errors() -> Iterator[list]:
    """Yield a list that collects the errors that libav logs in this thread during the block.

    Outside, logging is off, which is PyAV's default. The log level is global, so the last thread to leave resets it.
    """
    global _captures
    with _lock:
        _captures += 1
        av.logging.set_level(av.logging.ERROR)
        av.logging.set_skip_repeated(False)  # two threads may log the same message
    try:
        with av.logging.Capture() as errors:
            yield errors
    finally:
        with _lock:
            _captures -= 1
            if not _captures:
                av.logging.set_level(None)


def version() -> list:
    """The versions of PyAV and its libraries. Other versions may decode or scale to different pixels."""
    return [av.__version__, av.library_versions["libavcodec"], av.library_versions["libswscale"]]
