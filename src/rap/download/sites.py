"""One video from a page of a video site, through yt-dlp: the whole of it, or the seconds that are the clip."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from rap.download.http import refusal
from rap.download.retry import FetchError, patiently
from rap.download.sources import Source
from rap.errors import UserError
from rap.files import digest, move
from rap.frames import ffmpeg
from rap.params import Download

# What sites say to those who ask too often. The video may well be there.
BLOCKED = ("not a bot", "rate-limit", "rate limit", "try again later", "too many requests")


@dataclass(frozen=True)
class Site:
    """Fetches videos into `work`, as the parameters say; gives up soon after `stop` is set."""

    settings: Download
    work: Path
    stop: Event
    cookies: str  # what stands in the user's file of cookies; yt-dlp gets a copy, and never writes to that file

    def fetch(self, source: Source, target: Path, check: Callable[[Path], None]) -> None:
        """Bring the video to `target`. Raises FetchError, also if `check` does."""
        file = patiently(self.settings, self.stop)(self._attempt, source, target)
        try:
            check(file)
        except FetchError:
            file.unlink()
            raise
        target.parent.mkdir(parents=True, exist_ok=True)
        move(file, target)

    def _attempt(self, source: Source, target: Path) -> Path:
        from yt_dlp import YoutubeDL  # here, because it takes a second that other runs need not spend
        from yt_dlp.postprocessor import FFmpegPostProcessor
        from yt_dlp.utils import YoutubeDLError

        FFmpegPostProcessor._ffmpeg_location.set(ffmpeg.binary())  # as its own main does: the option misses downloaders
        try:
            with YoutubeDL(self._options(source, target)) as downloader:
                found = downloader.extract_info(source.url)
        except YoutubeDLError as error:
            raise _reason(error) from None
        for entry in (found, *(found.get("entries") or ())):
            for done in entry.get("requested_downloads") or ():
                if "filepath" in done and (file := Path(done["filepath"])).is_file():
                    return file
        raise FetchError(
            f"yt-dlp took no video: none fits download.format, or download.max_gb ({self.settings.max_gb:g})"
        )

    def _options(self, source: Source, target: Path) -> dict:
        """See yt_dlp.YoutubeDL. No configuration file is read, and nothing is printed."""
        from yt_dlp.utils import download_range_func

        settings = self.settings
        name = str(self.work / digest([source.url, source.span, str(target)])[:16]).replace("%", "%%")
        options = {
            "outtmpl": f"{name}.%(ext)s",
            "format": settings.format,
            "noplaylist": True,
            "playlist_items": "1",
            "max_filesize": int(settings.max_gb * 1e9),
            "ratelimit": settings.rate_limit,
            "sleep_interval": settings.sleep,
            "socket_timeout": settings.timeout,
            "retries": settings.retries,
            "fragment_retries": settings.retries,
            "retry_sleep_functions": dict.fromkeys(("http", "fragment"), lambda n: settings.backoff * 2**n),
            "progress_hooks": [self._heed],
            "logger": Silence(),
            "noprogress": True,
        }
        if self.cookies:
            options["cookiefile"] = io.StringIO(self.cookies)
        if source.span:  # cut at the very instants: the pictures at the borders are encoded anew
            options |= {"download_ranges": download_range_func(None, [source.span]), "force_keyframes_at_cuts": True}
        return options

    def _heed(self, _progress: dict) -> None:
        if self.stop.is_set():
            raise FetchError("stopped")


class Silence:
    """yt-dlp's log: what matters comes back as an exception."""

    def debug(self, message: str) -> None: ...

    info = warning = error = debug


def read_cookies(settings: Download) -> str:
    """The text of a cookies.txt. Raises UserError if there is none."""
    if settings.cookies is None:
        return ""
    try:
        return Path(settings.cookies).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise UserError(f"download.cookies: {settings.cookies} cannot be read; name a cookies.txt") from None


def _reason(error: Exception) -> FetchError:
    """What yt-dlp's error means: the page was refused, the site says no, or something went wrong on the way."""
    from yt_dlp.networking.exceptions import HTTPError, TransportError
    from yt_dlp.utils import ExtractorError

    met = error.__context__
    if not isinstance(met, ExtractorError):  # the page was read, but the video did not come, after all of `retries`
        return FetchError(_line(error))
    if isinstance(met.cause, HTTPError):
        return refusal(met.cause.status, met.cause.reason)
    words = _line(met.orig_msg)
    if isinstance(met.cause, TransportError):
        return FetchError(words, again=True)
    blocked = any(sign in words.lower() for sign in BLOCKED)
    return FetchError(words, dead=met.expected and not blocked)


def _line(words: object) -> str:
    return " ".join(str(words).removeprefix("ERROR: ").split())[:200]
