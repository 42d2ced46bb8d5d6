"""The hidden folder next to the videos for unfinished files and for notes on fetched files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from rap.errors import UserError

NAME = ".download"


@contextmanager
def workplace(videos: Path) -> Iterator[Path]:
    """Yield `videos`/.download, locked. Raises UserError if another process holds the lock, or if the disk fails."""
    work = videos / NAME
    try:
        work.mkdir(parents=True, exist_ok=True)
        with FileLock(work / "lock", timeout=0):
            yield work
    except Timeout:
        raise UserError(f"{videos}: another `rap download` is running here; wait for it to end") from None
    except OSError as error:
        where = error.filename or videos
        raise UserError(f"download: {where}: {error.strerror or error}; fix it and run `rap download` again") from None
