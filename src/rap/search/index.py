"""The index: one embedding per video, computed by an adapter from the feature cache.

An index belongs to one adapter, named by its digest, and every row to the cached content of its video. Unchanged rows
are kept, so a new video costs one row, and an index never serves another adapter.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch

from rap import paths
from rap.data.manifest import Manifest
from rap.errors import UserError
from rap.features.cache import Cache, choose
from rap.files import digest
from rap.params import Params
from rap.progress import progress
from rap.retrieval.adapter_file import Header
from rap.retrieval.pretrained import Pretrained
from rap.retrieval.scoring import parts
from rap.runtime.alone import alone, remove_temporary
from rap.shards import Item, build, seal, untracked


@dataclass(frozen=True)
class Index:
    """`videos`: a row of the manifest for each of `embeddings`, float32 [V, E], L2-normalised, memory-mapped.

    `stem`: of its files.
    """

    videos: pd.DataFrame
    embeddings: np.ndarray
    stem: paths.ShardStem

    @cached_property
    def names(self) -> dict[str, int]:
        """The first row of each video's id and path."""
        rows = range(len(self.videos))[::-1]
        files, ids = (dict(zip(self.videos[name].iloc[::-1], rows, strict=True)) for name in ("path", "video_id"))
        return files | ids

    @cached_property
    def split(self) -> pd.Categorical:
        """The split of each row."""
        return pd.Categorical(self.videos.split)


def refresh(params: Params, model: Pretrained) -> tuple[Index, int]:
    """The up-to-date index of the dataset's videos for a model, and how many embeddings were computed for it.

    Written to data/DATASET/index/. Raises UserError if the caches hold other frames than the model was trained on, or
    if the method has no embedding of a video without a text.
    """
    model.refuse_conditioned()
    _refuse_other_frames(params, model)
    tower, adapter = model.model.clip.visual, model.model.adapter
    cache = Cache(params, choose(params, "video", tower, adapter.video.first_block), tower, adapter.shuffled)
    videos = Manifest.read(paths.manifest(params.dataset.name)).videos
    videos = videos[[id in cache for id in videos.video_id]].reset_index(drop=True)
    if videos.empty:
        raise UserError("search: no video could be decoded; `rap dataset stats` says why")
    keys = {id: digest([cache.checksums[id], model.digest]) for id in videos.video_id}

    def compute(ids: list[str]) -> Iterator[Item]:
        with progress(total=len(ids), desc="index", unit="video", leave=False) as bar, torch.no_grad():
            for part in parts(ids, params.features.batch):
                found = model.model.video(cache.batch(part).to(model.device)).float().cpu().numpy()
                yield from (Item(id, row, 1) for id, row in zip(part, found, strict=True))
                bar.update(len(part))

    stem = paths.index(params.dataset.name, model.digest)
    with alone(stem.record, "rap search"):
        remove_temporary([stem.index, stem.record])
        shard, made = build(stem, keys, (model.model.clip.embed_dim,), "float32", compute, params.features.batch)
        seal(shard, untracked)
    return Index(videos, shard.array, stem), made


def best(cosines: np.ndarray, top: int) -> np.ndarray:
    """The rows of the `top` largest cosines, best first. Exact; ties in row order."""
    top = min(top, len(cosines))
    least = np.partition(cosines, -top)[-top]
    rows = np.flatnonzero(cosines >= least)  # only these are sorted, not all rows
    return rows[np.argsort(-cosines[rows], kind="stable")][:top]


def other_frames(params: Params, header: Header) -> list[str]:
    """The keys of `frames` in which params.yaml differs from the training of the adapter with this header."""
    cached, wanted = (frames.model_dump(mode="json") for frames in (params.frames.sampling, header.frames))
    read = [key for key in wanted if key != "fps" or wanted["sampler"] == "fps"]
    return [key for key in read if cached.get(key) != wanted[key]]


def _refuse_other_frames(params: Params, model: Pretrained) -> None:
    for key in other_frames(params, model.header):
        raise UserError(
            f"params.yaml: frames.{key} is {getattr(params.frames, key)}, and the adapter was trained with "
            f"{getattr(model.header.frames, key)}; set it to that and run `rap index` first"
        )
