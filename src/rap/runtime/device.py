"""The device and the number of threads of a job. Results depend on both, so params.yaml sets both.

Why `claim`: no library assigns GPUs to unrelated processes of one user, short of CUDA_VISIBLE_DEVICES set by hand.
"""

import os
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import gettempdir

import torch
from filelock import BaseFileLock, FileLock, Timeout

from rap.errors import UserError
from rap.params import Runtime
from rap.runtime import distributed

_held: list[BaseFileLock] = []  # locks of the GPUs that this process claimed; the system releases them when it ends


def setup(runtime: Runtime) -> torch.device:
    """Set the threads and the determinism of this process, join the job's other processes and return the device.

    Raises UserError if params.yaml requires a GPU and there is none.
    """
    torch.set_num_threads(runtime.threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_deterministic_debug_mode("warn")  # also on a CPU: otherwise indexed sums are atomic
    # torch replaces this module at import by an object with this property; type checkers see the module
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if runtime.device == "cuda" and not torch.cuda.is_available():
        raise UserError("params.yaml: runtime.device is cuda, but there is no GPU; use auto or cpu")
    gpu = runtime.device != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda", claim(_gpus())) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
    distributed.begin(runtime.processes, gpu)
    return device


@cache
def _gpus() -> tuple[str, ...]:
    """The UUIDs of the GPUs that this process sees."""
    return tuple(str(torch.cuda.get_device_properties(n).uuid) for n in range(torch.cuda.device_count()))


@cache
def claim(gpus: tuple[str, ...], folder: str | None = None) -> int:
    """The index in `gpus` of the first GPU that no other `rap` process of this user has claimed; 0 if all are claimed.

    The claim lasts until this process ends, so concurrent jobs use different GPUs.
    """
    for number, name in enumerate(gpus):
        lock = FileLock(Path(folder or gettempdir()) / f"rap-{os.getuid()}-{name}.lock")
        with suppress(Timeout):
            lock.acquire(blocking=False)
            _held.append(lock)
            return number
    return 0


def autocast(runtime: Runtime, device: torch.device) -> torch.autocast:
    """The autocast context of runtime.precision: bfloat16, or none."""
    return torch.autocast(device.type, torch.bfloat16, enabled=mixed(runtime, device))


def mixed(runtime: Runtime, device: torch.device) -> bool:
    """Whether the job computes in bfloat16; with precision `auto`, only on a GPU."""
    return {"auto": device.type == "cuda", "bfloat16": True, "float32": False}[runtime.precision]
