"""RAP at MSR-VTT's true shape on a GPU: features and five epochs of training, in seconds and in bytes.

    PYTHONPATH=src python benchmarks/gpu.py --backbone ViT-B-32
    PYTHONPATH=src python benchmarks/gpu.py --backbone ViT-B-32 --precision float32 --videos 1800 --epochs 1
    PYTHONPATH=src python benchmarks/gpu.py --backbone ViT-B-16 --repeats 1
    PYTHONPATH=src python benchmarks/gpu.py --backbone ViT-B-16 --repeats 1 --precision float32 --videos 1800 --epochs 1

9,000 training videos of 12 frames with a caption each, batches of 128, a backbone with random weights; the frames are
files of the true length that hold nothing. What runs are the stages themselves: rap.features.stage makes a cache, set
against the bare pass as in features.py; then rap.training.stage trains RAP and LoRM from it, from block 0, from the
middle, and on frame embeddings, their text side off. What does not fit into the GPU's memory is said not to. A cache is
removed when both were trained from it: it takes 8.3 GB of disk for ViT-B/32 and 33 GB for ViT-B/16, and 17 GB of memory
hold the pages of the frames' files.

Each line is meant to take less than ten minutes on one GPU of 80 GB with 16 cores and 128 GB of memory. They need
torch, numpy, pandas, pyarrow, pydantic, pyyaml, requests, safetensors, tabulate, tqdm and typer; neither open_clip nor
ffmpeg. Without a GPU they run on the CPU, which takes days at this size.
"""

import os
import shutil
import tempfile
from contextlib import chdir
from dataclasses import asdict
from pathlib import Path

import ceilings
import features
import novideo  # noqa: F401  before rap
import report
import synthetic
import torch
import turns
import typer

from rap.clip.backbone import load
from rap.features.cache import folder
from rap.features.stage import run
from rap.params import Params
from rap.runtime.device import setup
from rap.training.costs import peak_memory
from rap.training.run import Experiment
from rap.training.stage import Pairs, State, fit

WHOLE = 5 * -(-9000 // 128)  # steps of five epochs


def main(
    backbone: str = "ViT-B-32",
    precision: str = "bfloat16",
    videos: int = 9000,
    frames: int = 12,
    batch: int = 128,
    epochs: int = 5,
    repeats: int = 2,
    results: Path = report.RESULTS,
) -> None:
    """`repeats` turns of the features stage and the bare pass; a training runs once."""
    about, results = report.machine(), results.resolve()
    layers = synthetic.config(backbone)["model"]["vision_cfg"]["layers"]
    stages, trainings = [], []
    with tempfile.TemporaryDirectory() as place, chdir(place):
        for depth in (0, layers // 2, layers):
            settings = project(backbone, precision, videos, frames, batch, epochs, depth)
            if depth == 0:
                limits = ceilings.measure(load(settings.backbone_folder)[0].to(setup(settings.runtime)))
            stages.append({"backbone": backbone} | features.throughput(settings, f"video-{depth}", repeats, limits))
            run(settings, "text-all", 0)
            methods = [name for name in settings.variants if name != "zero_shot"]
            trainings += [{"method": name, "depth": depth} | training(settings, name) for name in methods]
            shutil.rmtree(folder(settings, f"video-{depth}"))
    figures = {"machine": about, "ceilings": asdict(limits), "backbone": backbone, "precision": precision}
    report.write(
        results,
        f"gpu-{backbone}-{precision}",
        figures | {"videos": videos, "batch": batch, "frames": frames, "stages": stages, "trainings": trainings},
        report.sentence(about),
        f"{backbone} with random weights, {precision}, {videos:,} videos of {frames} frames. The features stage, "
        f"medians of {repeats} turns. {ceilings.sentence(limits)}",
        report.table([features.row(one) for one in stages]),
        f"Training, batches of {batch}, {epochs} epochs:",
        report.table([row(one) for one in trainings]),
        doc=report.ROOT / "docs/performance.md",
    )


def project(backbone: str, precision: str, videos: int, frames: int, batch: int, epochs: int, depth: int) -> Params:
    """In the present folder, a project that caches and trains from `depth` on; what is there of one is used again."""
    values = synthetic.values(backbone, [depth], frames)
    rap = values["variants"].pop(f"depth_{depth}")
    values["variants"] |= {"LoRM": {key: rap[key] for key in ("label", "lorm")} | {"adapter": "lorm"}}
    values["variants"] |= {"RAP": rap} if "asa" in rap else {}
    values["tables"]["table1"]["variants"] = list(values["variants"])
    values["features"]["caches"] = [f"video-{depth}", "text-all"]
    values["train"] |= {"batch": batch, "epochs": epochs}
    values["runtime"] |= {"precision": precision, "threads": os.cpu_count()}
    settings = synthetic.load(values | {"shards": [0]})
    if not settings.backbone_folder.exists():
        synthetic.backbone(settings)
        synthetic.manifest(videos, 1, 1, validation=0).write(settings.data / "manifest")
        synthetic.holes(settings)
    return settings


def training(settings: Params, variant: str) -> dict:
    """Seconds of the train stage's loop and peak memory; without them, if the GPU's memory is too small."""
    experiment = Experiment(settings, variant, 0)
    data = Pairs(experiment.split("train"), experiment)
    state = State.begin(experiment, data)
    if experiment.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    found = {"parameters": experiment.adapter.count, "steps": data.steps}
    try:
        seconds = turns.timed(lambda: fit(experiment, data, state))
    except torch.OutOfMemoryError:
        return found
    return found | {"seconds": seconds, "peak_bytes": peak_memory(experiment.device)}


def row(one: dict) -> dict:
    fits = "seconds" in one
    return {
        "method": one["method"],
        "from block": str(one["depth"]),
        "parameters": f"{one['parameters']:,}",
        "steps": f"{one['steps']:,}",
        "seconds": f"{one['seconds']:.1f}" if fits else "does not fit",
        f"for {WHOLE} steps": f"{one['seconds'] / one['steps'] * WHOLE:.0f}" if fits else "",
        "peak memory, GB": f"{one['peak_bytes'] / 1e9:.1f}" if fits else "",
    }


if __name__ == "__main__":
    typer.run(main)
