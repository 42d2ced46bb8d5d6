"""The videos that the manifest lists and the folder lacks: each fetched by its name, several at once.

A video is checked before it gets its name, so that what is in the folder is whole. What is gone for good is written
down, and asked for again only on request.
"""

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock

import pandas as pd
from tqdm import tqdm

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

ENOUGH = 20  # so many failures in a row, none of them for good: the network or the site is what fails, not the videos


Fetcher = Callable[[Source, Path], None]


@dataclass
class Outcome:
    """What became of the videos that were not there."""

    lost: dict[str, str] = field(default_factory=dict)  # path: why it is still not there
    fetched: int = 0
    bytes: int = 0
    dead: int = 0

    def summary(self) -> list[str]:
        """In words, for the stage's one line; empty if nothing was missing."""
        if not (self.fetched or self.lost):
            return []
        again = len(self.lost) - self.dead
        return [
            f"fetched {self.fetched} videos ({self.bytes / 1e6:.1f} MB), "
            f"{self.dead} are gone (--retry-dead asks again), {again} are left to the next run"
        ]


def bring(params: Params, videos: pd.DataFrame, folder: Path, work: Path, retry_dead: bool = False) -> Outcome:
    """Fetch what the folder lacks of the manifest's `videos`, from where `download.videos` or `download.pages` says."""
    settings, outcome = params.download, Outcome()
    if not (template := settings.videos or settings.pages):
        return outcome
    memory = work / "dead.json"
    dead = read_json(memory) if memory.exists() else {}
    wanted, pattern = {}, info(params.dataset.name).name_pattern
    for row in videos.drop_duplicates("path").itertuples():
        if (folder / row.path).exists():
            continue
        found = source(template, pattern, row.video_id, row.path)
        known = dead.get(row.path, {})
        if known.get("url") == found.url and not retry_dead:
            outcome.lost[row.path] = known["reason"]
            outcome.dead += 1
        else:
            wanted[row.path] = found
    for path, error in _fetched(wanted, params, folder, work):
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


def _fetched(
    wanted: dict[str, Source], params: Params, folder: Path, work: Path
) -> Iterator[tuple[str, FetchError | None]]:
    """Each path as it is done with, and why it failed, if it did."""
    stop = Event()
    fetch, patience = _fetcher(params.download, work, stop), Patience(stop)
    pool = ThreadPoolExecutor(params.download.workers)
    jobs = {pool.submit(_one, fetch, found, folder, path, patience): path for path, found in wanted.items()}
    try:
        for job in tqdm(as_completed(jobs), desc="fetch videos", total=len(jobs), unit="video"):
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


def _one(fetch: Fetcher, found: Source, folder: Path, path: str, patience: "Patience") -> FetchError | None:
    if patience.stop.is_set():
        return FetchError("not asked for, after many others failed")
    error = None
    try:
        fetch(found, place(folder, path))
    except ArchiveError as unsafe:
        error = FetchError(str(unsafe))
    except FetchError as failure:
        error = failure
    patience.after(error)
    return error


class Patience:
    """Sets `stop` when ENOUGH videos in a row failed. The worker that saw the last of them sets it, before it takes
    another: no more are asked for than are under way."""

    def __init__(self, stop: Event):
        self.stop, self.failures, self.lock = stop, 0, Lock()

    def after(self, error: FetchError | None) -> None:
        with self.lock:
            self.failures = self.failures + 1 if error and not error.dead else 0
            if self.failures == ENOUGH:
                tqdm.write(f"{ENOUGH} videos in a row failed; the rest is left to the next run", file=sys.stderr)
                self.stop.set()


def check(file: Path) -> None:
    try:
        probe(file)
    except VideoError as error:
        raise FetchError(f"what came is no whole video: {error}") from None
