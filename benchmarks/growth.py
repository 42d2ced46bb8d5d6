"""How cost grows: seconds and own memory of each stage over videos, captions, frames and variants, at four sizes.

    python benchmarks/growth.py [--start 1.0] [--repeats 2]

Sizes double. Each measurement runs in its own process, without imports and preparation. The exponent is the slope of a
line through the logarithms of cost and size. A constant cost makes it smaller, so the last doubling is given and
checked as well. Every exponent should be at most 1. The similarity has captions times videos entries: if both grow
together, its time may have exponent 2, but not its memory. If a stage grows faster, the benchmark fails after it has
written the table. Noise on a backbone of the demo's size; six minutes on two cores.
"""

import math
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import chdir
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import typer
from lib import ours, projects, report, turns
from lib.projects import Size
from lib.turns import Cost

from rap.retrieval import metrics

DOUBLINGS = 3
SLACK = 0.2  # a measured exponent may exceed the expected one by this much
LEAST = {"seconds": 0.1, "megabytes": 4}  # smaller costs do not count as growth: every process has a constant cost
CACHE = "video-3"
TABLE = (
    "stage | grows | from, to | seconds | exponent (last doubling) | MB | of memory | expected",
    "{stage} | {grows} | {first:,}, {last:,} | {costs[0][seconds]:.2f}, {costs[3][seconds]:.2f} | "
    "{exponents[seconds][0]:.2f} ({exponents[seconds][1]:.2f}) | "
    "{costs[0][megabytes]:.0f}, {costs[3][megabytes]:.0f} | "
    "{exponents[megabytes][0]:.2f} ({exponents[megabytes][1]:.2f}) | {expected[seconds]}, {expected[megabytes]}{mark}",
)

Work = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """A stage, the fields of Size that double together, the first size, and the largest expected exponents."""

    stage: Callable[[Size], Work]
    grows: tuple[str, ...]
    start: Size
    time: int = 1
    memory: int = 1


def bookkeeping(size: Size) -> Work:
    """Make, write and read the manifest, open the caches, digest the inputs of a run, order an epoch."""
    settings = projects.small(size)

    def work() -> None:
        ours.write_manifest(settings, projects.manifest(size))
        ours.OpenedRun(settings, "rap").list_inputs()

    return work


def clips(size: Size) -> Work:
    """The features stage of one shard of clips."""
    return partial(ours.remake_cache, projects.small(size), CACHE)


def captions(size: Size) -> Work:
    """The features stage of one shard of captions."""
    return partial(ours.remake_cache, projects.small(size), "text-all")


def epoch(size: Size) -> Work:
    """The train stage, one epoch."""
    settings = projects.small(size)
    shutil.rmtree(ours.run_folder(settings, "rap"), ignore_errors=True)
    return partial(ours.train, settings, "rap")


def evaluate(size: Size) -> Work:
    """The evaluate stage of an adapter that was trained for one epoch."""
    settings = projects.small(size)
    if not ours.run_folder(settings, "rap").exists():
        ours.train(settings, "rap")
    return partial(ours.evaluate, settings, "rap")


def ranks(size: Size) -> Work:
    """Ranks of both directions from a memory-mapped matrix."""
    if not Path("similarity.npy").exists():
        shape = (size.queries, size.tested)
        np.save("similarity.npy", np.random.default_rng(0).standard_normal(shape, np.float32))
    similarity, owner = np.load("similarity.npy", mmap_mode="r"), np.arange(size.queries) % size.tested
    return lambda: (metrics.text_to_video(similarity, owner), metrics.video_to_text(similarity, owner))


def table(size: Size) -> Work:
    """The table stage over copies of one run, which the first turn logs to MLflow."""
    settings = projects.small(size)
    first, *others = settings.tables["table1"].variants
    if not ours.run_folder(settings, first).exists():
        ours.train(settings, first)
        ours.evaluate(settings, first)
        for name in others:
            ours.copy_run(settings, first, name)
    return partial(ours.table, settings, "table1")


