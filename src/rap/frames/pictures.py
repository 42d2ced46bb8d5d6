"""Frames of single clips for display, and the reasons why clips have none."""

from functools import cached_property

import numpy as np

from rap import paths
from rap.data.manifest import Manifest, Video
from rap.errors import UserError
from rap.frames.stage import Cutter, cutter
from rap.params import Params
from rap.shards import Shard


class Pictures:
    """The frames of a dataset, stored or, with `frames.store: false`, decoded on request."""

    def __init__(self, params: Params):
        self.params = params

    def strip(self, id: str, most: int) -> np.ndarray:
        """At most `most` evenly spaced frames of a clip, uint8 [n, size, size, 3]. Raises UserError if it has none."""
        frames, valid = self._stored(id) if self.params.frames.store else self._decoded(id)
        return frames[np.linspace(0, valid - 1, min(most, valid)).round().astype(int)]

    def _stored(self, id: str) -> tuple[np.ndarray, int]:
        for number in self.params.shards:
            shard = Shard.read(paths.frames(self.params.dataset.name, number))
            found = np.flatnonzero(shard.index.id == id)
            if len(found) and not shard.index.reason.iloc[found[0]]:
                return shard.rows(found[:1])[0], int(shard.index.length.iloc[found[0]])
        raise UserError(f"{id}: it has no frames; run `dvc repro frames`")

    def _decoded(self, id: str) -> tuple[np.ndarray, int]:
        if id not in self._videos:
            raise UserError(f"{id}: the manifest does not list it; run `rap download`")
        (item,) = self._cut([self._videos[id]])
        if item.array is None:
            raise UserError(f"{id}: {item.reason}")
        return item.array, item.length

    @cached_property
    def _videos(self) -> dict[str, Video]:
        rows = Manifest.read(paths.manifest(self.params.dataset.name)).rows()
        return {video.video_id: video for video in rows}

    @cached_property
    def _cut(self) -> Cutter:
        return cutter(self.params)


def reasons(params: Params) -> dict[str, str]:
    """Why clips cannot be decoded, by id, and "" for decodable clips, for all clips tried so far.

    Read from the shards of the frames or, if frames are not stored, of the first video cache.
    """
    name = params.dataset.name
    stems = [paths.frames(name, shard) for shard in params.shards]
    if not params.frames.store:
        cache = next((cache for cache in params.features.caches if cache.startswith("video")), "video-all")
        stems = [paths.features(name, cache, shard) for shard in params.shards]
    found: dict[str, str] = {}
    for stem in stems:
        if stem.index.exists():
            index = Shard.read(stem).index
            found |= dict(zip(index.id, index.reason, strict=True))
    return found
