"""Archives (zip, and tar with its compressions) unpacked into a folder, as if an enemy had made them.

Only regular files are taken. A name that leads out of the folder refuses the archive; links, devices and hidden files
are left out; an archive that unfolds beyond all measure is stopped. Each file is whole or absent.
"""

import lzma
import stat
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from tqdm import tqdm

from rap.files import move

RATIO = 100  # videos hardly compress: an archive that unfolds to more than so many times its size is a bomb
FLOOR = 10_000_000  # bytes that any archive may unfold to
CHUNK = 1 << 20
ZIP = (b"PK\x03\x04", b"PK\x05\x06")
FOREIGN = {b"7z\xbc\xaf": "7z", b"Rar!": "RAR", b"\x28\xb5\x2f\xfd": "Zstandard"}  # by their first four bytes
SUFFIXES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz")
DAMAGE = (OSError, EOFError, RuntimeError, zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError)


class ArchiveError(Exception):
    """Why an archive is not unpacked, in one line."""


@dataclass(frozen=True)
class Member:
    """What an archive says of one of its members. `opened` is None for what is no regular file."""

    name: str
    size: int
    opened: Callable[[], IO[bytes]] | None


def unpack(archive: Path, folder: Path, scratch: Path, *, name: str, strip: int, limit: float) -> dict[str, int]:
    """Unpack into `folder`; what is no archive goes there as `name`. Returns the size of each file by its path.

    `strip` leading folders are taken off the members' names, as by tar's --strip-components. `scratch` is a file that
    is written first and then renamed. A file that is there with its size is not written again. Raises ArchiveError if
    the archive is hostile, damaged, of a kind that cannot be read, or unfolds to more than `limit` bytes.
    """
    members = _members(archive, name)
    room = min(limit, max(FLOOR, RATIO * archive.stat().st_size))
    files: dict[str, int] = {}
    left_out = 0
    for member in tqdm(members, desc=f"unpack {name}", unit="file"):
        path = cleaned(member.name, strip)
        if member.opened is None or path is None:
            left_out += 1
            continue
        target = place(folder, path)
        if not (target.is_file() and target.stat().st_size == member.size):
            _write(member, scratch, room)
            target.parent.mkdir(parents=True, exist_ok=True)
            move(scratch, target)
        files[str(path)] = target.stat().st_size
        room -= files[str(path)]
    if left_out:
        tqdm.write(f"{name}: {left_out} members left out: links, devices, hidden files", file=sys.stderr)
    return files


def cleaned(name: str, strip: int = 0) -> PurePosixPath | None:
    """A member's path in its plainest form; None if it is hidden, or has no more than `strip` parts.

    Raises ArchiveError if it leads out of the folder, or holds control characters.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or any(ord(letter) < 32 for letter in name):
        raise ArchiveError(f"its member {name!r} leads out of the folder; this archive is not to be trusted")
    parts = path.parts[strip:]
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return PurePosixPath(*parts) if parts and not hidden else None


def place(folder: Path, path: str | PurePosixPath) -> Path:
    """Where in the folder a relative path lies. Raises ArchiveError if it leads out, by a link in the folder also."""
    if not (folder / path).resolve().is_relative_to(folder.resolve()):
        raise ArchiveError(f"{str(path)!r} leads out of the folder")
    return folder / path


def _write(member: Member, scratch: Path, room: float) -> None:
    with scratch.open("wb") as file:
        for data in _chunks(member):
            room -= file.write(data)
            if room < 0:
                raise ArchiveError(f"it unfolds to more than {RATIO} times its size, or than download.max_gb allows")


def _chunks(member: Member) -> Iterator[bytes]:
    with _damage(), member.opened() as source:
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
    if start in FOREIGN:  # Zstandard is read by tarfile from Python 3.14 on
        raise ArchiveError(f"{FOREIGN[start]} archives are not read here; unpack it yourself")
    if name.endswith(SUFFIXES):
        raise ArchiveError("it is no archive that can be read")
    return iter([Member(name, archive.stat().st_size, lambda: archive.open("rb"))])


def _zipped(archive: Path) -> Iterator[Member]:
    with _damage(), zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            regular = kind in (0, stat.S_IFREG)
            if not info.is_dir():
                yield Member(info.filename, info.file_size, (lambda info=info: opened.open(info)) if regular else None)


def _tarred(archive: Path) -> Iterator[Member]:
    with _damage(), tarfile.open(archive) as opened:
        for info in opened:
            regular = info.isreg()
            if not info.isdir():
                yield Member(info.name, info.size, (lambda info=info: opened.extractfile(info)) if regular else None)


@contextmanager
def _damage() -> Iterator[None]:
    """Whatever goes wrong while an archive is read is the archive's fault."""
    try:
        yield
    except DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ArchiveError(f"damaged, or not to be read without a password: {reason}") from None
