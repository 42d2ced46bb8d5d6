"""The download stage: fetch the missing videos, inspect and digest each, write the manifest."""

import math
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from rap import paths
from rap.data import registry
from rap.data.manifest import SPLITS, VIDEO_COLUMNS, Manifest
from rap.data.videos import video_files
from rap.download import archives, missing
from rap.download.workplace import workplace
from rap.errors import UserError
from rap.files import digest_file
from rap.frames.ffmpeg import VideoError
from rap.frames.probe import probe
from rap.progress import note, progress

if TYPE_CHECKING:
    from rap.jobs import Job

SHOWN = 5  # failed videos that are named


def run(job: "Job", retry_dead: bool = False) -> str:
    """Fetch what `download` names and the folder lacks; write data/DATASET/manifest/.

    A video that is missing or cannot be opened keeps its row, with status failed and the reason, and is reported on
    stderr in one line. Raises UserError if more than `dataset.max_failed` of them fail, and then removes an older
    manifest, so that no later stage takes an incomplete download for a finished one; the incomplete manifest goes to
    data/DATASET/refused/, for `rap dataset stats`. Existing videos are not changed. Dead links are requested once, and
    again only with `retry_dead`.
    """
    params = job.params
    settings, source = params.download, registry.videos_folder(params)
    fetches = settings.archives or settings.videos or settings.pages
    with workplace(source) if fetches else nullcontext(source) as work:
        brought = archives.bring(settings, source, work)
        manifest = registry.prepare(params)
        found = missing.bring(params, manifest.videos, source, work, retry_dead)
    folder = paths.manifest(params.dataset.name)
    job.reads_external()
    known = _digests(folder)
    videos = inspect(manifest.videos, source, params.runtime.workers, found.lost)
    changed = _report_changed(known, videos)
    failed = videos[videos.status == "failed"]
    if len(failed) > params.dataset.max_failed * len(videos):
        Manifest.remove(folder)
        Manifest(videos, manifest.captions, manifest.notes).write(paths.refused(params.dataset.name), job.result)
        raise UserError(
            f"download: {len(failed)} of {len(videos)} videos failed, more than dataset.max_failed allows "
            f"({params.dataset.max_failed:g}); the first is {failed.path.iloc[0]}: {failed.reason.iloc[0]}; the videos "
            f"are searched in {source}{_unmatched(source, videos)}; `rap dataset stats` counts the reasons; repair "
            "them, remove their rows, or set dataset.max_failed to 1.0 to work with what is there"
        )
    Manifest.remove(paths.refused(params.dataset.name))
    Manifest(videos, manifest.captions, manifest.notes).write(folder, job.result)
    splits = ", ".join(f"{name} {(videos.split == name).sum()}" for name in SPLITS)
    listed = f"{folder}: {len(videos)} videos ({splits}), {len(manifest.captions)} captions, {len(failed)} failed"
    return "; ".join([*brought, *found.summary(), listed, *changed, *manifest.notes, *registry.departures(params)])


def inspect(videos: pd.DataFrame, folder: Path, workers: int, lost: dict[str, str]) -> pd.DataFrame:
    """Fill in digest, duration, status and reason. A file is read once, however many clips it has.

    `lost`: why files could not be fetched, by path.
    """
    names = list(dict.fromkeys(videos.path))
    pool = ThreadPoolExecutor(workers)
    try:
        seen = pool.map(lambda path: Inspection(reason=lost[path]) if path in lost else _examine(folder / path), names)
        found = dict(zip(names, progress(seen, desc="inspect videos", total=len(names), unit="video"), strict=True))
    finally:
        pool.shutdown(cancel_futures=True)
    failed = [f"failed: {path}: {look.reason}" for path, look in found.items() if look.reason]
    more = [f"failed: {len(failed) - SHOWN} more; `rap dataset stats` counts the reasons"] * (len(failed) > SHOWN)
    for line in [*failed[:SHOWN], *more]:
        note(line)
    looks = pd.DataFrame([found[path] for path in videos.path], index=videos.index)
    status = looks.reason.map(lambda reason: "failed" if reason else "ok")
    return videos.assign(**looks, status=status).astype(VIDEO_COLUMNS)


def _digests(folder: Path) -> dict[str, str]:
    """The digest of each file at the last download, by path. Empty if the manifest is absent or damaged."""
    try:
        videos = Manifest.read(folder).videos
    except UserError:
        return {}
    return {path: digest for path, digest in zip(videos.path, videos.digest, strict=True) if digest}


def _report_changed(known: dict[str, str], videos: pd.DataFrame) -> list[str]:
    """Name files whose bytes changed since the last download, the only sign of damage in a readable video. At most one
    sentence for the stage's summary."""
    pairs = dict(zip(videos.path, videos.digest, strict=True))
    changed = [path for path, digest in pairs.items() if digest and known.get(path, digest) != digest]
    for path in changed[:SHOWN]:
        note(f"changed: {path}: other bytes than at the last download; if you did not replace it, restore it")
    return [f"{len(changed)} files have other bytes than at the last download"] if changed else []


def _unmatched(folder: Path, videos: pd.DataFrame) -> str:
    """Some files in the folder that belong to no video: perhaps the names differ. Empty if there are none."""
    known = set(videos.path)
    found = [path.as_posix() for path in video_files(folder) if path.as_posix() not in known] if folder.is_dir() else []
    return f", where {len(found)} files match no video, such as {', '.join(sorted(found)[:3])}" if found else ""


@dataclass(frozen=True)
class Inspection:
    """The digest and the duration in seconds of a usable file, or the reason why it is not usable."""

    digest: str = ""
    duration: float = math.nan
    reason: str = ""


def _examine(path: Path) -> Inspection:
    try:
        span = probe(path)
        return Inspection(digest_file(path), span.end - span.start)
    except VideoError as error:
        return Inspection(reason=str(error))
