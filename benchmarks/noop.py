"""Nothing to do: how long the engines take to find that out, after the whole job ran once.

    python benchmarks/noop.py [--repeats 3] [--shards 2,16]

The job runs in a clone of the project made small (tests/clones.py), with DVC, and `make sync` tells Snakemake. Then
`dvc repro`, `dvc status dvc.yaml` and `snakemake -n` take turns. How it grows with the number of jobs: the latter two
in clones in which nothing ran yet, with so many `--shards`. Three minutes on two cores.
"""

import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import report
import turns
import typer

sys.path.append(str(report.ROOT / "tests"))
from clones import clone, edit, run

TARGET = "results/table1.csv"
DRY = ("snakemake", "-n", "--cores", "1", TARGET)
ENGINES = {
    "`dvc repro`": ("dvc", "repro"),
    "`dvc status dvc.yaml`": ("dvc", "status", "dvc.yaml"),
    f"`snakemake -n {TARGET}`": DRY,
}
IDLE = {"dvc": "up to date", "snakemake": "Nothing to be done"}  # what an engine says that has nothing to do


def main(repeats: int = 3, shards: str = "2,16", results: Path = report.RESULTS) -> None:
    """`shards`: numbers of them, for the clones in which nothing ran."""
    results, about = results.resolve(), report.machine()
    with tempfile.TemporaryDirectory() as home:
        ran = finished(Path(home) / "ran")
        idle = medians({name: partial(nothing, ran, *command) for name, command in ENGINES.items()}, repeats)
        fresh = [unstarted(Path(home) / f"fresh-{count}", count) for count in map(int, shards.split(","))]
        planned = {
            folder.name.removeprefix("fresh-"): medians(
                {name: partial(run, folder, *ENGINES[name]) for name in list(ENGINES)[1:]}, repeats
            )
            for folder in fresh
        }
    report.write(
        results,
        "noop",
        {"machine": about, "repeats": repeats, "idle": idle, "planned": planned},
        report.sentence(about),
        f"Everything is up to date; medians of {repeats} turns, in seconds:",
        report.table([{"command": name, "seconds": f"{seconds:.1f}"} for name, seconds in idle.items()]),
        "Nothing has run yet, and the same is asked, in seconds, by the number of shards:",
        report.table([{"shards": n} | {k: f"{v:.1f}" for k, v in found.items()} for n, found in planned.items()]),
        doc=report.ROOT / "docs/performance.md",
    )


def finished(folder: Path) -> Path:
    """A small clone in which both engines have nothing to do."""
    clone(folder)
    print("the whole job, once", flush=True)
    run(folder, "dvc", "repro")
    run(folder, sys.executable, "workflow/scripts/sync.py")
    return folder


def unstarted(folder: Path, shards: int) -> Path:
    clone(folder)
    edit(folder, lambda params: params.update(shards=list(range(shards))))
    return folder


def nothing(folder: Path, engine: str, *arguments: str) -> None:
    """Run an engine that must have nothing to do."""
    said = run(folder, engine, *arguments)
    assert IDLE[engine] in said, f"{engine}: not idle: {said[-1000:]}"


def medians(ways: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    taken = turns.take(ways, repeats)
    return {name: turns.median(taken, name) for name in ways}


if __name__ == "__main__":
    typer.run(main)
