"""The similarity matrix of a split: every caption against every video, from the cache, in chunks."""

from collections.abc import Iterator

import numpy as np
import torch
from tqdm import tqdm

from rap.clip.caches import Cache
from rap.retrieval.model import Retriever


@torch.no_grad()
def score(
    model: Retriever, video: Cache, text: Cache, videos: list[str], captions: list[str], batch: int
) -> np.ndarray:
    """Cosines [Q, V] float32 of `captions` and `videos` (ids), `batch` clips at a time."""
    model.eval()
    device = model.clip.logit_scale.device
    queries = torch.cat([model.text(text.batch(part).to(device)) for part in parts(captions, 8 * batch)])
    columns = []
    with tqdm(total=len(videos), desc="score", unit="video", leave=False) as bar:
        for part in parts(videos, batch):
            clips = video.batch(part).to(device)
            found = model.pairs(clips, queries) if model.conditioned else queries @ model.video(clips).T
            columns.append(found.float().cpu().numpy())
            bar.update(len(part))
    return np.concatenate(columns, axis=1)


def parts(ids: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(ids), size):
        yield ids[start : start + size]
