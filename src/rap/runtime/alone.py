"""Locks a result while one process writes it, and removes temporary files of killed processes."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from rap import paths
from rap.files import digest


@contextmanager
def alone(record: str | Path, command: str) -> Iterator[None]:
    """Wait until no other process writes the result with this record. A process that waits names the `command`."""
    file = paths.lock(digest(str(record))[:16])
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"rap: another process is running `{command}`; waiting for it", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def remove_temporary(files: Iterable[str | Path]) -> None:
    """Remove the temporary files (rap.files.atomic) of these files, whose names may be patterns such as *.svg."""
    for file in map(Path, files):
        for left in file.parent.glob(f".{file.name}.*.tmp"):
            left.unlink(missing_ok=True)
