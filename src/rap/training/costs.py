"""The inference costs of a trained method: arithmetic and memory, counted rather than timed."""

import resource
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from rap.clip.towers import INPUT
from rap.features.cache import Batch
from rap.retrieval.model import Retriever

FLOAT = 4  # bytes


def flops_per_clip(model: Retriever, frames: int) -> int:
    """Floating-point operations from one clip's frames to its embedding; a multiply-add counts as two.

    For a text-conditioned method: from the frames to the cosine with one query.
    """
    clip = one_clip(model, frames)
    with _frozen(model):
        if model.conditioned:
            return counted(lambda: model.pairs(clip, torch.zeros(1, model.clip.embed_dim, device=clip.x.device)))
        return counted(lambda: model.video(clip))


def counted(work: Callable[[], object]) -> int:
    """Floating-point operations of `work` in matrix products, convolutions and attention.

    torch's counter fails on views of parameters that require gradients, so no parameter may require one.
    """
    with _plain(), FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


@contextmanager
def _plain() -> Iterator[None]:
    """Turn off the fused kernels of attention and LSTM, so that the counter sees their matrix products."""
    with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH), torch.backends.cudnn.flags(enabled=False):
        warnings.simplefilter("ignore")  # the next line warns about absent Intel GPUs
        with torch.backends.mkldnn.flags(enabled=False):
            yield


@contextmanager
def _frozen(model: Retriever) -> Iterator[None]:
    """Turn off all gradients, for `counted`."""
    trained = [p for p in model.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def index_bytes_per_video(model: Retriever, frames: int) -> int:
    """Bytes per video in a search index, float32: its embedding or, for a text-conditioned method, its tokens."""
    if not model.conditioned:
        return FLOAT * model.clip.embed_dim
    tower = model.clip.visual
    return FLOAT * frames * tower.tokens * tower.width


def one_clip(model: Retriever, frames: int) -> Batch:
    """A batch of one clip of black frames, at the input of the video tower."""
    tower = model.clip.visual
    device = tower.mean.device
    x: Tensor = torch.zeros(1, frames, tower.size, tower.size, 3, dtype=torch.uint8, device=device)
    return Batch(x, torch.tensor([frames], device=device), INPUT)


def peak_memory(device: torch.device) -> int:
    """Peak bytes of GPU memory or, on a CPU, of this process's resident memory (Linux reports KiB)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
