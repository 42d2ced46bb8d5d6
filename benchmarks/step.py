"""A training step from the cache, compared with the same step from frames and with its lower bound.

    python benchmarks/step.py [--backbone ViT-B-32] [--batch 4] [--frames 12] [--repeats 3]

Three ways of one step, in turns:

    cache    the train stage: read rows, run both towers from there, loss, backward, clip gradients, optimizer step
    frames   the same stage without a cache for the video tower, which then starts at the pixels
    bare     forward and backward to the tokens, from tokens in memory, without an adapter

The methods are LoRM and RAP from four depths on, with the captions' embeddings cached; from the first block on also
LoRA, and LoRA and RAP with `merge` after a third and two thirds of the blocks; from the middle on also LoRM with its
text side, which runs through the whole text tower. After the last block a step is so short that it takes 32
batches at once, as a real training would, and frames are left out.

`predicted` is the ratio frames / cache by counted arithmetic: (prefix + suffix) / suffix, where the suffix is forward
and backward and includes the method. `counted` is cache / bare by counted arithmetic. `floor` is the floor of the bare
step (lib/ceilings.py). About eight minutes on two cores.
"""

import os
from collections.abc import Callable

import typer
from lib import ceilings, ours, projects, report, turns
from lib.ceilings import Ceilings
from lib.projects import Size

from rap.clip.towers import INPUT, Tower
from rap.features.cache import Batch
from rap.params import Params

LARGE = 32  # batches in one if a frame is one token
SHORT = (4, 64)  # steps per turn in the last block, and after it
TABLE = (
    "method | from block | pairs | floor, s | bare, s | cache, s | cache / bare | counted | frames, s | "
    "frames / cache | predicted",
    "{method} | {depth} | {batch} | {floor:.3g} | {bare:.3g} | {cache:.3g} | {over_bare:.2f} | {counted:.2f} | "
    "{frames:.3g} | {speedup:.2f} | {predicted:.2f}",
)


def main(backbone: str = "ViT-B-32", batch: int = 4, frames: int = 12, repeats: int = 3) -> None:
    """`batch`: pairs in a step."""
    out, layers, steps, limits = report.Report("step"), projects.blocks(backbone), [], None
    for depth in (0, layers // 2, layers - 1, layers):
        with projects.workplace():
            found = values(backbone, depth, batch, frames)
            settings = project(found)
            limits = limits or ceilings.measure(ours.load_clip(settings))
            steps += at_depth(settings, without_video_cache(found), depth, repeats, limits)
    out.write(
        {"ceilings": limits.figures(), "backbone": backbone, "frames": frames, "steps": steps},
        f"{backbone} with random weights, {frames} frames; medians of {repeats} turns. {limits.sentence()}",
        report.table(steps, TABLE),
    )


def values(backbone: str, depth: int, batch: int, frames: int) -> dict:
    """The parameters of a project with one batch of pairs, and the methods that start at `depth`."""
    layers = projects.blocks(backbone)
    found = projects.methods(projects.values(backbone, [depth], frames), depth)
    lorm = found["variants"]["LoRM"]
    if depth == 0:
        lora = {"adapter": "lora", "label": "LoRA"}
        merge = {"merge": {"blocks": [layers // 3, 2 * layers // 3]}}
        rap = found["variants"]["RAP"]
        found["variants"] |= {"LoRA": lora, "LoRA-and-merge": lora | merge, "RAP-and-merge": rap | merge}
    if depth == layers // 2:
        found["variants"]["LoRM-and-text"] = lorm | {"lorm": lorm["lorm"] | {"text": "scale"}}
    found["features"]["caches"] = [f"video-{depth}", "text-ids", "text-all"]
    steps = SHORT[depth - layers + 1] if depth >= layers - 1 else 1
    found["train"] |= {"batch": batch * (LARGE if depth == layers else 1), "epochs": steps}
    found["train"]["checkpoint_every"] = 1000  # never, because a turn would resume from the previous one
    found["runtime"]["threads"] = os.cpu_count()
    return found


def project(found: dict) -> Params:
    """A project of one batch of pairs with caches of noise, in the working directory."""
    settings = projects.load(found)
    projects.make(settings, Size(trained=settings.train.batch))
    ours.write_noise(settings)
    return settings


def without_video_cache(found: dict) -> Params:
    return projects.load(found | {"features": found["features"] | {"caches": ["text-ids", "text-all"]}})


def at_depth(settings: Params, uncached: Params, depth: int, repeats: int, limits: Ceilings) -> list[dict]:
    """The median seconds of a step in each of the three ways, and the ratios, for each method of a project."""
    steps, count = [], settings.train.epochs  # an epoch is one step
    for method in [name for name in settings.variants if name != "zero_shot"]:
        run = ours.OpenedRun(settings, method)
        ways = {"cache": run.train, "bare": bare(run, count)}
        if depth < run.model.clip.visual.layers:
            ways["frames"] = ours.OpenedRun(uncached, method).train
        taken = turns.take(ways, repeats, f"{method} from block {depth}")
        suffix, own, before = arithmetic(run, depth)
        one = {"method": method, "depth": depth, "batch": settings.train.batch}
        one |= {name: turns.median(taken, name) / count for name in ways}
        one |= {"over_bare": turns.ratio(taken, "cache", "bare"), "counted": own / suffix}
        one |= {"floor": limits.floor(suffix, run.video_bytes, ours.precision(settings, run.device))}
        if "frames" in ways:
            one |= {"speedup": turns.ratio(taken, "frames", "cache"), "predicted": (before + own) / own}
        steps.append(one)
    return steps


def bare(run: ours.OpenedRun, steps: int) -> Callable[[], None]:
    """`steps` times forward and backward without an adapter, from the tokens of the whole split and back to them."""
    model = ours.bare_model(run.model.clip)
    video, text = map(tokens, (model.clip.visual, model.clip.text), run.batch())

    def step() -> None:
        for _ in range(steps):
            video.x.grad = text.x.grad = None
            ours.loss(model, run.settings, video, text).backward()

    return step


def tokens(tower: Tower, batch: Batch) -> Batch:
    """A batch as tokens that require a gradient, unless they are finished embeddings."""
    if batch.position == INPUT:
        batch = Batch(tower.embed(batch.x), batch.length, 0)
    return Batch(batch.x.detach().requires_grad_(batch.position < tower.all), batch.length, batch.position)


def arithmetic(run: ours.OpenedRun, depth: int) -> tuple[float, float, float]:
    """Floating-point operations of a bare step, of the method's step, and of the video tower's frozen prefix.

    Assumes that the method's step exceeds the bare step by the same factor as its forward pass.
    """
    model, frames = run.model, run.settings.frames.count
    pixels = ours.one_clip(model, frames)
    before = ours.counted(lambda: ours.prefix(model.clip.visual, pixels.x, pixels.length, depth))
    forward, least = (ours.flops_per_clip(one, frames) - before for one in (model, ours.bare_model(model.clip)))
    suffix = ours.counted(bare(run, 1))
    return suffix, suffix * forward / least, before * len(run.split.videos)


if __name__ == "__main__":
    typer.run(main)
