"""The features stage compared with the bare forward pass of the same model on tensors that are already in memory.

    python benchmarks/features.py [--clips 16] [--frames 12] [--repeats 3]

Three measurements, in turns: `stage` runs the features stage from frames in files to a cache in files, with every row
to compute; `start` runs it again with no row to compute, which leaves reading the weights and setting up the device;
`bare` computes the same batches from memory and keeps nothing, and `half` does the same in bfloat16. `work` is stage -
start, and the share is bare / work: 1 means that reading and writing hide behind the arithmetic. The floor is for the
arithmetic and the bytes read and written (lib/ceilings.py).

ViT-B/32 and, with 16 times the clips, the demo's backbone. About four minutes on two cores.
"""

import os
from collections.abc import Callable
from functools import partial
from itertools import cycle, islice

import torch
import typer
from lib import ceilings, ours, projects, report, turns
from lib.ceilings import Ceilings
from lib.projects import Size

from rap.clip.backbone import DEMO
from rap.clip.towers import INPUT, Clip, Context, Tuner
from rap.params import Params

HELD = 8  # batches in memory that the bare pass repeats
TABLE = (
    "backbone | cache | clips | floor, s | bare, s | stage, s | its start, s | frames per second | "
    "share of the bare pass | bfloat16, times as fast",
    "{backbone} | {cache} | {clips} | {floor:.3g} | {bare:.3g} | {work:.3g} | {start:.3g} | {rate:,.0f} | "
    "{share:.2f} | {bfloat16:.2f}",
)


def main(
    backbones: tuple[str, str] = ("ViT-B-32", DEMO), clips: int = 16, frames: int = 12, batch: int = 4, repeats: int = 3
) -> None:
    """`clips` of `frames` frames, `batch` clips in a pass; 16 times the clips and batch for the second backbone."""
    out, found, limits = report.Report("features"), [], {}
    for name, times in zip(backbones, (1, 16), strict=True):
        with projects.workplace():
            settings = project(name, clips * times, frames, batch * times)
            limits[name] = ceilings.measure(ours.load_clip(settings))
            for cache in settings.features.caches:
                found.append({"backbone": name} | throughput(settings, cache, repeats, limits[name]))
    out.write(
        {"ceilings": {name: limit.figures() for name, limit in limits.items()}, "stages": found},
        f"Random weights, {frames} frames per clip, float32; medians of {repeats} turns.",
        *(f"{name}. {limit.sentence()}" for name, limit in limits.items()),
        report.table(found, TABLE),
    )


def project(backbone: str, clips: int, frames: int, batch: int) -> Params:
    """A project with frames of noise, in the working directory, with caches at both ends and in the middle."""
    middle = projects.blocks(backbone) // 2
    values = projects.values(backbone, [0, middle], frames)
    values["features"] |= {"caches": ["video-0", f"video-{middle}", "video-all"], "batch": batch}
    values["runtime"]["threads"] = os.cpu_count()
    return projects.make(projects.load(values), Size(trained=clips - 1))  # plus one test clip


def throughput(settings: Params, cache: str, repeats: int, limits: Ceilings) -> dict:
    """Median seconds of the three measurements, and the stage's frames per second and share of the bare pass."""
    clip, frames = ours.load_clip(settings), ours.rows(settings, "frames")
    ways = {
        "stage": partial(ours.remake_cache, settings, cache),
        "start": partial(ours.make_cache, settings, cache, 0),
        "bare": bare(settings, clip, cache),
        "half": bare(in_bfloat16(settings), clip, cache),
    }
    taken = turns.take(ways, repeats, cache)
    taken["work"] = [all - start for all, start in zip(taken["stage"], taken["start"], strict=True)]
    device, tower = clip.logit_scale.device, clip.visual
    pixels, length = torch.from_numpy(frames[:1].copy()).to(device), torch.full((1,), frames.shape[1], device=device)
    flops = len(frames) * ours.counted(lambda: ours.prefix(tower, pixels, length, ours.depth(cache, tower)))
    written = ours.rows(settings, cache).nbytes
    return {
        "cache": cache,
        "clips": len(frames),
        "frames": frames.shape[1],
        "read_bytes": frames.nbytes,
        "written_bytes": written,
        **{name: turns.median(taken, name) for name in taken},
        "floor": limits.floor(flops, frames.nbytes + written, ours.precision(settings, device)),
        "rate": frames.shape[0] * frames.shape[1] / turns.median(taken, "work"),
        "share": turns.ratio(taken, "bare", "work"),
        "bfloat16": turns.ratio(taken, "bare", "half"),
    }


def in_bfloat16(settings: Params) -> Params:
    return settings.model_copy(update={"runtime": settings.runtime.model_copy(update={"precision": "bfloat16"})})


def bare(settings: Params, clip: Clip, cache: str) -> Callable[[], None]:
    """The forward pass of the tower over as many batches as the stage has, from tensors on the device."""
    device, size = clip.logit_scale.device, settings.features.batch
    frames, tower = ours.rows(settings, "frames"), clip.visual
    starts = range(0, len(frames), size)
    held = [torch.from_numpy(frames[start : start + size].copy()).to(device) for start in starts[:HELD]]
    context = Context(tower, torch.full((size,), frames.shape[1], device=device))

    @torch.no_grad()
    def passes() -> None:
        with ours.autocast(settings.runtime, device):
            for x in islice(cycle(held), len(starts)):
                tower.run(x, INPUT, ours.depth(cache, tower), context, Tuner())

    return passes


if __name__ == "__main__":
    typer.run(main)
