"""The device and the number of threads of a job: results depend on both, so both are fixed by params.yaml."""

import os
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import gettempdir

import torch
from filelock import FileLock, Timeout

from rap.errors import UserError
from rap.params import Runtime
from rap.runtime import distributed

_HELD = []  # locks of the GPUs that this process has claimed; the system lets go of them when it ends


def setup(runtime: Runtime) -> torch.device:
    """Fix threads and determinism of this process, join the others of the job; the device to use.

    Raises UserError if it is not there.
    """
    torch.set_num_threads(runtime.threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_deterministic_debug_mode("warn")  # also on a CPU: indexed sums are atomic without it
    torch.utils.deterministic.fill_uninitialized_memory = False
    if runtime.device == "cuda" and not torch.cuda.is_available():
        raise UserError("params.yaml: runtime.device: cuda is asked for and there is no GPU; use auto or cpu")
    gpu = runtime.device != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda", claim(_gpus())) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
    distributed.begin(runtime.processes, gpu)
    return device


@cache
def _gpus() -> tuple[str, ...]:
    """The GPUs that this process sees, by names that hold for the whole machine."""
    return tuple(str(torch.cuda.get_device_properties(n).uuid) for n in range(torch.cuda.device_count()))


@cache
def claim(gpus: tuple[str, ...], folder: str | None = None) -> int:
    """Which of `gpus` to use: the first one that no other process of this user's `rap` has.

    It is this process's until it ends, so jobs side by side get a GPU each. The first, where all are taken.
    """
    for number, name in enumerate(gpus):
        lock = FileLock(Path(folder or gettempdir()) / f"rap-{os.getuid()}-{name}.lock")
        with suppress(Timeout):
            _HELD.append(lock.acquire(blocking=False))
            return number
    return 0


def autocast(runtime: Runtime, device: torch.device) -> torch.autocast:
    """Mixed precision where it is asked for or, on `auto`, where the device has it: bfloat16 on a GPU."""
    return torch.autocast(device.type, torch.bfloat16, enabled=mixed(runtime, device))


def mixed(runtime: Runtime, device: torch.device) -> bool:
    return {"auto": device.type == "cuda", "bfloat16": True, "float32": False}[runtime.precision]
