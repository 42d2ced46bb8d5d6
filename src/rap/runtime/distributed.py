"""Several processes that work as one on a stage, started by torchrun: each has a GPU, or threads, of its own.

The contrastive loss sees the whole batch. Each process encodes its share of the captions and of the clips. Embeddings
of captions go to all; each process scores all of them against its own clips; and these columns of the matrix go to all.
So every process has the whole matrix and the whole loss, whose gradient flows back the same ways: nothing is left out
and nothing counted twice. What is trained gets the sum of all processes' gradients in one message.

With one process every function here returns what it is given, and torch.distributed is not touched.
"""

import logging
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Parameter

from rap.errors import UserError

T = TypeVar("T", bound=Sequence)


def launched() -> bool:
    """Whether torchrun started this process."""
    return dist.is_available() and dist.is_torchelastic_launched()


def launch(processes: int, arguments: list[str]) -> int:
    """Run `rap` with `arguments` in so many processes of this machine, as torchrun does; the exit status."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)  # the processes say themselves what is wrong
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=f"rap-{os.getpid()}",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "rap.cli", *arguments)
    except ChildFailedError as error:
        return max(1, error.get_first_failure()[1].exitcode)
    return 0


def begin(processes: int, gpu: bool) -> None:
    """Join the other processes, if there are any and it is not done.

    Raises UserError if there are not as many as params.yaml says: results depend on how many they are.
    """
    if not launched():
        return
    if (world := int(os.environ["WORLD_SIZE"])) != processes:
        raise UserError(f"params.yaml: runtime.processes is {processes}, and torchrun started {world}; make them equal")
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo")


def size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if size() > 1 else 0


def is_main() -> bool:
    """Whether this process is the one that writes files and speaks."""
    return rank() == 0


def wait() -> None:
    """Go on when all processes have come here."""
    if size() > 1:
        dist.barrier()


def share(items: T) -> T:
    """This process's part of `items`: consecutive ones, in the order of the processes, as many as the others' or one
    more; none, where there are fewer items than processes."""
    each, more = divmod(len(items), size())
    start = rank() * each + min(rank(), more)
    return items[start : start + each + (rank() < more)]


def part(items: T, length: int) -> T:
    """This process's part where each takes `length` of the items, and the last ones what is left."""
    return items[rank() * length : (rank() + 1) * length]


def joined(x: Tensor, dim: int = 0, replicated: bool = False) -> Tensor:
    """What all processes have, one after another along `dim`, differentiable.

    The gradient of a process's own part is the sum over what every process makes of it; with `replicated`, every
    process goes on to compute the very same, and the gradient is that of one.
    """
    return x if size() == 1 else _Join.apply(x.movedim(dim, 0), replicated).movedim(0, dim)


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, replicated: bool) -> Tensor:
        mine = torch.tensor([len(x)], device=x.device)
        lengths = [torch.empty_like(mine) for _ in range(size())]
        dist.all_gather(lengths, mine)
        counts = [int(length) for length in lengths]
        parts = [x.new_empty(max(counts), *x.shape[1:]) for _ in counts]
        dist.all_gather(parts, _padded(x, max(counts)))
        start = sum(counts[: rank()])
        ctx.own, ctx.replicated = slice(start, start + len(x)), replicated
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        if not ctx.replicated:
            gradient = gradient.clone(memory_format=torch.contiguous_format)
            dist.all_reduce(gradient)
        return gradient[ctx.own], None


def collected(x: Tensor, counts: list[int]) -> Tensor | None:
    """In the first process, what all have, `counts` rows of each, one after another; in the others None."""
    if size() == 1:
        return x
    parts = [x.new_empty(max(counts), *x.shape[1:]) for _ in counts] if is_main() else None
    dist.gather(_padded(x, max(counts)), parts)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)]) if parts else None


def _padded(x: Tensor, length: int) -> Tensor:
    return torch.cat([x, x.new_zeros(length - len(x), *x.shape[1:])]).contiguous()


def sum_gradients(parameters: Iterable[Parameter]) -> None:
    """Give every process the sum of all processes' gradients, the same bits in each.

    A process whose share is empty may have no gradient where others have one; where none has one, none gets one.
    """
    if size() == 1:
        return
    parameters = list(parameters)
    there = torch.tensor([float(p.grad is not None) for p in parameters], device=parameters[0].device)
    own = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    total = torch.cat([there, *(gradient.flatten() for gradient in own)])
    dist.all_reduce(total)
    there, *summed = total.split([len(parameters), *(p.numel() for p in parameters)])
    for parameter, anywhere, gradient in zip(parameters, there.tolist(), summed, strict=True):
        parameter.grad = gradient.view_as(parameter) if anywhere else None
