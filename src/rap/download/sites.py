"""Fetch one video, or some seconds of it, from the page of a video site with yt-dlp."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from rap.download.http import refusal
from rap.download.retry import FetchError, retrying
from rap.download.sources import Source
from rap.errors import UserError
from rap.files import digest, move
from rap.frames import ffmpeg
from rap.params import Download

# Messages of sites to clients with too many requests: the link is not dead.
BLOCKED = ("not a bot", "rate-limit", "rate limit", "try again later", "too many requests")


@dataclass(frozen=True)
class Site:
    """Fetches videos with the given `settings`; `work` holds unfinished files; aborts soon after `stop` is set."""

    settings: Download
    work: Path
    stop: Event
    cookies: str  # the text of the user's cookies.txt: yt-dlp gets a copy, because it writes to its file

    def fetch(self, source: Source, target: Path, check: Callable[[Path], None]) -> None:
        """Fetch the video to `target`. Raises FetchError, also if `check` does."""
        file = retrying(self.settings, self.stop)(self._attempt, source, target)
        try:
            check(file)
        except FetchError:
            file.unlink()
            raise
        target.parent.mkdir(parents=True, exist_ok=True)
        move(file, target)

    def _attempt(self, source: Source, target: Path) -> Path:
        from yt_dlp import YoutubeDL  # imported here: it takes a second
        from yt_dlp.postprocessor import FFmpegPostProcessor
        from yt_dlp.utils import YoutubeDLError

        # As yt-dlp's main does: the option `ffmpeg_location` does not reach its downloaders.
        FFmpegPostProcessor._ffmpeg_location.set(ffmpeg.binary())
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
            f"yt-dlp found no video that fits download.format and download.max_gb ({self.settings.max_gb:g})"
        )

    def _options(self, source: Source, target: Path) -> dict:
        """Options of yt_dlp.YoutubeDL. It reads no configuration file and prints nothing."""
        from yt_dlp.utils import download_range_func

        settings = self.settings
        name = str(self.work / digest([source.url, source.span, str(target)])[:16]).replace("%", "%%")
        options: dict[str, Any] = {
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
            "progress_hooks": [self._check_stop],
            "logger": Silence(),
            "noprogress": True,
        }
        if self.cookies:
            options["cookiefile"] = io.StringIO(self.cookies)
        if source.span:  # exact cuts: pictures at the borders are encoded again
            options |= {"download_ranges": download_range_func(None, [source.span]), "force_keyframes_at_cuts": True}
        return options

    def _check_stop(self, _progress: dict) -> None:
        if self.stop.is_set():
            raise FetchError("stopped")


class Silence:
    """A log for yt-dlp that drops everything: errors are raised as exceptions."""

    def debug(self, message: str) -> None: ...

    info = warning = error = debug


def read_cookies(settings: Download) -> str:
    """The text of `download.cookies`; empty if it is null. Raises UserError if it cannot be read."""
    if settings.cookies is None:
        return ""
    try:
        return Path(settings.cookies).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise UserError(f"download.cookies: {settings.cookies} cannot be read; set it to a cookies.txt") from None


def _reason(error: Exception) -> FetchError:
    """Classify yt-dlp's error: an HTTP status, a network failure, or a message of the site."""
    from yt_dlp.networking.exceptions import HTTPError, TransportError
    from yt_dlp.utils import ExtractorError

    cause = error.__context__
    if not isinstance(cause, ExtractorError):  # the page was read, but the video failed after all `retries`
        return FetchError(_line(error))
    if isinstance(cause.cause, HTTPError):
        return refusal(cause.cause.status, cause.cause.reason)
    message = _line(cause.orig_msg)
    if isinstance(cause.cause, TransportError):
        return FetchError(message, again=True)
    blocked = any(sign in message.lower() for sign in BLOCKED)
    return FetchError(message, dead=cause.expected and not blocked)


def _line(message: object) -> str:
    return " ".join(str(message).removeprefix("ERROR: ").split())[:200]
