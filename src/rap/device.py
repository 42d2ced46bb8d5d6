"""The device and the number of threads of a job: results depend on both, so both are fixed by params.yaml."""

import os

import torch

from rap import distributed
from rap.errors import UserError
from rap.params import Runtime


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
    number = distributed.begin(runtime.processes, gpu)
    if not gpu:
        return torch.device("cpu")
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def autocast(runtime: Runtime, device: torch.device) -> torch.autocast:
    """Mixed precision where it is asked for or, on `auto`, where the device has it: bfloat16 on a GPU."""
    return torch.autocast(device.type, torch.bfloat16, enabled=mixed(runtime, device))


def mixed(runtime: Runtime, device: torch.device) -> bool:
    return {"auto": device.type == "cuda", "bfloat16": True, "float32": False}[runtime.precision]
