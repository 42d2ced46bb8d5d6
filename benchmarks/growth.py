"""How cost grows: seconds and own memory of each stage against videos, captions, frames and variants, at four sizes.

    python benchmarks/growth.py [--start 1.0] [--repeats 2]

Sizes double. Every measurement is a process of its own after its imports; what is made before it is not counted. The
exponent is the slope of a line through the logarithms of cost and size; what costs the same at any size makes it
smaller, so the last doubling is shown and checked as well. Everything should grow with exponent 1 at most, but the
similarity, which has captions times videos entries: where both grow together its time may have exponent 2, its memory
may not. A stage that grows faster is an error, after the table is written. Noise on a backbone of the demo's size; six
minutes on two cores.
"""

import math
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import apart
import numpy as np
import report
import scratch
import synthetic
import typer
from apart import Cost
from scratch import Size

from rap.evaluation import stage as evaluation
from rap.features import stage as features
from rap.files import read_json, write_json
from rap.params import Params
from rap.report import table as tables
from rap.retrieval import metrics
from rap.training import stage as training
from rap.training.run import Experiment, run_folder

DOUBLINGS = 3
SLACK = 0.2  # by which a measured exponent may exceed the expected one
LEAST = {"seconds": 0.1, "bytes": 4e6}  # what a process takes anyhow, such as the buffers of a library, is no growth
CACHE, ADAPTED, TABLE = f"video-{scratch.BLOCK}", "rap", "table1"

Work = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """A stage, what grows, from which size on, and the exponents that are expected at most, of time and memory."""

    stage: Callable[[str, Size], Work]
    grows: tuple[str, ...]  # fields of Size that double together
    start: Size
    time: int = 1
    memory: int = 1


def bookkeeping(folder: str, size: Size) -> Work:
    """Rows of the manifest made, written and read; caches opened, their digests, and the order of an epoch."""
    settings = scratch.enter(folder, size)

    def work() -> None:
        scratch.manifest(size).write(settings.data / "manifest")
        experiment = Experiment(settings, ADAPTED, 0)
        data = training.Pairs(experiment.split("train"), experiment)
        assert experiment.digests and data.steps

    return work


def clips(folder: str, size: Size) -> Work:
    return extract(CACHE, folder, size)


def captions(folder: str, size: Size) -> Work:
    return extract("text-all", folder, size)


def extract(cache: str, folder: str, size: Size) -> Work:
    """The features stage of one shard, all rows to be made."""
    settings = scratch.enter(folder, size)
    for file in (settings.data / "features" / cache).glob("shard-0.*"):
        file.unlink()
    return partial(features.run, settings, cache, 0)


def epoch(folder: str, size: Size) -> Work:
    """The train stage, one epoch."""
    settings = scratch.enter(folder, size)
    shutil.rmtree(run_folder(settings, ADAPTED, 0), ignore_errors=True)
    return partial(training.run, settings, ADAPTED, 0)


def evaluate(folder: str, size: Size) -> Work:
    """The evaluate stage of an adapter that was trained for one epoch."""
    settings = scratch.enter(folder, size)
    if not run_folder(settings, ADAPTED, 0).exists():
        training.run(settings, ADAPTED, 0)
    return partial(evaluation.run, settings, ADAPTED, 0)


def ranks(folder: str, size: Size) -> Work:
    """Ranks of both directions from a matrix that is memory-mapped."""
    scratch.enter(folder, size)
    if not Path("similarity.npy").exists():
        shape = (size.queries, size.tested)
        np.save("similarity.npy", np.random.default_rng(0).standard_normal(shape, np.float32))
    similarity, owner = np.load("similarity.npy", mmap_mode="r"), np.arange(size.queries) % size.tested
    return lambda: (metrics.text_to_video(similarity, owner), metrics.video_to_text(similarity, owner))


def table(folder: str, size: Size) -> Work:
    """The table stage; its runs are copies of one, and logged from the first turn on."""
    settings = scratch.enter(folder, size)
    first, *others = settings.tables[TABLE].variants
    if not run_folder(settings, first, 0).exists():
        training.run(settings, first, 0)
        evaluation.run(settings, first, 0)
        for name in others:
            copied(settings, first, name)
    return partial(tables.run, settings, TABLE)


