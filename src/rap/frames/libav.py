"""PyAV, kept on a short lead as ffmpeg is: which files it may open, which stream is the video, and what it says."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

import av

from rap.frames.ffmpeg import FORMATS, PROTOCOLS, VideoError

_lock, _listeners = Lock(), 0


def opened(path: Path) -> av.container.InputContainer:
    """A local file and nothing that it names, to be closed by the caller. Raises FFmpegError."""
    options = {"format_whitelist": FORMATS, "protocol_whitelist": PROTOCOLS}
    return av.open(str(path.absolute()), options=options, metadata_errors="replace")


def video_stream(container: av.container.InputContainer) -> av.VideoStream:
    """The first stream of pictures, covers aside. Raises VideoError if there is none."""
    video = next((stream for stream in container.streams.video if not _is_cover(stream)), None)
    if video is None:
        raise VideoError("no video stream")
    return video


def _is_cover(stream: av.VideoStream) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


@contextmanager
def listening() -> Iterator[list]:
    """The list of what the libraries say at level error in this thread, from here to the end of the block.

    Elsewhere they are silent, as PyAV has it: their level is one for the whole process, so the last to leave resets it.
    """
    global _listeners
    with _lock:
        _listeners += 1
        av.logging.set_level(av.logging.ERROR)
        av.logging.set_skip_repeated(False)  # two threads may say the same
    try:
        with av.logging.Capture() as said:
            yield said
    finally:
        with _lock:
            _listeners -= 1
            if not _listeners:
                av.logging.set_level(None)


def version() -> list:
    """What another version of may decode or scale to other pixels."""
    return [av.__version__, av.library_versions["libavcodec"], av.library_versions["libswscale"]]
