"""The download stage: the dataset's videos in place, each looked at and digested, and the manifest that lists them."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from rap.data import datasets
from rap.data.ffmpeg import VideoError
from rap.data.manifest import SPLITS, VIDEO_COLUMNS, Manifest
from rap.data.probe import probe
from rap.errors import UserError
from rap.files import digest_file
from rap.params import Params


def run(params: Params) -> str:
    """Write data/DATASET/manifest/{videos,captions}.parquet.

    A video that is absent or cannot be opened keeps its row, with status failed and the reason, and goes to stderr in
    one line. Raises UserError if more than `dataset.max_failed` of them fail; then there is no manifest, an older
    one's included, so that no later stage takes an incomplete download for a finished one. Videos stay where they are.
    """
    manifest = datasets.prepare(params)
    folder = params.data / "manifest"
    videos = look_at(manifest.videos, datasets.videos_folder(params), params.runtime.workers)
    failed = videos[videos.status == "failed"]
    if len(failed) > params.dataset.max_failed * len(videos):
        Manifest.remove(folder)
        raise UserError(
            f"download: {len(failed)} of {len(videos)} videos failed, more than dataset.max_failed allows "
            f"({params.dataset.max_failed:g}); the first is {failed.path.iloc[0]}: {failed.reason.iloc[0]}; "
            "mend them, remove their rows, or raise the limit"
        )
    Manifest(videos, manifest.captions).write(folder)
    splits = ", ".join(f"{name} {(videos.split == name).sum()}" for name in SPLITS)
    return f"{folder}: {len(videos)} videos ({splits}), {len(manifest.captions)} captions, {len(failed)} failed"


def look_at(videos: pd.DataFrame, folder: Path, workers: int) -> pd.DataFrame:
    """Fill in digest, status and reason; a file is read once, however many clips it has."""
    paths = list(dict.fromkeys(videos.path))
    pool = ThreadPoolExecutor(workers)
    try:
        seen = pool.map(lambda path: _examine(folder / path), paths)
        found = dict(zip(paths, tqdm(seen, desc="look at videos", total=len(paths), unit="video"), strict=True))
    finally:
        pool.shutdown(cancel_futures=True)
    for path, (_, reason) in found.items():
        if reason:
            tqdm.write(f"failed: {path}: {reason}", file=sys.stderr)
    digests = [found[path][0] for path in videos.path]
    reasons = [found[path][1] for path in videos.path]
    status = ["failed" if reason else "ok" for reason in reasons]
    return videos.assign(digest=digests, status=status, reason=reasons).astype(VIDEO_COLUMNS)


def _examine(path: Path) -> tuple[str, str]:
    """The file's digest and an empty reason, or an empty digest and why it failed."""
    try:
        probe(path)
        return digest_file(path), ""
    except VideoError as error:
        return "", str(error)
