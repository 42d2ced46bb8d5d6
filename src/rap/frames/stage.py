"""The frames stage: each video of a shard to T pictures of the backbone's size."""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from rap import paths, shards
from rap.data.manifest import Manifest, Video
from rap.data.registry import videos_folder
from rap.errors import UserError
from rap.files import digest, read_json
from rap.frames import ffmpeg, libav
from rap.frames.decode import Files, Recipe, cut_clip, prepare
from rap.params import Frames, Params
from rap.progress import note, progress

if TYPE_CHECKING:
    from rap.jobs import Job


def run(job: "Job", shard: int) -> str:
    """Write data/DATASET/frames/shard-K.npy, [videos, T, size, size, 3] uint8, and its index.

    A video that fails keeps a row with the reason. Raises UserError if the videos that failed here and at the download
    are more than `dataset.max_failed` of all; the rows are kept, but the shard is not finished.
    """
    params = job.params
    job.reads(paths.manifest(params.dataset.name) / "manifest.json")
    manifest = Manifest.read(paths.manifest(params.dataset.name))
    folder = paths.backbone(params.backbone.name)
    job.reads(folder / "backbone.json")
    recipe = read_recipe(params.frames, folder)
    videos = {video.video_id: video for video in manifest.shard(shard, len(params.shards)).rows()}
    keys = {name: row_key(recipe, video, job.code) for name, video in videos.items()}
    shape = (recipe.frames.count, recipe.size, recipe.size, 3)
    cut = partial(cut_clip, recipe=recipe, files=Files(videos_folder(params)))
    work = partial(_cut_all, cut, videos, params.runtime.workers, f"frames {shard}")
    stem = paths.frames(params.dataset.name, shard)
    made, computed = shards.build(stem, keys, shape, "uint8", work)
    failed = made.index[made.index.reason != ""]
    elsewhere = sum(manifest.videos.status != "ok") - sum(video.status != "ok" for video in videos.values())
    _stop_if_too_many(params, failed, elsewhere, len(manifest.videos), stem)
    shards.seal(made, job.result)
    return (
        f"{stem}: {len(keys) - len(failed)} of {len(keys)} videos, {recipe.frames.count} frames of {recipe.size} px "
        f"each; {computed} made now, {len(failed)} failed"
    )


def row_key(recipe: Recipe, video: Video, code: str) -> str:
    """The digest of what the frames of a clip depend on; `code` is that of the stage's source."""
    sampler: dict[str, Any] = {"name": recipe.frames.sampler, "count": recipe.frames.count}
    if recipe.frames.sampler == "fps":
        sampler["fps"] = recipe.frames.fps
    span = [None if math.isnan(t) else t for t in (video.start, video.end)]
    picture = {"size": recipe.size, "interpolation": recipe.interpolation, "mode": recipe.mode}
    versions = libav.version() if recipe.frames.decoder == "sparse" else []
    decoder = [recipe.frames.decoder, ffmpeg.version(), *versions]
    return digest([video.digest, span, sampler, picture, decoder, code])


def read_recipe(frames: Frames, backbone: Path) -> Recipe:
    """The recipe for the backbone of a folder."""
    return prepare(frames, read_json(backbone / "config.json")["preprocess"], str(backbone / "config.json"))


def _cut_all(
    cut: Callable[[Video], shards.Item], videos: dict[str, Video], workers: int, title: str, ids: list[str]
) -> Iterator[shards.Item]:
    """Yield items as they are finished."""
    pool = ThreadPoolExecutor(workers)
    try:
        done: Iterator[Future] = as_completed({pool.submit(cut, videos[id]) for id in ids})
        for future in progress(done, desc=title, total=len(ids), unit="video"):
            item: shards.Item = future.result()
            if item.reason:
                note(f"failed: {item.id}: {item.reason}")
            yield item
    finally:
        pool.shutdown(cancel_futures=True)


def _stop_if_too_many(params: Params, failed: pd.DataFrame, elsewhere: int, total: int, stem: Path) -> None:
    count = len(failed) + elsewhere
    if count <= params.dataset.max_failed * total:
        return
    first = f"{failed.id.iloc[0]}: {failed.reason.iloc[0]}" if len(failed) else "see the manifest"
    raise UserError(
        f"{stem}: {count} of {total} videos failed, more than dataset.max_failed allows "
        f"({params.dataset.max_failed:g}); the first here is {first}; {stem}.parquet has the reasons: replace those "
        "videos, or raise the limit"
    )
