"""A training step from the cache, against the same step from frames, and against the least that it could be.

    python benchmarks/step.py [--backbone ViT-B-32] [--batch 4] [--frames 12] [--repeats 3]

Three ways of one step, in turns:

    cache    the train stage: rows read, both towers from there, the loss, back, clipped, the optimizer's step
    frames   the same stage where the video tower has no cache: it begins at the pixels, in files too
    bare     tokens in memory, forward and back to the tokens; the same suffix of both towers, the loss, no adapter

The methods are LoRM and RAP from four depths on, their text side off: the captions' embeddings are cached. From the
middle LoRM is also there with its text side, which goes through the whole text tower. After the last block a step is so
short that it takes 32 batches in one, as a real training would; its way from frames, the whole tower, is left out.

`predicted` is what counted arithmetic says of the way from frames: (prefix + suffix forward and back) / (suffix forward
and back), the suffix with what the method adds to it. `floor` is the arithmetic of the bare step at the ceiling of
matrix products (ceilings.py).

About five minutes on two cores.
"""

import os
import tempfile
from collections.abc import Callable
from contextlib import chdir
from dataclasses import asdict
from pathlib import Path

import ceilings
import report
import synthetic
import torch
import turns
import typer
from ceilings import Ceilings
from features import precision

from rap.adapters import Adapter
from rap.clip.towers import INPUT, Tower
from rap.features.cache import Batch
from rap.features.stage import prefix
from rap.retrieval.loss import info_nce
from rap.retrieval.model import Retriever
from rap.runtime.device import autocast
from rap.training.costs import counted, flops_per_clip, one_clip
from rap.training.run import Experiment
from rap.training.stage import Pairs, State, fit

LARGE = 32  # batches in one, where a frame is one token
SHORT = (4, 64)  # steps in a turn where one is short: in the last block, and after it


