"""The hidden folder beside the videos, where what is unfinished lies, and the notes of what was done."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from rap.errors import UserError

NAME = ".download"


@contextmanager
def workplace(videos: Path) -> Iterator[Path]:
    """Yield `videos`/.download, for one process at a time. Raises UserError if another has it, or the disk says no."""
    work = videos / NAME
    try:
        work.mkdir(parents=True, exist_ok=True)
        with FileLock(work / "lock", timeout=0):
            yield work
    except Timeout:
        raise UserError(f"{videos}: another `rap download` is at work here; wait for it to end") from None
    except OSError as error:
        where = error.filename or videos
        raise UserError(f"download: {where}: {error.strerror or error}; mend it and run `rap download` again") from None
