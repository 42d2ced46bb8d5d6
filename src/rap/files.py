"""Files that are complete or absent: written under a temporary name, flushed, renamed."""

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rap.errors import UserError


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` if the block succeeds, else remove it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        move(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def move(finished: Path, path: Path) -> None:
    """Flush a finished file and rename it, on the same disk."""
    with finished.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(finished, path)


def allocate(file: Path, size: int) -> None:
    """Reserve the disk space of a file before it is mapped: a full disk would kill the process during a write.

    Raises UserError, and removes the file, if there is too little space.
    """
    free = shutil.disk_usage(file.parent).free
    try:
        with file.open("r+b") as opened:
            os.posix_fallocate(opened.fileno(), 0, size)
    except OSError as error:
        file.unlink()
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise UserError(
            f"{file.parent}: {size / 1e6:,.0f} MB are needed and {free / 1e6:,.0f} MB are free; make room, then "
            "run the same command again"
        ) from None


def write_text(path: str | Path, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Sorted keys and a fixed layout: equal values are equal bytes."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def write_checked(path: str | Path, values: dict[str, Any]) -> None:
    """A JSON object with its own checksum, which `read_checked` verifies."""
    write_json(path, values | {"checksum": digest(values)})


def read_checked(path: str | Path) -> dict[str, Any]:
    """Raises ValueError if the file is damaged."""
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8", errors="replace"))
    except RecursionError:
        values = None
    if not isinstance(values, dict) or values.pop("checksum", None) != digest(values):
        raise ValueError(f"{path}: damaged")
    return values


def digest_file(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
    """SHA-256 of a JSON value, independent of the order of its keys, in hex."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()
