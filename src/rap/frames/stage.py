"""The frames stage: each video to T pictures of the backbone's size, by an ffmpeg process or the decoder `sparse`.

A picture is taken at the middle of each of T equal segments of the clip, by the clock: it is the one that a player
shows at that instant, whatever the frame rate. It is then scaled, shortest side first, and cropped at its centre, as
CLIP's own transform does it with PIL. docs/frames.md says how close the two are.
"""

import math
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import ffmpeg
import numpy as np
from tqdm import tqdm

from rap import shards
from rap.data.datasets import videos_folder
from rap.data.manifest import Manifest
from rap.errors import UserError
from rap.files import digest, digest_file, read_json
from rap.frames import ffmpeg as tool
from rap.frames import libav, sparse
from rap.frames.ffmpeg import VideoError
from rap.frames.pixels import FORMAT, KERNELS, filters
from rap.frames.probe import probe, regular
from rap.params import Frames, Params

RECIPE = 2  # raise it when the filters change: every frame is then decoded anew
# Seconds by which each segment is shortened at either end. An instant at which one picture gives way to the next is
# thereby drawn to the middle of the clip: a clip and its reversal give the same pictures. ffmpeg counts microseconds.
TICK = 2e-6


@dataclass(frozen=True)
class Recipe:
    """All that decides the pixels of a clip, besides the video."""

    frames: Frames
    size: int
    interpolation: str

    def key(self, video: NamedTuple) -> str:
        sampler = {"name": self.frames.sampler, "count": self.frames.count}
        if self.frames.sampler == "fps":
            sampler["fps"] = self.frames.fps
        span = [None if math.isnan(t) else t for t in (video.start, video.end)]
        picture = {"size": self.size, "interpolation": self.interpolation}
        # Rows of the first decoder have no name for it in their keys: they were made when there was no other.
        decoder = ["sparse", *libav.version()] if self.frames.decoder == "sparse" else []
        return digest([video.digest, span, sampler, picture, RECIPE, tool.version(), *decoder])


def run(params: Params, shard: int) -> str:
    """Write data/DATASET/frames/shard-K.npy, [videos, T, size, size, 3] uint8, and its index.

    A video that fails keeps a row with the reason. Raises UserError, after the shard is written, if the videos that
    failed here and at the download are more than `dataset.max_failed` of all.
    """
    manifest = Manifest.read(params.data / "manifest")
    recipe = read_recipe(params)
    videos = {video.video_id: video for video in manifest.shard(shard, len(params.shards)).videos.itertuples()}
    keys = {name: recipe.key(video) for name, video in videos.items()}
    shape = (recipe.frames.count, recipe.size, recipe.size, 3)
    cut = partial(cut_clip, recipe=recipe, folder=videos_folder(params))
    work = partial(_cut_all, cut, videos, params.runtime.workers, f"frames {shard}")
    stem = params.data / "frames" / f"shard-{shard}"
    made, computed = shards.build(stem, keys, shape, "uint8", work)
    failed = made.index[made.index.reason != ""]
    elsewhere = (manifest.videos.status != "ok").sum() - sum(video.status != "ok" for video in videos.values())
    _stop_if_too_many(params, failed, elsewhere, len(manifest.videos), stem)
    return (
        f"{stem}: {len(keys) - len(failed)} of {len(keys)} videos, {recipe.frames.count} frames of {recipe.size} px "
        f"each; {computed} made now, {len(failed)} failed"
    )


def read_recipe(params: Params) -> Recipe:
    path = params.backbone_folder / "config.json"
    if not path.exists():
        raise UserError(f"{path}: not there; run `rap backbone` first")
    return prepare(params.frames, read_json(path)["preprocess"], str(path))


def prepare(frames: Frames, preprocess: dict, where: str) -> Recipe:
    """The recipe for a backbone, from its config's `preprocess`. Raises UserError, naming `where`, if it has none."""
    if preprocess["resize_mode"] != "shortest" or preprocess["interpolation"] not in KERNELS:
        raise UserError(
            f"{where}: preprocessing by {preprocess['resize_mode']}, {preprocess['interpolation']} is not supported; "
            f"choose a backbone with shortest and one of {', '.join(KERNELS)}"
        )
    return Recipe(frames, preprocess["size"], preprocess["interpolation"])


def cut_clip(video: NamedTuple, recipe: Recipe, folder: Path) -> shards.Item:
    """Decode the frames of one row of the manifest's videos."""
    if video.status != "ok":
        return shards.Item(video.video_id, reason=video.reason)
    path = folder / video.path
    try:
        regular(path)
        if digest_file(path) != video.digest:
            raise VideoError("changed since the manifest was made; run `rap download` again")
        array = decode(path, recipe, video.start, video.end)
    except VideoError as error:
        return shards.Item(video.video_id, reason=str(error))
    padded = np.zeros((recipe.frames.count, *array.shape[1:]), np.uint8)
    padded[: len(array)] = array
    return shards.Item(video.video_id, padded, len(array))


