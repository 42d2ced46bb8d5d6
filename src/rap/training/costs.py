"""What a trained method costs where it is used: arithmetic and memory, counted, not timed."""

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
    """Floating-point operations from one clip's frames to its embedding, a multiplication and an addition being two.

    Of a text-conditioned method: to its cosine with one query.
    """
    clip = one_clip(model, frames)
    with _frozen(model):
        if model.conditioned:
            return counted(lambda: model.pairs(clip, torch.zeros(1, model.clip.embed_dim, device=clip.x.device)))
        return counted(lambda: model.video(clip))


def counted(work: Callable[[], object]) -> int:
    """Floating-point operations of some work: of its matrix products, convolutions and attention.

    The counter stumbles over views of parameters that want a gradient: let none want one.
    """
    with _plain(), FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


@contextmanager
def _plain() -> Iterator[None]:
    """Attention and LSTM without fused kernels: the counter sees their products."""
    with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH), torch.backends.cudnn.flags(enabled=False):
        warnings.simplefilter("ignore")  # the next line warns of Intel GPUs that are not there
        with torch.backends.mkldnn.flags(enabled=False):
            yield


@contextmanager
def _frozen(model: Retriever) -> Iterator[None]:
    """Without gradients at all, for `counted`."""
    trained = [p for p in model.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def index_bytes_per_video(model: Retriever, frames: int) -> int:
    """What must be kept of a video to search it, float32: its embedding or, if the text takes part, its tokens."""
    if not model.conditioned:
        return FLOAT * model.clip.embed_dim
    tower = model.clip.visual
    return FLOAT * frames * (tower.grid**2 + 1) * tower.width


def one_clip(model: Retriever, frames: int) -> Batch:
    tower = model.clip.visual
    size = tower.grid * tower.conv1.kernel_size[0]
    device = tower.conv1.weight.device
    x: Tensor = torch.zeros(1, frames, size, size, 3, dtype=torch.uint8, device=device)
    return Batch(x, torch.tensor([frames], device=device), INPUT)


def peak_memory(device: torch.device) -> int:
    """Bytes: of the GPU's memory, or of this process's resident memory on a CPU (Linux reports KiB)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
