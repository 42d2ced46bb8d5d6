"""The similarity matrix of a split: every caption against every video, computed from the cache in chunks."""

from collections.abc import Iterator

import numpy as np
import torch

from rap.features.cache import Batch, Cache
from rap.progress import progress
from rap.retrieval.model import Retriever
from rap.runtime import distributed
from rap.runtime.prefetch import prefetch

DIGITS = 5  # of a cosine: sums of the same terms in another order differ in the seventh digit, and must give ties


def score(
    model: Retriever, video: Cache, text: Cache, videos: list[str], captions: list[str], batch: int
) -> np.ndarray:
    """The cosines [Q, V] float32 of `captions` and `videos` (ids). Encodes `batch` clips at a time."""
    return np.concatenate(list(blocks(model, video, text, videos, captions, batch)), axis=1)


@torch.no_grad()
def blocks(
    model: Retriever, video: Cache, text: Cache, videos: list[str], captions: list[str], batch: int
) -> Iterator[np.ndarray]:
    """Yield the columns of the matrix of `score` in order, in blocks.

    Batches are dealt round-robin to the processes and are the same as with one process. Every process receives the
    full result.
    """
    model.eval()
    device = model.clip.logit_scale.device
    texts = (part.to(device) for part in _own(text, captions, 8 * batch))
    queries = torch.cat([distributed.joined(model.text(part.not_empty())[: len(part.x)]) for part in texts])
    with progress(total=len(videos), desc="score", unit="video", leave=False) as bar:
        for clips in _own(video, videos, batch):
            found = distributed.joined(model.against(queries, clips.to(device)), dim=1)
            yield found.float().cpu().numpy()
            bar.update(found.shape[1])


def _own(cache: Cache, ids: list[str], size: int) -> Iterator[Batch]:
    """Prefetch this process's batches of `size` ids, one per round; the last may be empty."""
    rounds = parts(ids, size * distributed.size())
    return prefetch(cache.batch(distributed.part(ids, size)).pinned() for ids in rounds)


def parts(ids: list[str], size: int) -> Iterator[list[str]]:
    """Split `ids` into lists of `size`; the last may be shorter."""
    for start in range(0, len(ids), size):
        yield ids[start : start + size]
