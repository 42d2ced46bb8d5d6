"""The frames stage: each video of a shard to T pictures of the backbone's size.

With `frames.store: false` the features stage decodes. This stage then writes only the key of each clip, the digest of
everything that its pictures depend on.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from rap import paths, shards
from rap.data.manifest import Manifest, Video
from rap.data.registry import videos_folder
from rap.errors import UserError
from rap.files import digest, read_json
from rap.frames import ffmpeg, libav
from rap.frames.decode import Files, Recipe, consecutive, cut_clips, prepare
from rap.params import Params, Sampling
from rap.progress import note, progress

if TYPE_CHECKING:
    from rap.jobs import Job

KEY_BYTES = 32  # a key is a SHA-256
HELD = 192  # frames at most in a list of clips: a worker holds them in memory, 29 MB at 224 px


def run(job: "Job", shard: int) -> str:
    """Write data/DATASET/frames/shard-K.npy, [videos, T, size, size, 3] uint8, and its index.

    If frames are not stored, a row is the 32 bytes of the clip's key, and only videos without a file have failed.

    A video that fails keeps a row with the reason. Raises UserError if more than `dataset.max_failed` of all videos
    failed here and at the download; the rows are kept, but the shard is not finished.
    """
    params = job.params
    job.reads(paths.manifest(params.dataset.name).record)
    manifest = Manifest.read(paths.manifest(params.dataset.name))
    folder = paths.backbone(params.backbone.name)
    job.reads(folder.record, folder.config.name)
    recipe = read_recipe(params.frames.sampling, folder)
    videos = {video.video_id: video for video in manifest.shard(shard, len(params.shards)).rows()}
    keys = {name: row_key(recipe, video, job.code) for name, video in videos.items()}
    stem = paths.frames(params.dataset.name, shard)
    if params.frames.store:
        shape: tuple[int, ...] = (recipe.frames.count, recipe.size, recipe.size, 3)
        work = partial(_cut_all, params, videos, f"frames {shard}")
    else:
        shape = (KEY_BYTES,)
        work = partial(_named, videos, keys)
    made, computed = shards.build(stem, keys, shape, "uint8", work)
    failed = count_failed(params, manifest, made)
    shards.seal(made, job.result)
    about = f"{stem}: {len(keys) - failed} of {len(keys)} videos, {recipe.frames.count} frames of {recipe.size} px each"
    done = f"{computed} made now" if params.frames.store else "not stored: `rap features` decodes them"
    return f"{about}; {done}, {failed} failed"


Cutter = Callable[[list[Video]], list[shards.Item]]  # for a list that `together` made


def together(params: Params, videos: Sequence[Video]) -> Iterator[list[Video]]:
    """The videos in their order, in lists that are decoded in one pass; enough lists for every worker."""
    most = min(HELD // params.frames.count, len(videos) // params.runtime.workers)
    return consecutive(videos, max(1, most))


def cutter(params: Params) -> Cutter:
    """The function that decodes a list of `together` to the frames of the backbone."""
    recipe = read_recipe(params.frames.sampling, paths.backbone(params.backbone.name))
    return partial(cut_clips, recipe=recipe, files=Files(videos_folder(params)))


def row_key(recipe: Recipe, video: Video, code: str) -> str:
    """The digest of everything that the frames of a clip depend on; `code`: the digest of the stage's source."""
    sampler: dict[str, Any] = {"name": recipe.frames.sampler, "count": recipe.frames.count}
    if recipe.frames.sampler == "fps":
        sampler["fps"] = recipe.frames.fps
    span = [None if math.isnan(t) else t for t in (video.start, video.end)]
    picture = {"size": recipe.size, "interpolation": recipe.interpolation, "mode": recipe.mode}
    versions = libav.version() if recipe.frames.decoder == "sparse" else []
    decoder = [recipe.frames.decoder, ffmpeg.version(), *versions]
    return digest([video.digest, span, sampler, picture, decoder, code])


def read_recipe(frames: Sampling, backbone: paths.BackboneFolder) -> Recipe:
    """The recipe for the backbone of a folder."""
    return prepare(frames, read_json(backbone.config)["preprocess"], str(backbone.config))


def _cut_all(params: Params, videos: dict[str, Video], title: str, ids: list[str]) -> Iterator[shards.Item]:
    """Yield items as they are finished."""
    cut, pool = cutter(params), ThreadPoolExecutor(params.runtime.workers)
    try:
        lists = together(params, [videos[id] for id in ids])
        done: Iterator[Future] = as_completed({pool.submit(cut, clips) for clips in lists})
        items = (item for future in done for item in future.result())
        for item in progress(items, desc=title, total=len(ids), unit="video"):
            if item.reason:
                note(f"failed: {item.id}: {item.reason}")
            yield item
    finally:
        pool.shutdown(cancel_futures=True)


def _named(videos: dict[str, Video], keys: dict[str, str], ids: list[str]) -> Iterator[shards.Item]:
    for id in ids:
        missing = videos[id].status != "ok"
        key = np.frombuffer(bytes.fromhex(keys[id]), np.uint8)
        yield shards.Item(id, reason=videos[id].reason) if missing else shards.Item(id, key)


def count_failed(params: Params, manifest: Manifest, shard: shards.Shard) -> int:
    """How many videos of a shard failed. Raises UserError if too many failed, missing ones of other shards included."""
    failed, videos = shard.index[shard.index.reason != ""], manifest.videos
    elsewhere = ((videos.status != "ok") & ~videos.video_id.isin(shard.index.id)).sum()
    total, stem = len(videos), shard.stem
    count = len(failed) + elsewhere
    if count <= params.dataset.max_failed * total:
        return len(failed)
    first = f"{failed.id.iloc[0]}: {failed.reason.iloc[0]}" if len(failed) else "see the manifest"
    raise UserError(
        f"{stem}: {count} of {total} videos failed, more than dataset.max_failed allows "
        f"({params.dataset.max_failed:g}); the first here is {first}; {stem.index} has the reasons: replace those "
        "videos, or raise the limit"
    )
