"""The features stage against the bare forward pass of the same model on tensors that are in memory already.

    python benchmarks/features.py [--clips 16] [--frames 12] [--repeats 3]

Three ways, in turns: the stage, from frames in files to a cache in files, all rows to be made; the stage again, with
nothing to do, which is what its start takes (weights read, the device set up); and the bare pass, the same batches in
memory, nothing kept. What the stage takes beyond its start is set against the bare pass: `share` is bare / stage, so 1
is a stage whose reading and writing hide behind its arithmetic. The floor beside them is the counted arithmetic at the
measured ceiling, or the bytes read and written at the ceiling of copies, whichever is longer.

Backbones are ViT-B/32 and, with 16 times the clips, the demo's, both with random weights. About four minutes on two
cores.
"""

import os
import tempfile
from collections.abc import Callable
from contextlib import chdir
from dataclasses import asdict
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import ceilings
import report
import synthetic
import torch
import turns
import typer
from ceilings import Ceilings

from rap.clip.backbone import DEMO, load
from rap.clip.towers import INPUT, Clip, Context, Tuner
from rap.features.cache import folder, position
from rap.features.stage import prefix, run
from rap.params import Params
from rap.runtime.device import autocast, setup
from rap.shards import Shard
from rap.training.costs import counted

HELD = 8  # batches in memory, which the bare pass goes through again and again


def main(
    backbones: tuple[str, str] = ("ViT-B-32", DEMO),
    clips: int = 16,
    frames: int = 12,
    batch: int = 4,
    repeats: int = 3,
    results: Path = report.RESULTS,
) -> None:
    """`clips` of so many frames, `batch` of them in a pass; 16 times as many of both for the second backbone."""
    about, results = report.machine(), results.resolve()
    found, limits = [], {}
    for name, times in zip(backbones, (1, 16), strict=True):
        with tempfile.TemporaryDirectory() as place, chdir(place):
            settings = project(name, clips * times, frames, batch * times)
            limits[name] = ceilings.measure(load(settings.backbone_folder)[0].to(setup(settings.runtime)))
            for cache in settings.features.caches:
                found.append({"backbone": name} | throughput(settings, cache, repeats, limits[name]))
    report.write(
        results,
        "features",
        {"machine": about, "ceilings": {name: asdict(limit) for name, limit in limits.items()}, "stages": found},
        report.sentence(about),
        f"Random weights, {frames} frames a clip, float32; medians of {repeats} turns.",
        *(f"{name}. {ceilings.sentence(limit)}" for name, limit in limits.items()),
        report.table([row(one) for one in found]),
        doc=report.ROOT / "docs/performance.md",
    )


def project(backbone: str, clips: int, frames: int, batch: int) -> Params:
    """In the present folder, noise in files; caches after no block, after half of them, and of the embeddings."""
    layers = synthetic.config(backbone)["model"]["vision_cfg"]["layers"]
    values = synthetic.values(backbone, [0, layers // 2], frames)
    values["features"] |= {"caches": ["video-0", f"video-{layers // 2}", "video-all"], "batch": batch}
    values["runtime"]["threads"] = os.cpu_count()
    settings = synthetic.load(values | {"shards": [0]})
    synthetic.project(settings, train=clips - 1)  # and one to test
    return settings


def throughput(settings: Params, cache: str, repeats: int, limits: Ceilings) -> dict:
    """Median seconds of the three ways; beyond its start, the stage's frames a second and share of the bare pass."""
    clip = load(settings.backbone_folder)[0].to(setup(settings.runtime))
    frames = Shard.read(settings.data / "frames/shard-0").array
    ways = {
        "stage": partial(stage, settings, cache),
        "start": partial(run, settings, cache, 0),
        "bare": bare(settings, clip, cache),
    }
    taken = turns.take(ways, repeats, cache)
    taken["work"] = [all - start for all, start in zip(taken["stage"], taken["start"], strict=True)]
    pixels, tower = torch.from_numpy(frames[:1].copy()).to(clip.logit_scale.device), clip.visual
    length = torch.full((1,), frames.shape[1], device=pixels.device)
    flops = len(frames) * counted(lambda: prefix(tower, pixels, length, position(cache, tower)))
    written = Shard.read(folder(settings, cache) / "shard-0").array.nbytes
    return {
        "cache": cache,
        "clips": len(frames),
        "frames": frames.shape[1],
        "read_bytes": frames.nbytes,
        "written_bytes": written,
        **{name: turns.median(taken, name) for name in taken},
        "floor": limits.floor(flops, frames.nbytes + written, precision(settings, clip)),
        "rate": frames.shape[0] * frames.shape[1] / turns.median(taken, "work"),
        "share": turns.ratio(taken, "bare", "work"),
    }


def stage(settings: Params, cache: str) -> None:
    """The stage, with everything to do."""
    for file in folder(settings, cache).glob("shard-0.*"):
        file.unlink()
    run(settings, cache, 0)


def bare(settings: Params, clip: Clip, cache: str) -> Callable[[], None]:
    """The tower's forward pass over as many batches as the stage has, from tensors on the device; nothing is kept."""
    device, size = clip.logit_scale.device, settings.features.batch
    frames, tower = Shard.read(settings.data / "frames/shard-0").array, clip.visual
    starts = range(0, len(frames), size)
    held = [torch.from_numpy(frames[start : start + size].copy()).to(device) for start in starts[:HELD]]
    context = Context(tower, torch.full((size,), frames.shape[1], device=device))

    @torch.no_grad()
    def passes() -> None:
        with autocast(settings.runtime, device):
            for x in islice(cycle(held), len(starts)):
                tower.run(x, INPUT, position(cache, tower), context, Tuner())

    return passes


def precision(settings: Params, clip: Clip) -> str:
    """The type in which the matrix products of a stage are computed."""
    device = clip.logit_scale.device
    with autocast(settings.runtime, device):
        return "bfloat16" if torch.is_autocast_enabled(device.type) else "float32"


def row(one: dict) -> dict:
    return {
        "backbone": one["backbone"],
        "cache": one["cache"],
        "clips": str(one["clips"]),
        "floor, s": f"{one['floor']:.3g}",
        "bare, s": f"{one['bare']:.3g}",
        "stage, s": f"{one['work']:.3g}",
        "its start, s": f"{one['start']:.3g}",
        "frames a second": f"{one['rate']:,.0f}",
        "share of the bare pass": f"{one['share']:.2f}",
    }


if __name__ == "__main__":
    typer.run(main)
