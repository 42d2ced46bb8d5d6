"""RAP at MSR-VTT's full shape on a GPU: the features stage and five epochs of training, in seconds and bytes.

    PYTHONPATH=src python benchmarks/gpu.py --backbone ViT-B-32
    PYTHONPATH=src python benchmarks/gpu.py --backbone ViT-B-32 --precision float32 --videos 1800 --epochs 1
    PYTHONPATH=src python benchmarks/gpu.py --backbone ViT-B-16 --repeats 1
    PYTHONPATH=src python benchmarks/gpu.py --backbone ViT-B-16 --repeats 1 --precision float32 --videos 1800 --epochs 1

9,000 training videos of 12 frames with a caption each, batches of 128, random weights; the frames are files of full
length without content. The features stage is compared with the bare pass as in features.py; the train stage then trains
RAP and LoRM from its cache, from block 0, from the middle, and on frame embeddings, the text side off. "does not fit"
means too little GPU memory. A cache takes 8.3 GB of disk for ViT-B/32 and 33 GB for ViT-B/16, and is removed after its
trainings; pages of the frames' files take 17 GB of memory.

Each line should take less than ten minutes on a GPU of 80 GB with 16 cores and 128 GB of memory. Neither open_clip nor
ffmpeg is needed. Without a GPU the lines run on the CPU, which takes days at this size.
"""

import os
import shutil

import features
import torch
import typer
from lib import ceilings, ours, projects, report, turns
from lib.projects import Size

from rap.params import Params

WHOLE = 5 * -(-9000 // 128)  # steps of five epochs: 355
TABLE = (
    "method | from block | parameters | steps | seconds | for 355 steps | peak memory, GB",
    "{method} | {depth} | {parameters:,} | {steps:,} | {time} | {whole:.0f} | {memory:.1f}",
)


def main(
    backbone: str = "ViT-B-32",
    precision: str = "bfloat16",
    videos: int = 9000,
    frames: int = 12,
    batch: int = 128,
    epochs: int = 5,
    repeats: int = 2,
) -> None:
    """`repeats`: turns of the features stage and the bare pass. A training runs once."""
    out, layers = report.Report(f"gpu-{backbone}-{precision}"), projects.blocks(backbone)
    stages, trainings, limits = [], [], None
    with projects.workplace():
        for depth in (0, layers // 2, layers):
            settings = project(backbone, precision, videos, frames, batch, epochs, depth)
            limits = limits or ceilings.measure(ours.load_clip(settings))
            stages.append({"backbone": backbone} | features.throughput(settings, f"video-{depth}", repeats, limits))
            ours.make_cache(settings, "text-all", 0)
            names = [name for name in settings.variants if name != "zero_shot"]
            trainings += [{"method": name, "depth": depth} | training(settings, name) for name in names]
            shutil.rmtree(ours.cache_folder(settings, f"video-{depth}"))
    figures = {"backbone": backbone, "precision": precision, "videos": videos, "batch": batch, "frames": frames}
    out.write(
        {"ceilings": limits.figures()} | figures | {"stages": stages, "trainings": trainings},
        f"{backbone} with random weights, {precision}, {videos:,} videos of {frames} frames. The features stage, "
        f"medians of {repeats} turns. {limits.sentence()}",
        report.table(stages, features.TABLE),
        f"Training, batches of {batch}, {epochs} epochs:",
        report.table(trainings, TABLE),
    )


def project(backbone: str, precision: str, videos: int, frames: int, batch: int, epochs: int, depth: int) -> Params:
    """A project that caches and trains from `depth` on, in the working directory. Existing files are used again."""
    values = projects.methods(projects.values(backbone, [depth], frames), depth)
    values["features"]["caches"] = [f"video-{depth}", "text-all"]
    values["train"] |= {"batch": batch, "epochs": epochs}
    values["runtime"] |= {"precision": precision, "threads": os.cpu_count()}
    settings = projects.load(values)
    if not ours.has_backbone(settings):
        projects.make(settings, Size(trained=videos), holes=True)
    return settings


def training(settings: Params, variant: str) -> dict:
    """Seconds and peak memory of the training loop."""
    run = ours.OpenedRun(settings, variant)
    found = {"parameters": run.parameters, "steps": run.steps}
    if run.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    try:
        seconds = turns.timed(run.train)
    except torch.OutOfMemoryError:
        return found | {"time": "does not fit"}
    whole, memory = seconds / run.steps * WHOLE, ours.peak_memory(run.device) / 1e9
    return found | {"seconds": seconds, "time": f"{seconds:.1f}", "whole": whole, "memory": memory}


if __name__ == "__main__":
    typer.run(main)
