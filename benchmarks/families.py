"""SigLIP 2 and the Perception Encoder: features, a step of LoRM, and the time and memory of models of three sizes.

    python benchmarks/families.py [--clips 8] [--frames 12] [--repeats 3]

Features: as in features.py, from the frames to the middle of the tower and to the embeddings; `open_clip` is
open_clip's own encode_image on the same batches in memory. A step: as in step.py, LoRM from the middle on. Sizes: each
model encodes frames in its own process, once in float32 and once in bfloat16; `peak` is the peak memory of this
process, weights of both towers included. About twenty minutes on two cores.
"""

import multiprocessing
import os
import time
from collections.abc import Callable
from typing import Any, cast

import features
import step
import torch
import typer
from lib import ceilings, ours, projects, report, turns

from rap.clip.towers import INPUT, Clip, Context, Tuner
from rap.params import Params, Runtime

BACKBONES = ("ViT-B-32-SigLIP2-256", "PE-Core-B-16")
SIZES = ("ViT-B-16-SigLIP2", "ViT-L-16-SigLIP2-256", "ViT-SO400M-14-SigLIP2")
HELD = 4  # frames in a pass of a size
FEATURES = (
    "backbone | cache | clips | bare, s | open_clip, s | stage, s | share of the bare pass | bfloat16, times as fast",
    "{backbone} | {cache} | {clips} | {bare:.3g} | {theirs:.3g} | {work:.3g} | {share:.2f} | {bfloat16:.2f}",
)
STEPS = (
    "backbone | from block | pairs | bare, s | cache, s | cache / bare | frames, s | frames / cache | predicted",
    "{backbone} | {depth} | {batch} | {bare:.3g} | {cache:.3g} | {over_bare:.2f} | {frames:.3g} | "
    "{speedup:.2f} | {predicted:.2f}",
)
NEEDS = (
    "backbone | M parameters | precision | a frame, s | peak, GB",
    "{backbone} | {parameters:.0f} | {precision} | {seconds:.3g} | {peak:.1f}",
)


def main(
    backbones: tuple[str, str] = BACKBONES,
    sizes: tuple[str, str, str] = SIZES,
    clips: int = 8,
    frames: int = 12,
    batch: int = 2,
    repeats: int = 3,
) -> None:
    """`clips` of `frames` frames, `batch` clips in a pass and in a step."""
    out, cached, steps = report.Report("families"), [], []
    for name in backbones:
        with projects.workplace():
            cached += encoded(features.project(name, clips, frames, batch), repeats)
        with projects.workplace():
            steps += trained(name, batch, frames, repeats)
    needs = [need(name, precision) for name in sizes for precision in ("float32", "bfloat16")]
    out.write(
        {"features": cached, "steps": steps, "sizes": needs},
        f"Random weights, {frames} frames per clip, float32 unless named; medians of {repeats} turns.",
        report.table(cached, FEATURES),
        report.table(steps, STEPS),
        report.table(needs, NEEDS),
    )


def encoded(settings: Params, repeats: int) -> list[dict]:
    """The rows of a backbone in the table of features."""
    name, limits = settings.backbone.name, ceilings.measure(ours.load_clip(settings))
    rows = [
        {"backbone": name} | features.throughput(settings, cache, repeats, limits)
        for cache in settings.features.caches
        if cache != "video-0"
    ]
    rows[-1]["theirs"] = turns.median(turns.take({"theirs": by_open_clip(settings)}, repeats, name), "theirs")
    return rows


def by_open_clip(settings: Params) -> Callable[[], None]:
    """open_clip's own pass over as many batches as the stage has, from frames in memory."""
    clip, frames = ours.load_clip(settings), ours.rows(settings, "frames")
    model, size = cast(Any, clip.weights), settings.features.batch
    held = torch.from_numpy(frames[:size].copy())

    @torch.no_grad()
    def passes() -> None:
        for _ in range(0, len(frames), size):
            model.encode_image(clip.visual.normalised(held), normalize=False)

    return passes


def trained(name: str, batch: int, frames: int, repeats: int) -> list[dict]:
    """The rows of a backbone in the table of steps."""
    middle = projects.blocks(name) // 2
    found = step.values(name, middle, batch, frames)
    found["variants"] = {key: value for key, value in found["variants"].items() if key in ("zero_shot", "LoRM")}
    found["tables"]["table1"]["variants"] = list(found["variants"])
    settings = step.project(found)
    limits = ceilings.measure(ours.load_clip(settings))
    rows = step.at_depth(settings, step.without_video_cache(found), middle, repeats, limits)
    return [{"backbone": name} | row for row in rows]


def need(name: str, precision: str) -> dict:
    """Seconds for a frame and the peak memory, measured in a separate process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return {"backbone": name, "precision": precision} | pool.apply(needed, (name, precision))


def needed(name: str, precision: str) -> dict:
    torch.set_num_threads(os.cpu_count() or 1)
    clip = projects.random_clip(projects.config(name))
    tower, runtime = clip.visual, Runtime.model_construct(precision=precision)
    pixels = torch.zeros(1, HELD, tower.size, tower.size, 3, dtype=torch.uint8)
    context, seconds = Context(tower, torch.tensor([HELD])), []
    for _ in range(3):
        began = time.perf_counter()
        with torch.no_grad(), ours.autocast(runtime, torch.device("cpu")):
            tower.run(pixels, INPUT, tower.all, context, Tuner())
        seconds.append((time.perf_counter() - began) / HELD)
    peak = turns.memory(os.getpid())[1] / 1e9  # ru_maxrss would start at the parent's memory
    return {"parameters": parameters(clip) / 1e6, "seconds": min(seconds), "peak": peak}


def parameters(clip: Clip) -> int:
    return sum(weight.numel() for weight in clip.weights.parameters())


if __name__ == "__main__":
    typer.run(main)
