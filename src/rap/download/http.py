"""Fetch one file over HTTP(S): interrupted transfers resume, and the target is a complete, checked file or absent.

Why not a library: of pooch 1.9, pypdl 1.5 and resumable-urlretrieve 0.1.6, none sends If-Range (a resumed file can mix
two versions) or honours Retry-After, and pooch does not resume at all. `requests` and `urllib3` do the transfer,
`tenacity` the retries; resuming is in `rap.download.part`.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from urllib.parse import urljoin, urlsplit

import requests
from tqdm import tqdm
from urllib3.exceptions import HTTPError, InvalidHeader, ReadTimeoutError
from urllib3.util import Retry

from rap.download.part import Part
from rap.download.retry import TEMPORARY, FetchError, retrying
from rap.files import digest_file
from rap.params import Download

CHUNK = 1 << 20
LEAST_RATE = 1000  # bytes per second over `download.timeout`: abort transfers slower than this
HEADERS = {"User-Agent": "rap-retrieval", "Accept-Encoding": "identity"}


@dataclass(frozen=True)
class Http:
    """Fetches files with the given `settings`; `work` holds unfinished files; aborts soon after `stop` is set."""

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
        """Fetch `url` to `target`. Raises FetchError, also if the size in bytes, the digest or `check` (which raises
        FetchError) disagrees."""
        part = Part(self.work, url, target)
        retrying(self.settings, self.stop)(self._attempt, url, part, size, sha256, bar)
        try:
            check(part.file)
        except FetchError:
            part.remove()
            raise
        part.become(target)

    def _attempt(self, url: str, part: Part, size: int | None, sha256: str | None, bar: tqdm | None) -> None:
        have = 0
        if not part.complete:
            have = part.have(trust=bool(sha256))
            with _get(url, part.range(have), self.settings) as response:
                have = part.begin(have, response)
                self._check_size(part.total, size)
                self._append(response, part, have, bar)
        try:
            if not (length := part.file.stat().st_size):
                raise FetchError("the server sent an empty file", again=True)
            self._check_size(length, size)
            if sha256 and (found := digest_file(part.file)) != sha256:
                reason = f"wrong content: its SHA-256 is {found}, not {sha256}"
                raise FetchError(reason, again=have > 0)  # a resumed file may mix two versions
        except FetchError:
            part.remove()
            raise

    def _append(self, response: requests.Response, part: Part, have: int, bar: tqdm | None) -> None:
        received, slow = have, _Slow(self.settings.timeout)
        if bar is not None:
            bar.reset(part.total)
            bar.update(have)
        try:
            with part.file.open("ab") as file:
                while data := response.raw.read1(CHUNK, decode_content=False):
                    received += file.write(data)
                    file.flush()
                    self._check_size(received)
                    slow.check(received - have)
                    if bar is not None:
                        bar.update(len(data))
                    if self.stop.is_set():
                        raise FetchError("stopped")
        except HTTPError as error:  # includes a body that is shorter than its Content-Length
            why = "timeout" if isinstance(error, ReadTimeoutError) else "connection lost"
            reason = f"interrupted after {received} of {part.total or 'unknown'} bytes: {why}"
            raise FetchError(reason, again=True, gained=part.growth(received)) from None

    def _check_size(self, count: int | None, size: int | None = None) -> None:
        if count is not None and count > self.settings.max_gb * 1e9:
            raise FetchError(f"larger than download.max_gb ({self.settings.max_gb:g})")
        if size is not None and count not in (None, size):
            raise FetchError(f"wrong size: the server has {count} bytes, not {size}")


class _Slow:
    """Aborts a transfer that was slower than LEAST_RATE over the last `window` seconds."""

    def __init__(self, window: float):
        self.window, self.since, self.had = window, time.monotonic(), 0

    def check(self, received: int) -> None:
        """Raises FetchError for a slow transfer; the next attempt resumes it."""
        taken = time.monotonic() - self.since
        if taken < self.window:
            return
        gained = received - self.had
        if gained < LEAST_RATE * taken:
            raise FetchError(f"slower than {LEAST_RATE} bytes a second for {taken:.0f} s", again=True, gained=gained)
        self.since, self.had = time.monotonic(), received


def refusal(status: int, reason: str, wait: float = 0.0) -> FetchError:
    """The error for an HTTP status of 400 or more: temporary, dead (other client errors), or left to the next run."""
    again = status in TEMPORARY
    return FetchError(f"{status} {reason}".strip(), again=again, dead=status < 500 and not again, wait=wait)


class _Session(requests.Session):
    """Asks for consent before it follows a redirect."""

    def __init__(self, hosts: tuple[str, ...]):
        super().__init__()
        self.hosts = hosts

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        target = super().get_redirect_target(resp)
        if target and (reason := refused(resp.url, urljoin(resp.url, target), self.hosts)):
            resp.close()
            raise FetchError(f"{urlsplit(resp.url).hostname}: redirects {reason}")
        return target


def _get(url: str, headers: dict[str, str], settings: Download) -> requests.Response:
    """A response whose body is an unread file. Follows redirects to HTTP(S) only."""
    host, timeout = urlsplit(url).hostname, settings.timeout
    try:
        response = _Session(settings.hosts).get(url, headers=HEADERS | headers, stream=True, timeout=timeout)
    except requests.Timeout:
        raise FetchError(f"{host}: no answer within {timeout:g} s", again=True) from None
    except requests.ConnectionError as error:
        raise FetchError(f"{host}: no connection: {_root(error)}", again=True) from None
    except requests.RequestException as error:  # an invalid URL, or a redirect loop or one to another protocol
        raise FetchError(f"{host}: {_root(error)}", dead=True) from None
    if response.status_code not in (200, 206, 416):
        response.close()
        raise refusal(response.status_code, response.reason, _wait(response))
    if response.headers.get("Content-Type", "").startswith("text/html") and response.ok:
        response.close()
        raise FetchError(f"{host}: sent a web page instead of a file")
    return response


def refused(before: str, after: str, hosts: tuple[str, ...]) -> str:
    """Why a redirect from one address to another is not followed, or an empty text.

    Without https, others can read and change the data. Another host may be any host, even one in the user's own
    network; subdomains of the present host are allowed.
    """
    old, new = urlsplit(before), urlsplit(after)
    if old.scheme == "https" and new.scheme != "https":
        return "from https to http; if you consent, name the http address"
    if new.scheme in ("http", "https") and not any(
        _is_below(new.hostname or "", host) for host in (old.hostname or "", *hosts)
    ):
        return f"to {new.hostname}; if you consent, add it to download.hosts"
    return ""


def _is_below(host: str, domain: str) -> bool:
    return host == domain or host.endswith(f".{domain}")


def _wait(response: requests.Response) -> float:
    """The seconds of Retry-After; 0 without it."""
    try:
        return Retry().parse_retry_after(response.headers.get("Retry-After", "0"))
    except InvalidHeader:
        return 0.0


def _root(error: BaseException) -> str:
    """The message of the first error in a chain, in one line; later errors repeat addresses."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    return " ".join((getattr(error, "strerror", None) or str(error) or type(error).__name__).split())
