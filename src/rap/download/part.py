"""The unfinished file of a download, with a note of the version of its remote file.

The version is a strong ETag or the time of the last change. A transfer resumes with Range and If-Range (RFC 9110,
13.1.5 and 14.2): if the file has changed, or the server does not support ranges, it starts again.
"""

import re
from pathlib import Path

import requests

from rap.download.retry import FetchError
from rap.files import digest, move, read_json, write_json


class Part:
    """An unfinished file and the version of its remote file."""

    def __init__(self, work: Path, url: str, target: Path):
        name = digest([url, str(target)])[:16]
        self.file, self.note = work / f"{name}.part", work / f"{name}.json"
        known = read_json(self.note) if self.note.exists() and self.file.exists() else {}
        self.url = url
        self.version: str | None = known.get("version")
        self.total: int | None = known.get("total")  # bytes of the remote file, if known
        self.longest = self.have(trust=True)

    @property
    def complete(self) -> bool:
        """Whether the file has all bytes: an earlier run was stopped after the transfer."""
        return self.total is not None and self.file.exists() and self.file.stat().st_size == self.total

    def have(self, trust: bool) -> int:
        """The number of bytes to resume from. Bytes of an unknown version need `trust`: a digest verifies the file."""
        return self.file.stat().st_size if self.file.exists() and (self.version or trust) else 0

    def range(self, have: int) -> dict[str, str]:
        """The request headers that ask for the rest of the file."""
        unless_changed = {"If-Range": self.version} if self.version else {}
        return {"Range": f"bytes={have}-", **unless_changed} if have else {}

    def begin(self, have: int, response: requests.Response) -> int:
        """Prepare for the body of a response; return the number of existing bytes to keep.

        Raises FetchError if the response is a part that does not continue at `have`.
        """
        version = _version(response)
        if response.status_code == 206:
            span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
            total = int(span[2]) if span and span[2].isdigit() else self.total
            same = version in (None, self.version) and self.total in (None, total)
            if span and int(span[1]) == have and same:
                return have
        if response.status_code in (206, 416):  # 416: the file is now shorter than `have`
            self.remove()
            raise FetchError("the file changed on the server during the transfer", again=True)
        length = response.headers.get("Content-Length", "")
        self.remove()
        self.version, self.total = version, int(length) if length.isdigit() else None
        write_json(self.note, {"url": self.url, "version": self.version, "total": self.total})
        return 0

    def growth(self, count: int) -> int:
        """The bytes beyond the file's greatest length so far; 0 for a transfer that always starts again."""
        before, self.longest = self.longest, max(self.longest, count)
        return self.longest - before

    def remove(self) -> None:
        """Delete the bytes first, so that the note never describes other bytes."""
        self.file.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)
        self.version = self.total = None

    def become(self, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        move(self.file, target)
        self.remove()


def _version(response: requests.Response) -> str | None:
    """The identifier of the exact bytes; a weak ETag is none."""
    tag = response.headers.get("ETag", "W/")
    return response.headers.get("Last-Modified") if tag.startswith("W/") else tag
