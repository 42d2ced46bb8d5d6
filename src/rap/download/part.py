"""The unfinished file of a download, and the note beside it of which version of the remote file its bytes are from.

The version is an ETag or the time of the last change. The rest is asked for with Range and If-Range (RFC 9110, 13.1.5
and 14.2): if the file has changed, or the server knows no ranges, it comes from its beginning.
"""

import re
from pathlib import Path

import requests

from rap.download.retry import FetchError
from rap.files import digest, move, read_json, write_json


class Part:
    """An unfinished file, and which version of the remote one it is a part of."""

    def __init__(self, work: Path, url: str, target: Path):
        name = digest([url, str(target)])[:16]
        self.file, self.note = work / f"{name}.part", work / f"{name}.json"
        known = read_json(self.note) if self.note.exists() and self.file.exists() else {}
        self.url, self.version, self.total = url, known.get("version"), known.get("total")
        self.most = self.have(trust=True)

    @property
    def complete(self) -> bool:
        """All bytes are there: whoever fetched them was stopped before the last step."""
        return self.total is not None and self.file.exists() and self.file.stat().st_size == self.total

    def have(self, trust: bool) -> int:
        """How many bytes can be built upon: none of an unknown version, unless a digest will tell."""
        return self.file.stat().st_size if self.file.exists() and (self.version or trust) else 0

    def range(self, have: int) -> dict[str, str]:
        """The request's headers that ask for the rest."""
        unless_changed = {"If-Range": self.version} if self.version else {}
        return {"Range": f"bytes={have}-", **unless_changed} if have else {}

    def begin(self, have: int, response: requests.Response) -> int:
        """Make ready for a response's body; how many bytes stay. Raises FetchError if it does not go on from `have`."""
        version = _version(response)
        if response.status_code == 206:
            span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
            total = int(span[2]) if span and span[2].isdigit() else self.total
            same = version in (None, self.version) and self.total in (None, total)
            if not (span and int(span[1]) == have and same):
                self.remove()
                raise FetchError("the file changed at the server while it was fetched", again=True)
            return have
        if response.status_code == 416:  # the file is shorter now than what was to be left out
            self.remove()
            raise FetchError("the file changed at the server while it was fetched", again=True)
        length = response.headers.get("Content-Length", "")
        self.remove()
        self.version, self.total = version, int(length) if length.isdigit() else None
        write_json(self.note, {"url": self.url, "version": self.version, "total": self.total})
        return 0

    def grown(self, count: int) -> int:
        """By how much it is longer than it ever was: one that comes from its beginning each time does not grow."""
        before, self.most = self.most, max(self.most, count)
        return self.most - before

    def remove(self) -> None:
        """The bytes first, so that the note never speaks of others."""
        self.file.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)
        self.version = self.total = None

    def become(self, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        move(self.file, target)
        self.remove()


def _version(response: requests.Response) -> str | None:
    """What names these very bytes; a weak ETag does not."""
    tag = response.headers.get("ETag", "W/")
    return response.headers.get("Last-Modified") if tag.startswith("W/") else tag