def main(
    backbone: str = "ViT-B-32", batch: int = 4, frames: int = 12, repeats: int = 3, results: Path = report.RESULTS
) -> None:
    """`batch`: pairs in a step; `repeats`: turns that count."""
    about, results = report.machine(), results.resolve()
    limits = ceilings.measure(synthetic.random_clip(backbone).to(device()))
    layers, found = _layers(backbone), []
    for depth in (0, layers // 2, layers - 1, layers):
        with tempfile.TemporaryDirectory() as place, chdir(place):
            found += at_depth(values(backbone, depth, batch, frames), depth, repeats, limits)
    report.write(
        results,
        "step",
        {"machine": about, "ceilings": asdict(limits), "backbone": backbone, "frames": frames, "steps": found},
        report.sentence(about),
        f"{backbone} with random weights, {frames} frames; medians of {repeats} turns. {ceilings.sentence(limits)}",
        report.table([row(one) for one in found]),
        doc=report.ROOT / "docs/performance.md",
    )


def _layers(backbone: str) -> int:
    return synthetic.config(backbone)["model"]["vision_cfg"]["layers"]


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def values(backbone: str, depth: int, batch: int, frames: int) -> dict:
    """The parameters of a project with one batch of pairs, and the methods that start at `depth`."""
    found, layers = synthetic.values(backbone, [depth], frames), _layers(backbone)
    rap = found["variants"].pop(f"depth_{depth}")
    lorm = rap | {"adapter": "lorm"}
    lorm.pop("asa", None)
    found["variants"] |= {"LoRM": lorm} | ({"RAP": rap} if "asa" in rap else {})
    if depth == layers // 2:
        found["variants"]["LoRM, text too"] = lorm | {"lorm": lorm["lorm"] | {"text": "scale"}}
    found["tables"]["table1"]["variants"] = list(found["variants"])
    found["features"]["caches"] = [f"video-{depth}", "text-ids", "text-all"]
    steps = SHORT[depth - layers + 1] if depth >= layers - 1 else 1
    found["train"] |= {"batch": batch * (LARGE if depth == layers else 1), "epochs": steps}
    found["train"]["checkpoint_every"] = 1000  # none: a turn would go on from that of the turn before
    found["runtime"]["threads"] = os.cpu_count()
    return found | {"shards": [0]}


def at_depth(found: dict, depth: int, repeats: int, limits: Ceilings) -> list[dict]:
    """The methods of a project, in the present folder: seconds of a step each way, medians, and the ratios."""
    settings = synthetic.load(found)
    none = synthetic.load(found | {"features": found["features"] | {"caches": ["text-ids", "text-all"]}})
    synthetic.project(settings, train=settings.train.batch)
    synthetic.noise(settings)
    steps = []
    for method in [name for name in settings.variants if name != "zero_shot"]:
        experiment = Experiment(settings, method, 0)
        ways = {"cache": stage(experiment), "bare": bare(experiment, settings.train.epochs)}
        if depth < experiment.model.clip.visual.layers:
            ways["frames"] = stage(Experiment(none, method, 0))
        taken = turns.take(ways, repeats, f"{method} from block {depth}")
        suffix, own, before = arithmetic(experiment, depth)
        one = {"method": method, "depth": depth, "batch": settings.train.batch}
        one |= {name: turns.median(taken, name) / settings.train.epochs for name in ways}
        one |= {"over_bare": turns.ratio(taken, "cache", "bare")}
        one |= {
            "floor": limits.floor(suffix, experiment.video.nbytes, precision(experiment.params, experiment.model.clip))
        }
        if "frames" in ways:
            one |= {"speedup": turns.ratio(taken, "frames", "cache"), "predicted": (before + own) / own}
        steps.append(one)
    return steps


def stage(experiment: Experiment) -> Callable[[], None]:
    """The train stage's loop; an epoch is one step here."""
    data = Pairs(experiment.split("train"), experiment)
    return lambda: fit(experiment, data, State.begin(experiment, data))


def bare(experiment: Experiment, steps: int) -> Callable[[], None]:
    """Forward and back from the tokens of a whole split, in memory, to these tokens, with no adapter; so many times."""
    split, where = experiment.split("train"), experiment.device
    video, text = (
        tokens(tower, cache.batch(ids).to(where))
        for tower, cache, ids in (
            (experiment.model.clip.visual, experiment.video, split.videos),
            (experiment.model.clip.text, experiment.text, split.captions.caption_id.tolist()),
        )
    )
    model = Retriever(experiment.model.clip, Adapter())
    same = torch.eye(len(text.x), dtype=torch.bool, device=where)

    def step() -> None:
        for _ in range(steps):
            video.x.grad = text.x.grad = None
            with autocast(experiment.params.runtime, where):
                similarity = model.similarity(video, text)
            info_nce(similarity.float(), model.clip.logit_scale, same).backward()

    return step


def tokens(tower: Tower, batch: Batch) -> Batch:
    """A batch as tokens that want a gradient; finished embeddings, before which nothing is trained, want none."""
    if batch.position == INPUT:
        batch = Batch(tower.embed(batch.x), batch.length, 0)
    return Batch(batch.x.detach().requires_grad_(batch.position < tower.all), batch.length, batch.position)


def arithmetic(experiment: Experiment, depth: int) -> tuple[float, float, float]:
    """Floating-point operations of a bare step, of the method's, and of the frozen part of the video tower before it.

    The method's step is taken to be more than the bare one by as much as its pass forward is.
    """
    model, frames = experiment.model, experiment.params.frames.count
    pixels = one_clip(model, frames)
    before = counted(lambda: prefix(model.clip.visual, pixels.x, pixels.length, depth))
    forward, least = (flops_per_clip(one, frames) - before for one in (model, Retriever(model.clip, Adapter())))
    suffix = counted(bare(experiment, 1))
    return suffix, suffix * forward / least, before * len(experiment.split("train").videos)


def row(one: dict) -> dict:
    def seconds(value: float) -> str:
        return f"{value:.3g}"

    return {
        "method": one["method"],
        "from block": str(one["depth"]),
        "pairs": str(one["batch"]),
        "floor, s": seconds(one["floor"]),
        "bare, s": seconds(one["bare"]),
        "cache, s": seconds(one["cache"]),
        "cache / bare": f"{one['over_bare']:.2f}",
        "frames, s": seconds(one["frames"]) if "frames" in one else "",
        "frames / cache": f"{one['speedup']:.2f}" if "frames" in one else "",
        "predicted": f"{one['predicted']:.2f}" if "frames" in one else "",
    }


if __name__ == "__main__":
    typer.run(main)