def copied(settings: Params, first: str, name: str) -> None:
    """The run of variant `first` as the run of `name`."""
    source, target = (run_folder(settings, variant, 0) for variant in (first, name))
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("similarity.npy"))
    for file in ("run.json", "metrics.json"):
        write_json(target / file, read_json(target / file) | {"variant": name})


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
    Case(evaluate, ("tested",), Size(tested=500, queries=1000)),
    Case(evaluate, ("queries",), Size(tested=500, queries=8000)),
    Case(evaluate, BOTH, Size(tested=1000, queries=1000), time=2),
    Case(evaluate, ("frames",), Size(tested=500, frames=4)),
    Case(ranks, ("tested",), Size(tested=1000, queries=4000)),
    Case(ranks, ("queries",), Size(tested=2000, queries=4000)),
    Case(ranks, BOTH, Size(tested=1500, queries=1500), time=2),
    Case(table, ("variants",), Size(variants=4, tested=500, queries=500)),
    Case(table, BOTH, Size(variants=4, tested=500, queries=500)),
)


def main(start: float = 1.0, repeats: int = 2, results: Path = report.RESULTS) -> None:
    """`start`: a factor on the sizes."""
    results, about = results.resolve(), report.machine()
    found = [grown(case, start, repeats) for case in CASES]
    report.write(
        results,
        "growth",
        {"machine": about, "repeats": repeats, "cases": found},
        report.sentence(about),
        f"Medians of {repeats} turns at four sizes, each twice the one before. MB are own memory beyond the start.",
        report.table([row(one) for one in found]),
    )
    if faster := [f"{one['stage']} over {one['grows']}" for one in found if not one["as expected"]]:
        sys.exit(f"grows faster than expected: {', '.join(faster)}")


def grown(case: Case, start: float, repeats: int) -> dict:
    """Costs at the sizes of a case, exponents, and whether these are as expected."""
    name, sizes = case.stage.__name__, [scaled(case, start, step) for step in range(DOUBLINGS + 1)]
    print(f"{name} over {' and '.join(case.grows)}", flush=True)
    with tempfile.TemporaryDirectory() as home:
        works = {}
        for number, size in enumerate(sizes):
            folder = Path(home) / str(number)
            folder.mkdir()
            scratch.make(str(folder), size)
            works[str(number)] = (case.stage, str(folder), size)
        costs = list(apart.take(works, repeats).values())
        os.chdir(synthetic.ROOT)
    amounts = [getattr(size, case.grows[0]) for size in sizes]
    growth = {kind: exponents(amounts, costs, kind) for kind in ("seconds", "bytes")}
    limits = {"seconds": case.time, "bytes": case.memory}
    return {
        "stage": name,
        "grows": " and ".join(case.grows),
        "sizes": [asdict(size) for size in sizes],
        "amounts": amounts,
        "costs": [asdict(cost) for cost in costs],
        "exponents": growth,
        "expected": limits,
        "as expected": all(max(growth[kind]) <= limits[kind] + SLACK for kind in limits),
    }


def scaled(case: Case, start: float, step: int) -> Size:
    first = {name: max(2, round(start * getattr(case.start, name))) for name in case.grows}
    return replace(case.start, **{name: 2**step * count for name, count in first.items()})


def exponents(amounts: list[int], costs: list[Cost], kind: str) -> tuple[float, float]:
    """Of all sizes, and of the last doubling."""
    x = [math.log2(amount) for amount in amounts]
    y = [math.log2(max(getattr(cost, kind), LEAST[kind])) for cost in costs]
    return float(np.polyfit(x, y, 1)[0]), (y[-1] - y[-2]) / (x[-1] - x[-2])


def row(one: dict) -> dict:
    amounts, costs, growth = one["amounts"], one["costs"], one["exponents"]
    return {
        "stage": one["stage"],
        "grows": one["grows"],
        "from, to": f"{amounts[0]:,}, {amounts[-1]:,}",
        "seconds": f"{costs[0]['seconds']:.2f}, {costs[-1]['seconds']:.2f}",
        "exponent (last doubling)": "{:.2f} ({:.2f})".format(*growth["seconds"]),
        "MB": f"{costs[0]['bytes'] / 1e6:.0f}, {costs[-1]['bytes'] / 1e6:.0f}",
        "of memory": "{:.2f} ({:.2f})".format(*growth["bytes"]),
        "expected": f"{one['expected']['seconds']}, {one['expected']['bytes']}" + " !" * (not one["as expected"]),
    }


if __name__ == "__main__":
    typer.run(main)
