"""One file over HTTP(S): goes on where it broke off, is checked, and is whole or absent.

The unfinished file lies in a folder of its own beside a note of which version of the remote file its bytes are from
(its ETag, or the time of its last change). The rest is asked for with Range and If-Range (RFC 9110, 13.1.5 and 14.2):
if the file has changed, or the server knows no ranges, it comes from its beginning.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from urllib.parse import urlsplit

import requests
from tqdm import tqdm
from urllib3.exceptions import HTTPError, InvalidHeader
from urllib3.util import Retry

from rap.data.fetch.retry import AGAIN, FetchError, patiently
from rap.files import digest, digest_file, move, read_json, write_json
from rap.params import Download

CHUNK = 1 << 20
HEADERS = {"User-Agent": "rap-retrieval", "Accept-Encoding": "identity"}


@dataclass(frozen=True)
class Http:
    """Fetches files into `work`, as the parameters say; gives up soon after `stop` is set."""

    settings: Download
    work: Path
    stop: Event

    def fetch(
        self,
        url: str,
        target: Path,
        *,
        size: int | None = None,
        sha256: str | None = None,
        check: Callable[[Path], None] = lambda file: None,
        bar: tqdm | None = None,
    ) -> None:
        """Bring `url` to `target`. Raises FetchError, also if the size in bytes, the digest or `check` (which raises
        FetchError) say no."""
        part = Part(self.work, url, target)
        patiently(self.settings, self.stop)(self._attempt, url, part, size, sha256, bar)
        try:
            check(part.file)
        except FetchError:
            part.remove()
            raise
        part.become(target)

    def _attempt(self, url: str, part: "Part", size: int | None, sha256: str | None, bar: tqdm | None) -> None:
        have = 0
        if not part.complete:
            have = part.have(trust=bool(sha256))
            with _get(url, part.range(have), self.settings.timeout) as response:
                have = part.begin(have, response)
                self._allow(part.total, size)
                self._append(response, part, have, bar)
        try:
            if not (length := part.file.stat().st_size):
                raise FetchError("the server sent an empty file", again=True)
            self._allow(length, size)
            if sha256 and (found := digest_file(part.file)) != sha256:
                reason = f"wrong bytes: their SHA-256 is {found}, not {sha256}"
                raise FetchError(reason, again=have > 0)  # parts of two versions may have been joined
        except FetchError:
            part.remove()
            raise

    def _append(self, response: requests.Response, part: "Part", have: int, bar: tqdm | None) -> None:
        came, broke = have, ""
        if bar is not None:
            bar.reset(part.total)
            bar.update(have)
        try:
            with part.file.open("ab") as file:
                while data := response.raw.read1(CHUNK, decode_content=False):
                    came += file.write(data)
                    file.flush()
                    self._allow(came)
                    if bar is not None:
                        bar.update(len(data))
                    if self.stop.is_set():
                        raise FetchError("stopped")
        except HTTPError as error:
            broke = _root(error)
        if broke or part.total not in (None, came):
            reason = f"broke off after {came} of {part.total or 'unknown'} bytes ({broke or 'connection closed'})"
            raise FetchError(reason, again=True, gained=part.grown(came))

    def _allow(self, count: int | None, size: int | None = None) -> None:
        if count is not None and count > self.settings.max_gb * 1e9:
            raise FetchError(f"larger than download.max_gb allows ({self.settings.max_gb:g})")
        if size is not None and count not in (None, size):
            raise FetchError(f"wrong size: the server has {count} bytes, not {size}")


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


def refusal(status: int, reason: str, wait: float = 0.0) -> FetchError:
    """What a status of 400 or more means: some pass, those of the server's own faults may, the others stay."""
    again = status in AGAIN
    return FetchError(f"{status} {reason}".strip(), again=again, dead=status < 500 and not again, wait=wait)


def _get(url: str, headers: dict[str, str], timeout: float) -> requests.Response:
    """A response with a file in its body, not yet read. Redirects are followed, to HTTP(S) only."""
    host = urlsplit(url).hostname
    try:
        response = requests.get(url, headers=HEADERS | headers, stream=True, timeout=timeout)
    except requests.Timeout:
        raise FetchError(f"{host}: no answer within {timeout:g} s", again=True) from None
    except requests.ConnectionError as error:
        raise FetchError(f"{host}: no connection: {_root(error)}", again=True) from None
    except requests.RequestException as error:  # a bad URL, a redirect to another protocol, a circle of redirects
        raise FetchError(f"{host}: {_root(error)}", dead=True) from None
    if response.status_code not in (200, 206, 416):
        response.close()
        raise refusal(response.status_code, response.reason, _wait(response))
    if response.headers.get("Content-Type", "").startswith("text/html") and response.ok:
        response.close()
        raise FetchError(f"{host}: sent a web page, not a file")
    return response


def _version(response: requests.Response) -> str | None:
    """What names these very bytes; a weak ETag does not."""
    tag = response.headers.get("ETag", "W/")
    return response.headers.get("Last-Modified") if tag.startswith("W/") else tag


def _wait(response: requests.Response) -> float:
    """Seconds that the server asks to be left alone for."""
    try:
        return Retry().parse_retry_after(response.headers.get("Retry-After", "0"))
    except InvalidHeader:
        return 0.0


def _root(error: BaseException) -> str:
    """The words of the first of a chain of errors, in one line; the others repeat addresses."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    return " ".join((getattr(error, "strerror", None) or str(error) or type(error).__name__).split())
