"""Fetch the videos that are in the manifest but not in the folder, several at once.

A video gets its name only after it has been checked, so every video in the folder is complete. Dead links are recorded
and are requested again only with `--retry-dead`.
"""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock

import pandas as pd

from rap.data.registry import info
from rap.download.http import Http
from rap.download.retry import FetchError
from rap.download.sites import Site, read_cookies
from rap.download.sources import Source, source
from rap.download.unpack import ArchiveError, place
from rap.errors import require
from rap.files import read_json, write_json
from rap.frames.ffmpeg import VideoError
from rap.frames.probe import probe
from rap.params import Download, Params
from rap.progress import note, progress

ENOUGH = 20  # failures in a row, none of them a dead link: the cause is the network or the site, not the videos

Fetcher = Callable[[Source, Path], None]


@dataclass
class Outcome:
    """The result for the videos that were missing."""

    lost: dict[str, str] = field(default_factory=dict)  # path to reason, for videos that are still missing
    fetched: int = 0
    bytes: int = 0
    dead: int = 0

    def summary(self) -> list[str]:
        """At most one sentence for the stage's summary."""
        if not (self.fetched or self.lost):
            return []
        return [
            f"fetched {self.fetched} videos ({self.bytes / 1e6:.1f} MB), {self.dead} dead links (--retry-dead tries "
            f"them again), {len(self.lost) - self.dead} failed (the next run tries them again)"
        ]


def bring(params: Params, videos: pd.DataFrame, folder: Path, work: Path, retry_dead: bool = False) -> Outcome:
    """Fetch the manifest's `videos` that are not in `folder`, from `download.videos` or `download.pages`."""
    settings, outcome = params.download, Outcome()
    if not (template := settings.videos or settings.pages):
        return outcome
    memory = work / "dead.json"
    dead = read_json(memory) if memory.exists() else {}
    wanted = {}
    for path, found in _missing(template, info(params.dataset.name).name_pattern, videos, folder).items():
        known = dead.get(path, {})
        if known.get("url") == found.url and not retry_dead:
            outcome.lost[path] = known["reason"]
            outcome.dead += 1
        else:
            wanted[path] = found
    for path, error in _fetched(wanted, settings, folder, work):
        if error is None:
            outcome.fetched += 1
            outcome.bytes += (folder / path).stat().st_size
            dead.pop(path, None)
            continue
        outcome.lost[path] = f"not fetched: {error}"
        if error.dead:
            outcome.dead += 1
            dead[path] = {"url": wanted[path].url, "reason": outcome.lost[path]}
            write_json(memory, dead)
    if dead or memory.exists():
        write_json(memory, dead)
    return outcome


def _missing(template: str, pattern: re.Pattern[str] | None, videos: pd.DataFrame, folder: Path) -> dict[str, Source]:
    """The source of each missing video, by its path."""
    listed = videos.drop_duplicates("path")
    return {
        path: source(template, pattern, video_id, path)
        for video_id, path in zip(listed.video_id, listed.path, strict=True)
        if not (folder / path).exists()
    }


def _fetched(
    wanted: dict[str, Source], settings: Download, folder: Path, work: Path
) -> Iterator[tuple[str, FetchError | None]]:
    """Yield each path when it is finished, with its error if it failed."""
    stop = Event()
    fetch, breaker = _fetcher(settings, work, stop), Breaker(stop)
    pool = ThreadPoolExecutor(settings.workers)
    jobs = {pool.submit(_one, fetch, found, folder, path, breaker): path for path, found in wanted.items()}
    try:
        for job in progress(as_completed(jobs), desc="fetch videos", total=len(jobs), unit="video"):
            yield jobs[job], job.result()
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _fetcher(settings: Download, work: Path, stop: Event) -> Fetcher:
    if settings.videos:
        http = Http(settings, work, stop)
        return lambda found, target: http.fetch(found.url, target, check=check)
    require("yt_dlp", "download")
    site = Site(settings, work, stop, read_cookies(settings))
    return lambda found, target: site.fetch(found, target, check)


def _one(fetch: Fetcher, found: Source, folder: Path, path: str, breaker: "Breaker") -> FetchError | None:
    if breaker.stop.is_set():
        return FetchError("skipped after many failures in a row")
    error = None
    try:
        fetch(found, place(folder, path))
    except ArchiveError as unsafe:
        error = FetchError(str(unsafe))
    except FetchError as failure:
        error = failure
    breaker.count(error)
    return error


class Breaker:
    """Sets `stop` after ENOUGH failures in a row, in the worker with the last failure, before its next video."""

    def __init__(self, stop: Event):
        self.stop, self.failures, self.lock = stop, 0, Lock()

    def count(self, error: FetchError | None) -> None:
        with self.lock:
            self.failures = self.failures + 1 if error and not error.dead else 0
            if self.failures == ENOUGH:
                note(f"{ENOUGH} videos in a row failed; the next run tries the rest")
                self.stop.set()


def check(file: Path) -> None:
    """Raises FetchError unless the file is a complete video."""
    try:
        probe(file)
    except VideoError as error:
        raise FetchError(f"not a complete video: {error}") from None
