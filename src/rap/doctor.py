"""`rap doctor`: the missing requirements of this machine and folder, each with its remedy."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from tabulate import tabulate

from rap import graph, paths
from rap.errors import UserError, installed
from rap.frames import ffmpeg
from rap.params import Params

CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4")
LEAST_PYTHON = (3, 11)
EXTRAS = {"dvc": "pipeline", "snakemake": "pipeline", "mlflow": "tracking", "yt_dlp": "download", "uvicorn": "serve"}
LOW = 5.0  # GB of free disk; below this the check fails


class Finding(NamedTuple):
    """The name of a check, its result, and the remedy; `remedy` is empty if nothing is wrong."""

    what: str
    found: str
    remedy: str = ""


def run(params: Params) -> str:
    """A table of all checks. Raises UserError, which lists the remedies, if a requirement is missing."""
    findings = [finding for check in CHECKS for finding in check(params)]
    rows = [("ok" if not remedy else "!!", what, found) for what, found, remedy in findings]
    print(tabulate(rows, headers=["", "what", "found"]))
    remedies = [f"{what}: {remedy}" for what, _, remedy in findings if remedy]
    if remedies:
        raise UserError("\n".join([f"doctor: {len(remedies)} of {len(findings)} checks failed:", *remedies]))
    return f"doctor: {len(findings)} checks, nothing is missing"


def _python(params: Params) -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    remedy = "" if sys.version_info >= LEAST_PYTHON else "install Python 3.11 or newer"
    yield Finding("Python", version, remedy)
    for module, extra in EXTRAS.items():
        there = installed(module)
        found = metadata.version(module.replace("_", "-")) if there else "not installed"
        wanted = paths.DVC.exists() and not there  # without a checkout, extras are a choice
        yield Finding(module, found, f"pip install 'rap-retrieval[{extra}]'" if wanted else "")


def _engines(params: Params) -> Iterator[Finding]:
    """The commands on PATH (both engines call `rap` by name), and the state of dvc.yaml, in a checkout."""
    if not paths.DVC.exists():
        return
    for name in ("rap", "dvc", "snakemake", "git"):
        path = shutil.which(name)
        yield Finding(f"command {name}", path or "not on PATH", "" if path else "source .venv/bin/activate")
    stale = [str(file) for file, text in graph.rendered(params).items() if file.exists() and file.read_text() != text]
    yield Finding("dvc.yaml", "stale" if stale else "fits params.yaml", "run `rap graph --write`" if stale else "")


def _ffmpeg(params: Params) -> Iterator[Finding]:
    try:
        version = ffmpeg.version()
    except UserError as error:
        yield Finding("ffmpeg", "not found", str(error))
        return
    yield Finding("ffmpeg", version)
    known = ffmpeg.decoders()
    missing = [codec for codec in CODECS if not any(name == codec or name.endswith(f"d{codec}") for name in known)]
    remedy = f"videos in {', '.join(missing)} will fail: install another ffmpeg" if missing else ""
    yield Finding("decoders", ", ".join(codec for codec in CODECS if codec not in missing), remedy)


def _device(params: Params) -> Iterator[Finding]:
    import torch

    gpus = torch.cuda.device_count()
    found = torch.cuda.get_device_name() if gpus else f"CPU, {os.cpu_count()} cores"
    wanted = params.runtime.device == "cuda"
    needs = "set runtime.device: auto, or install the driver" if wanted and not gpus else ""
    if wanted and gpus and params.runtime.processes > gpus:
        needs = f"runtime.processes is {params.runtime.processes}, and there are {gpus} GPUs"
    yield Finding("device", found, needs)
    if not gpus and _computes_bfloat16() and params.runtime.precision != "bfloat16":
        about = "this CPU has it: runtime.precision: bfloat16 computes features faster (docs/performance.md)"
        yield Finding("bfloat16", about)


def _computes_bfloat16() -> bool:
    """Whether the CPU has bfloat16 instructions; only Linux on x86 reports this."""
    info = Path("/proc/cpuinfo")
    return info.exists() and bool({"avx512_bf16", "amx_bf16"} & set(info.read_text().split()))


def _disk(params: Params) -> Iterator[Finding]:
    free = shutil.disk_usage(".").free / 1e9
    remedy = "make room: docs/scaling.md says how much a dataset takes" if free < LOW else ""
    yield Finding("free disk", f"{free:.1f} GB", remedy)
    writable = os.access(".", os.W_OK)
    yield Finding("this folder", "can be written" if writable else "read-only", "" if writable else "work elsewhere")


def _inputs(params: Params) -> Iterator[Finding]:
    for key, name in (("annotations", params.dataset.annotations), ("videos", params.dataset.videos)):
        if name:
            there = Path(name).exists()
            yield Finding(f"dataset.{key}", name, "" if there else f"{name} is not there: see docs/datasets.md")
    yield _weights(params)


def _weights(params: Params) -> Finding:
    """Downloads nothing; names the command that downloads a tag."""
    wanted, stored = params.backbone, paths.backbone(params.backbone.name).record
    if stored.exists():
        return Finding("weights", str(stored.parent))
    if wanted.file:
        remedy = "" if wanted.file.is_file() else f"{wanted.file} is not there; name another file or a tag"
        return Finding("weights", str(wanted.file), remedy)
    if wanted.pretrained:
        return Finding("weights", f"open_clip's {wanted.name}, {wanted.pretrained}: `rap backbone` fetches them")
    return Finding("weights", "none", "set backbone.weights to a file or backbone.pretrained to a tag")


def _store(params: Params) -> Iterator[Finding]:
    from rap.report.tracking import uri

    store = uri(params)
    folder = Path(store.removeprefix("sqlite:///")).parent
    bad = store.startswith("sqlite:///") and not os.access(folder, os.W_OK)
    yield Finding("MLflow store", store, f"{folder} cannot be written: set tracking.uri" if bad else "")


CHECKS: tuple[Callable[[Params], Iterator[Finding]], ...] = (
    _python,
    _engines,
    _ffmpeg,
    _device,
    _disk,
    _inputs,
    _store,
)
