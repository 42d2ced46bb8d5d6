"""Data-parallel processes of one stage, started by torchrun. Each process has its own GPU or its own threads.

The contrastive loss covers the whole batch. Each process encodes its share of the captions and of the clips. All
processes receive all caption embeddings, each scores them against its own clips, and all receive all columns of the
matrix. So every process computes the full matrix and the full loss. Gradients flow back through both exchanges, and
`sum_gradients` sums the parameters' gradients over the processes in one message.

Why not torch's own: DistributedDataParallel averages gradients, and it needs a non-empty share in every process and a
gradient for every parameter; torch.distributed.nn.functional.all_gather aborts on shares of unequal length (gloo).

With one process, every function here returns its input and does not use torch.distributed.
"""

import logging
import os
import sys
from collections.abc import Iterable
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Parameter

from rap.errors import UserError
from rap.runtime.signals import Ended, tied

T = TypeVar("T")


def launched() -> bool:
    """Whether torchrun started this process."""
    return dist.is_available() and dist.is_torchelastic_launched()


def launch(processes: int, arguments: list[str]) -> int:
    """Run `rap` with `arguments` in `processes` processes on this machine, as torchrun does. Return the exit status.

    Raises Ended if a signal arrives; torch has its own handler, which ends the processes.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in ("torch.distributed", "torch.distributed.elastic.agent.server.api"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # the processes report their own errors
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=f"rap-{os.getpid()}",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    program, *options = tied([sys.executable, "-m", "rap", *arguments])
    try:
        elastic_launch(config, program)(*options)
    except SignalException as signal:
        raise Ended(signal.sigval) from None
    except ChildFailedError as error:
        return max(1, error.get_first_failure()[1].exitcode)
    return 0


def begin(processes: int, gpu: bool) -> None:
    """Join the process group, if torchrun started this process and it has not joined yet.

    Raises UserError if the number of processes differs from params.yaml, because results depend on it.
    """
    if not launched():
        return
    if (world := int(os.environ["WORLD_SIZE"])) != processes:
        raise UserError(f"params.yaml: runtime.processes is {processes}, but torchrun started {world}; make them equal")
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo")


def size() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if size() > 1 else 0


def is_main() -> bool:
    """Whether this process writes the files and the messages: rank 0."""
    return rank() == 0


def wait() -> None:
    """Block until all processes have called this function."""
    if size() > 1:
        dist.barrier()


def share(items: list[T]) -> list[T]:
    """This process's share of `items`: consecutive items, in rank order. Lengths of shares differ by at most one.

    With fewer items than processes, the last shares are empty.
    """
    each, more = divmod(len(items), size())
    start = rank() * each + min(rank(), more)
    return items[start : start + each + (rank() < more)]


def part(items: list[T], length: int) -> list[T]:
    """This process's part of `items` if each process takes `length` in rank order; the last parts may be shorter."""
    return items[rank() * length : (rank() + 1) * length]


def joined(x: Tensor, dim: int = 0, replicated: bool = False) -> Tensor:
    """Concatenate the `x` of all processes along `dim`, in rank order. Differentiable in this process's own `x`.

    Its gradient is the sum over all processes. With `replicated`, every process computes the same from the result, so
    the gradient is that of one process.
    """
    if size() == 1:
        return x
    own = x.movedim(dim, 0)
    parts = _gathered(own.detach())
    parts[rank()] = own  # carries the gradient
    result = torch.cat(parts)
    if result.requires_grad and not replicated:
        result.register_hook(_summed)
    return result.movedim(0, dim)


def _gathered(x: Tensor) -> list[Tensor]:
    """The `x` [rows, ...] of every process; the number of rows may differ."""
    mine = torch.tensor([len(x)], device=x.device)
    lengths = [torch.empty_like(mine) for _ in range(size())]
    dist.all_gather(lengths, mine)
    counts = [int(length) for length in lengths]
    parts = [x.new_empty(max(counts), *x.shape[1:]) for _ in counts]
    dist.all_gather(parts, _padded(x, max(counts)))
    return [part[:count] for part, count in zip(parts, counts, strict=True)]


def _summed(x: Tensor) -> Tensor:
    total = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


def collected(x: Tensor, counts: list[int]) -> Tensor | None:
    """Concatenate the `x` of all processes in the first process, `counts` rows from each; None in the others."""
    if size() == 1:
        return x
    parts = [x.new_empty(max(counts), *x.shape[1:]) for _ in counts] if is_main() else None
    dist.gather(_padded(x, max(counts)), parts)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)]) if parts else None


def _padded(x: Tensor, length: int) -> Tensor:
    return torch.cat([x, x.new_zeros(length - len(x), *x.shape[1:])]).contiguous()


def sum_gradients(parameters: Iterable[Parameter]) -> None:
    """Replace the gradients in every process by their sum over all processes, bit-identical in each.

    A process with an empty share may lack a gradient that others have. A parameter without a gradient in any process
    keeps none.
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
