"""The inputs of a model from a dataset: a cache for each tower, and the splits of the manifest."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from rap import paths
from rap.data.manifest import Manifest
from rap.errors import UserError
from rap.features.cache import Cache, choose, stems
from rap.params import Params
from rap.retrieval.model import Retriever


@dataclass(frozen=True)
class Split:
    """The usable part of a split: `captions` (rows of the manifest) of `videos` (ids), out of `total` listed videos."""

    videos: list[str]
    captions: pd.DataFrame
    total: int

    @cached_property
    def owner(self) -> np.ndarray:
        """The place of each caption's video in `videos`, [captions]."""
        return self.captions.video_id.map({id: place for place, id in enumerate(self.videos)}).to_numpy(int)


@dataclass(frozen=True)
class Corpus:
    """The deepest caches that a model can start from, and the manifest."""

    video: Cache
    text: Cache
    manifest: Manifest

    def split(self, name: str) -> Split:
        """The decoded videos of a split with their captions. Raises UserError if there is none."""
        part = self.manifest.split(name)
        videos = [id for id in part.videos.video_id if id in self.video]
        captions = part.captions[part.captions.video_id.isin(videos)].reset_index(drop=True)
        if captions.empty:
            raise UserError(f"dataset: split {name!r} has no usable video with a caption; see `rap dataset stats`")
        return Split(videos, captions, len(part.videos))


def open_corpus(params: Params, model: Retriever) -> Corpus:
    """Raises UserError if a cache or the manifest is absent or damaged."""
    video, text = _caches(params, model)
    manifest = Manifest.read(paths.manifest(params.dataset.name))
    clips = Cache(params, video, model.clip.visual, model.adapter.shuffled)
    return Corpus(clips, Cache(params, text, model.clip.text), manifest)


def records(params: Params, model: Retriever) -> list[str]:
    """The records of everything that `open_corpus` opens."""
    shards = [str(stem.record) for cache in _caches(params, model) for stem in stems(params, cache)]
    return [str(paths.manifest(params.dataset.name).record), *shards]


def _caches(params: Params, model: Retriever) -> tuple[str, str]:
    clip, adapter = model.clip, model.adapter
    video = choose(params, "video", clip.visual, adapter.video.first_block)
    return video, choose(params, "text", clip.text, adapter.text.first_block)
