"""The retrieval model: a backbone and an adapter that map captions and clips to a similarity matrix."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rap import paths
from rap.adapters import registry
from rap.adapters.base import Adapter
from rap.clip import backbone
from rap.clip.towers import Clip, Context
from rap.features.cache import Batch
from rap.params import Params
from rap.runtime import distributed


class Retriever(nn.Module):
    """A frozen CLIP with an adapter. A batch may start at any position up to the adapter's first edited block."""

    def __init__(self, clip: Clip, adapter: Adapter):
        super().__init__()
        self.clip = adapter.clip or clip
        self.adapter = adapter
        self.conditioned = adapter.video.conditioned <= self.clip.visual.layers

    def train(self, mode: bool = True) -> "Retriever":
        """Training mode for the adapter; the backbone stays in evaluation mode, or batch norms would change it.

        A copy of the backbone that is trained does so too, with fixed statistics.
        """
        super().train(mode)
        self.clip.eval()
        return self

    def text(self, batch: Batch) -> Tensor:
        """Caption embeddings [Q, E], L2-normalised."""
        tower = self.clip.text
        x = tower.run(batch.x, batch.position, tower.all, Context(tower, batch.length), self.adapter.text)
        return F.normalize(x.float(), dim=-1)

    def video(self, batch: Batch) -> Tensor:
        """Clip embeddings [V, E], L2-normalised, independent of the query."""
        assert not self.conditioned, "a text-conditioned method has no query-independent clip embedding"
        return self._embed(batch.x, batch.position, Context(self.clip.visual, batch.length))

    def pairs(self, batch: Batch, text: Tensor, chunk: int = 1024) -> Tensor:
        """Cosines [Q, V] of every caption with every clip encoded for that caption.

        From the first text-conditioned block on, every clip is encoded once for every text, at most `chunk` pairs at a
        time. All texts are treated alike, so no clip is favoured by its own caption.
        """
        start = max(batch.position, int(self.adapter.video.conditioned))
        context = Context(self.clip.visual, batch.length)
        x = self.clip.visual.run(batch.x, batch.position, start, context, self.adapter.video)
        queries = max(1, chunk // len(x))
        return torch.cat([self._pairs(x, start, context.length, part) for part in text.split(queries)])

    def _pairs(self, x: Tensor, start: int, length: Tensor, text: Tensor) -> Tensor:
        context = Context(self.clip.visual, length, text.expand(len(x), -1, -1))
        video = self._embed(x, start, context).unflatten(0, (len(x), len(text)))
        return (video * text).sum(-1).T

    def similarity(self, video: Batch, text: Batch) -> Tensor:
        """Cosines [Q, V] of captions and clips, over all processes (see rap.runtime.distributed)."""
        queries = distributed.joined(self.text(text.not_empty())[: len(text.x)])
        return distributed.joined(self.against(queries, video), dim=1, replicated=True)

    def against(self, queries: Tensor, video: Batch) -> Tensor:
        """Cosines [Q, V] of caption embeddings [Q, E] and clips; V may be 0."""
        clips = video.not_empty()
        found = self.pairs(clips, queries) if self.conditioned else queries @ self.video(clips).T
        return found[:, : len(video.x)]

    @staticmethod
    def pool(x: Tensor, length: Tensor, weights: Tensor | None = None) -> Tensor:
        """meanP: frame embeddings [B, T, E] -> the normalised mean of the normalised valid frames, [B, E].

        `weights` [B or 1, T] of the frames, if they are not equal.
        """
        valid = torch.arange(x.shape[1], device=x.device) < length[:, None]
        valid = valid if weights is None else valid * weights
        return F.normalize((F.normalize(x.float(), dim=-1) * valid[..., None]).sum(1), dim=-1)

    def _embed(self, x: Tensor, start: int, context: Context) -> Tensor:
        frames = self.clip.visual.run(x, start, self.clip.visual.all, context, self.adapter.video)
        head, length = self.adapter.head, context.length
        return self.pool(head(frames, length), length, head.weights(length, frames.shape[1]))


def new_model(params: Params, variant: str, seed: int, device: torch.device) -> tuple[Retriever, dict]:
    """The backbone with a variant's adapter, initialised from the seed, on a device; and the backbone's config."""
    clip, config = backbone.load(paths.backbone(params.backbone.name))
    torch.manual_seed(seed)
    return Retriever(clip, registry.build(clip, params, variant)).to(device), config
