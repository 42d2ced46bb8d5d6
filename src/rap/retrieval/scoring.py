"""The similarity matrix of a split: every caption against every video, from the cache, in chunks."""

from collections.abc import Iterator

import numpy as np
import torch
from tqdm import tqdm

from rap.features.cache import Batch, Cache
from rap.retrieval.model import Retriever
from rap.runtime import distributed
from rap.runtime.prefetch import prefetch


def score(
    model: Retriever, video: Cache, text: Cache, videos: list[str], captions: list[str], batch: int
) -> np.ndarray:
    """Cosines [Q, V] float32 of `captions` and `videos` (ids), `batch` clips at a time."""
    return np.concatenate(list(blocks(model, video, text, videos, captions, batch)), axis=1)


@torch.no_grad()
def blocks(
    model: Retriever, video: Cache, text: Cache, videos: list[str], captions: list[str], batch: int
) -> Iterator[np.ndarray]:
    """The columns of the matrix that `score` gives, a few at a time, in their order.

    Of several processes each encodes every so many-th batch, the very batches that one process would; all get all.
    """
    model.eval()
    device = model.clip.logit_scale.device
    own = (part.to(device) for part in _own(text, captions, 8 * batch))
    queries = torch.cat([distributed.joined(model.text(part.not_empty())[: len(part.x)]) for part in own])
    with tqdm(total=len(videos), desc="score", unit="video", leave=False) as bar:
        for own in _own(video, videos, batch):
            found = distributed.joined(model.against(queries, own.to(device)), dim=1)
            yield found.float().cpu().numpy()
            bar.update(found.shape[1])


def _own(cache: Cache, ids: list[str], size: int) -> Iterator[Batch]:
    """This process's batches of `size` ids, read ahead: one of every round, empty where the last round has too few."""
    rounds = parts(ids, size * distributed.size())
    return prefetch(cache.batch(distributed.part(ids, size)).pinned() for ids in rounds)


def parts(ids: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(ids), size):
        yield ids[start : start + size]
