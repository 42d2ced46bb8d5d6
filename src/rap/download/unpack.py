"""Unpack archives (zip; tar, also compressed) into a folder, without trusting them.

Only regular files are unpacked. A name that leads out of the folder rejects the archive; links, devices and hidden
files are skipped; unpacking stops at a size limit. Each file is complete or absent.

`zipfile` and `tarfile` read the members, but do not extract them: on the archives of the tests, extractall of both
(tarfile's with the filter `data`) writes "/tmp/x" under another name instead of rejecting the archive, accepts
backslashes and control characters, and expands 0.2 MB to 200 MB; zipfile's also follows links that are in the folder.
Neither strips leading folders, skips files that exist, or writes to a temporary name.
"""

import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from rap.files import move
from rap.progress import note, progress

RATIO = 100  # videos hardly compress: an archive with a larger expansion is a bomb
FLOOR = 10_000_000  # bytes to which any archive may expand
CHUNK = 1 << 20
ZIP = (b"PK\x03\x04", b"PK\x05\x06")
FOREIGN = {b"7z\xbc\xaf": "7z", b"Rar!": "RAR", b"\x28\xb5\x2f\xfd": "Zstandard"}  # by their first four bytes
SUFFIXES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz")
DAMAGE = (OSError, EOFError, RuntimeError, zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError)


class ArchiveError(Exception):
    """Why an archive cannot be unpacked, in one line."""


@dataclass(frozen=True)
class Member:
    """A member of an archive. `opened` opens a regular file; it is None for anything else."""

    name: str
    size: int
    opened: Callable[[], IO[bytes]] | None


def unpack(archive: Path, folder: Path, scratch: Path, *, name: str, strip: int, limit: float) -> dict[str, int]:
    """Unpack into `folder`; a file that is not an archive is copied there as `name`. Returns sizes by path.

    Drops `strip` leading folders of the members' names, as --strip-components of tar does. Each member is written to
    the file `scratch` and then renamed; a file that exists with the right size is skipped. Raises
    ArchiveError if the archive is unsafe, damaged, of an unknown kind, or expands to more than `limit` bytes.
    """
    members = _members(archive, name)
    room = min(limit, max(FLOOR, RATIO * archive.stat().st_size))
    files: dict[str, int] = {}
    left_out = 0
    for member in progress(members, desc=f"unpack {name}", unit="file"):
        path = cleaned(member.name, strip)
        if member.opened is None or path is None:
            left_out += 1
            continue
        target = place(folder, path)
        if not (target.is_file() and target.stat().st_size == member.size):
            _write(member.opened, scratch, room)
            target.parent.mkdir(parents=True, exist_ok=True)
            move(scratch, target)
        files[str(path)] = target.stat().st_size
        room -= files[str(path)]
    if left_out:
        note(f"{name}: {left_out} members left out: links, devices, hidden files")
    return files


def cleaned(name: str, strip: int = 0) -> PurePosixPath | None:
    """A member's normalised path; None if it is hidden, or has no more than `strip` parts.

    Raises ArchiveError if it leads out of the folder, or contains control characters.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or any(ord(letter) < 32 for letter in name):
        raise ArchiveError(f"its member {name!r} leads out of the folder; do not trust this archive")
    parts = path.parts[strip:]
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return PurePosixPath(*parts) if parts and not hidden else None


def place(folder: Path, path: str | PurePosixPath) -> Path:
    """A relative path in the folder. Raises ArchiveError if it leads out, including by a link in the folder."""
    if not (folder / path).resolve().is_relative_to(folder.resolve()):
        raise ArchiveError(f"{str(path)!r} leads out of the folder")
    return folder / path


def _write(opened: Callable[[], IO[bytes]], scratch: Path, room: float) -> None:
    with scratch.open("wb") as file:
        for data in _chunks(opened):
            room -= file.write(data)
            if room < 0:
                raise ArchiveError(f"it expands to more than {RATIO} times its size, or than download.max_gb allows")


def _chunks(opened: Callable[[], IO[bytes]]) -> Iterator[bytes]:
    with _damage(), opened() as source:
        while data := source.read(CHUNK):
            yield data


def _members(archive: Path, name: str) -> Iterator[Member]:
    with archive.open("rb") as file:
        start = file.read(4)
    if start in ZIP:
        return _zipped(archive)
    with _damage():
        if tarfile.is_tarfile(archive):
            return _tarred(archive)
    if start in FOREIGN:  # tarfile reads Zstandard from Python 3.14 on
        raise ArchiveError(f"{FOREIGN[start]} archives are not supported; unpack it yourself")
    if name.endswith(SUFFIXES):
        raise ArchiveError("not a readable archive")
    return iter([Member(name, archive.stat().st_size, lambda: archive.open("rb"))])


def _zipped(archive: Path) -> Iterator[Member]:
    with _damage(), zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            regular = kind in (0, stat.S_IFREG)
            if not info.is_dir():
                yield Member(info.filename, info.file_size, partial(opened.open, info) if regular else None)


def _tarred(archive: Path) -> Iterator[Member]:
    with _damage(), tarfile.open(archive) as opened:
        for info in opened:
            if not info.isdir():
                yield Member(info.name, info.size, partial(_file, opened, info) if info.isreg() else None)


def _file(archive: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    file = archive.extractfile(info)
    assert file is not None  # it is None for members that are not files
    return file


@contextmanager
def _damage() -> Iterator[None]:
    """Report any error of reading an archive as damage of the archive."""
    try:
        yield
    except DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ArchiveError(f"damaged, or encrypted: {reason}") from None
