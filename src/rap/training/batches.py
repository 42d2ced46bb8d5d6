"""Batches of pairs: a caption and its clip, in an order that depends only on the seed and the epoch."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from rap.errors import UserError
from rap.features.cache import Batch
from rap.params import Train
from rap.retrieval.corpus import Corpus
from rap.runtime import distributed
from rap.runtime.prefetch import prefetch


class Step(NamedTuple):
    """One step's batch. With several processes, `clips` and `captions` are this process's share of it."""

    number: int
    clips: Batch
    captions: Batch
    positives: Tensor  # [B, B] bool: which captions and clips of the whole batch belong to one video


class Pairs:
    """The pairs of the training split, and the steps of a training over them.

    Raises UserError if there are fewer than two videos.
    """

    def __init__(self, corpus: Corpus, settings: Train, seed: int):
        split = corpus.split("train")
        self.corpus, self.seed = corpus, seed
        self.captions, self.owners = split.captions.caption_id.tolist(), split.captions.video_id.tolist()
        self.numbers = torch.from_numpy(pd.factorize(split.captions.video_id)[0])  # of the owners
        self.neighbours = neighbours(split.captions, corpus.manifest.videos, settings.twins)
        self.videos, self.epochs = len(split.videos), settings.epochs
        self.batch = min(settings.batch, len(self.captions))
        if self.videos < 2:
            raise UserError("train: fewer than two usable training videos; the contrastive loss needs at least two")

    @property
    def steps(self) -> int:
        return self.epochs * self.per_epoch

    @property
    def per_epoch(self) -> int:
        return math.ceil(len(self.captions) / self.batch)

    def batches(self, start: int) -> Iterator[Step]:
        """The steps from number `start` on, prefetched."""
        return prefetch(self._batches(start))

    def _batches(self, start: int) -> Iterator[Step]:
        order: list[int] = []
        for step in range(start, self.steps):
            epoch, number = divmod(step, self.per_epoch)
            if number == 0 or not order:
                order = self._order(epoch)
            chosen = order[number * self.batch : (number + 1) * self.batch]
            numbers, own = self.numbers[chosen], distributed.share(chosen)
            clips = self.corpus.video.batch([self.owners[i] for i in own]).pinned()
            captions = self.corpus.text.batch([self.captions[i] for i in own]).pinned()
            yield Step(step, clips, captions, numbers[:, None] == numbers)

    def _order(self, epoch: int) -> list[int]:
        """Rows of the captions in the order of an epoch."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        shuffled = torch.randperm(len(self.neighbours), generator=generator).tolist()
        return [row for group in shuffled for row in self.neighbours[group]]


def neighbours(captions: pd.DataFrame, videos: pd.DataFrame, twins: bool) -> list[list[int]]:
    """Rows of `captions` that stay together in every epoch: single rows or, with `twins`, the n-th caption of a clip
    and the n-th of its twin. A clip and its reversal in one batch are hard negatives for each other."""
    if not twins:
        return [[row] for row in range(len(captions))]
    twin = videos.set_index("video_id").twin
    scene = captions.video_id.map(lambda id: min(id, twin[id] or id))
    number = captions.groupby("video_id").cumcount()
    return [rows.tolist() for rows in captions.groupby([scene, number]).indices.values()]