BOTH = ("tested", "queries")
CASES = (
    Case(bookkeeping, ("trained",), Size(trained=1500, captions=10)),
    Case(bookkeeping, ("captions",), Size(trained=1500, captions=10)),
    Case(clips, ("trained",), Size(trained=128)),
    Case(clips, ("frames",), Size(trained=128, frames=8)),
    Case(captions, ("captions",), Size(trained=512, captions=4)),
    Case(epoch, ("trained",), Size(trained=512)),
    Case(epoch, ("captions",), Size(trained=512)),
    Case(epoch, ("frames",), Size(trained=256, frames=4)),
    Case(evaluate, ("tested",), Size(tested=500, queries=4000)),  # at least one query per video
    Case(evaluate, ("queries",), Size(tested=500, queries=8000)),
    Case(evaluate, BOTH, Size(tested=1000, queries=1000), time=2),
    Case(evaluate, ("frames",), Size(tested=500, queries=500, frames=4)),
    Case(ranks, ("tested",), Size(tested=1000, queries=4000)),
    Case(ranks, ("queries",), Size(tested=2000, queries=4000)),
    Case(ranks, BOTH, Size(tested=1500, queries=1500), time=2),
    Case(table, ("variants",), Size(variants=4, tested=500, queries=500)),
    Case(table, BOTH, Size(variants=4, tested=500, queries=500)),
)


def main(start: float = 1.0, repeats: int = 2) -> None:
    """`start`: a factor on the sizes."""
    out = report.Report("growth")
    found = [grown(case, start, repeats) for case in CASES]
    out.write(
        {"repeats": repeats, "cases": found},
        f"Medians of {repeats} turns at four sizes, each twice the one before. MB are own memory beyond the start.",
        report.table(found, TABLE),
    )
    if faster := [f"{one['stage']} over {one['grows']}" for one in found if one["mark"]]:
        sys.exit(f"grows faster than expected: {', '.join(faster)}")


def grown(case: Case, start: float, repeats: int) -> dict:
    """Costs at the sizes of a case, and their exponents; `mark` is " !" if one exceeds its limit."""
    sizes = [scaled(case, start, step) for step in range(DOUBLINGS + 1)]
    print(f"{case.stage.__name__} over {' and '.join(case.grows)}", flush=True)
    with projects.workplace() as home:
        ways = {str(number): placed(case, size, home / str(number)) for number, size in enumerate(sizes)}
        costs = list(turns.costs(ways, repeats).values())
    amounts = [getattr(size, case.grows[0]) for size in sizes]
    growth = {kind: exponents(amounts, costs, kind) for kind in LEAST}
    limits = {"seconds": case.time, "megabytes": case.memory}
    return {
        "stage": case.stage.__name__,
        "grows": " and ".join(case.grows),
        "first": amounts[0],
        "last": amounts[-1],
        "sizes": [asdict(size) for size in sizes],
        "costs": [vars(cost) for cost in costs],
        "exponents": growth,
        "expected": limits,
        "mark": " !" if any(max(growth[kind]) > limits[kind] + SLACK for kind in limits) else "",
    }


def placed(case: Case, size: Size, folder: Path) -> Callable[[], Work]:
    """Make a project of this size in `folder`; the stage of the case there."""
    folder.mkdir()
    with chdir(folder):
        projects.make_small(size)
    return partial(inside, folder, case.stage, size)


def inside(folder: Path, stage: Callable[[Size], Work], size: Size) -> Work:
    os.chdir(folder)
    return stage(size)


def scaled(case: Case, start: float, step: int) -> Size:
    first = {name: max(2, round(start * getattr(case.start, name))) for name in case.grows}
    return replace(case.start, **{name: 2**step * count for name, count in first.items()})


def exponents(amounts: list[int], costs: list[Cost], kind: str) -> tuple[float, float]:
    """The exponents over all sizes and of the last doubling."""
    x = [math.log2(amount) for amount in amounts]
    y = [math.log2(max(getattr(cost, kind), LEAST[kind])) for cost in costs]
    return float(np.polyfit(x, y, 1)[0]), (y[-1] - y[-2]) / (x[-1] - x[-2])


if __name__ == "__main__":
    typer.run(main)
