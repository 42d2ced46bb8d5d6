"""Frames that are decoded while the model computes, for `frames.store: false`: only features reach the disk."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import import_module
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch

from rap import paths
from rap.clip.towers import INPUT
from rap.data.manifest import Manifest
from rap.features.cache import Batch
from rap.progress import note
from rap.shards import Item, Shard

if TYPE_CHECKING:
    from rap.jobs import Job


class Decoded:
    """The clips of a shard. `reasons`: why a clip has no frames, by id; decoding errors are added.

    The frames stage is not imported by name: its code is part of the keys of the frames, not of the features stage.
    """

    def __init__(self, job: "Job", shard: int, reasons: dict[str, str]):
        self.params, self.reasons = job.params, reasons
        self.manifest = Manifest.read(paths.manifest(job.params.dataset.name))
        self.videos = {video.video_id: video for video in self.manifest.shard(shard, len(job.params.shards)).rows()}
        self.frames_stage = import_module("rap.frames.stage")

    def rounds(self, batch: int, ids: list[str]) -> Iterator[tuple[list[str], Batch]]:
        """The clips that can be decoded, in the order of `ids`, `batch` at a time, as with stored frames."""
        good = self._good(ids)
        while items := list(islice(good, batch)):
            frames = np.stack([item.array for item in items if item.array is not None])
            length = torch.tensor([item.length for item in items])
            yield [item.id for item in items], Batch(torch.from_numpy(frames), length, INPUT)

    def _good(self, ids: list[str]) -> Iterator[Item]:
        cut, workers = self.frames_stage.cutter(self.params), self.params.runtime.workers
        waiting = self.frames_stage.together(self.params, [self.videos[id] for id in ids])
        pool = ThreadPoolExecutor(workers, "decode")
        try:
            started: deque[Future[list[Item]]] = deque(
                pool.submit(cut, clips) for clips in islice(waiting, workers + 1)
            )
            while started:
                items = started.popleft().result()
                started.extend(pool.submit(cut, clips) for clips in islice(waiting, 1))
                for item in items:
                    if item.reason:
                        note(f"failed: {item.id}: {item.reason}")
                        self.reasons[item.id] = item.reason
                    else:
                        yield item
        finally:
            pool.shutdown(cancel_futures=True)

    def check(self, made: Shard) -> None:
        """Raises UserError if more videos failed than `dataset.max_failed` allows."""
        self.frames_stage.count_failed(self.params, self.manifest, made)