def decode(path: Path, recipe: Recipe, start: float = math.nan, end: float = math.nan) -> np.ndarray:
    """The frames of the clip from `start` to `end` seconds (NaN: the video's own), [frames, size, size, 3] uint8 RGB.

    Raises VideoError with ffmpeg's last words, whichever decoder is asked first.
    """
    span = probe(path)
    begin = span.start if math.isnan(start) else start
    stop = span.end if math.isnan(end) else min(end, span.end)
    if not begin < stop:
        raise VideoError(f"its clip starts at {begin:.2f} s, but its pictures end at {span.end:.2f} s")
    count = frame_count(recipe.frames, stop - begin)
    step, first = (stop - begin) / count - 2 * TICK, span.zero + begin + count * TICK
    if recipe.frames.decoder == "sparse":
        with suppress(sparse.Unsure):
            return sparse.cut(path, span, recipe.size, recipe.interpolation, first, step, count)
    cut = partial(_cut, path, recipe, first, step, count, timeout=60 + 10 * span.end)
    if not (span.indexed and begin > span.start):
        return cut(seek=0.0)
    try:
        return cut(seek=begin)
    except VideoError:  # the pictures at a key frame may refer to ones before it: decode from the start
        return cut(seek=0.0)


def frame_count(frames: Frames, seconds: float) -> int:
    """How many equal segments a clip is cut into; a picture is taken at the middle of each."""
    if frames.sampler == "uniform":
        return frames.count
    return min(frames.count, max(1, round(seconds * frames.fps)))


def _cut(path: Path, recipe: Recipe, first: float, step: float, count: int, seek: float, timeout: float) -> np.ndarray:
    """`count` frames, each from the middle of `step` seconds, from `first` on by the container's clock, by ffmpeg.

    Decoding starts at the key frame before `seek` seconds: nothing is missed.
    """
    raw = tool.run(_command(path, recipe, seek, first, step, count), timeout)
    bytes_each = recipe.size * recipe.size * 3
    if len(raw) != count * bytes_each:
        raise VideoError(f"ffmpeg: gave {len(raw) // bytes_each} of {count} frames")
    return np.frombuffer(raw, np.uint8).reshape(count, recipe.size, recipe.size, 3)


def _command(path: Path, recipe: Recipe, seek: float, first: float, step: float, count: int) -> list[str]:
    whitelists = {"format_whitelist": tool.FORMATS, "protocol_whitelist": tool.PROTOCOLS}
    jump = {"noaccurate_seek": None, "ss": f"{seek:.6f}"} if seek else {}
    clip = ffmpeg.input(tool.url(path), **whitelists, **jump, threads=1)["V:0"]
    # fps with round=near gives, for step n, the last picture that comes before the step's middle.
    clip = clip.filter("settb", "AVTB").filter("fps", f"{1 / step:.12f}", start_time=f"{first:.6f}", round="near")
    for name, options in filters(recipe.size, recipe.interpolation):
        clip = clip.filter(name, **options)
    output = {"format": "rawvideo", "pix_fmt": FORMAT, "fps_mode": "passthrough", "frames:v": count, "threads": 1}
    strict = ("-nostdin", "-copyts", "-v", "error", "-xerror", "-filter_complex_threads", "1")
    return clip.output("pipe:", **output).global_args(*strict).compile(cmd=tool.binary())


def _cut_all(cut, videos: dict, workers: int, title: str, ids: list[str]) -> Iterator[shards.Item]:
    """Items in the order in which they are done; what waits in memory is no more than what is being decoded."""
    pool = ThreadPoolExecutor(workers)
    try:
        done: Iterator[Future] = as_completed({pool.submit(cut, videos[id]) for id in ids})
        for future in tqdm(done, desc=title, total=len(ids), unit="video"):
            item: shards.Item = future.result()
            if item.reason:
                tqdm.write(f"failed: {item.id}: {item.reason}", file=sys.stderr)
            yield item
    finally:
        pool.shutdown(cancel_futures=True)


def _stop_if_too_many(params: Params, failed, elsewhere: int, total: int, stem: Path) -> None:
    count = len(failed) + elsewhere
    if count <= params.dataset.max_failed * total:
        return
    first = f"{failed.id.iloc[0]}: {failed.reason.iloc[0]}" if len(failed) else "see the manifest"
    raise UserError(
        f"{stem}: {count} of {total} videos failed; dataset.max_failed ({params.dataset.max_failed:g}) allows fewer; "
        f"the first here is {first}; {stem}.parquet has the reasons: mend those videos, or raise the limit"
    )
