"""How long the engines take to find that everything is up to date.

    python benchmarks/noop.py [--repeats 3] [--shards 2,16]

DVC runs the whole pipeline in a small clone of the project (tests/helpers/clones.py), and `make sync` tells Snakemake.
Then `dvc repro`, `dvc status dvc.yaml` and `snakemake -n` take turns. The last two also run in clones where nothing has
run yet, for several numbers of shards. Three minutes on two cores.
"""

import sys
from functools import partial
from pathlib import Path

import typer
from lib import projects, report, turns

sys.path.append(str(report.ROOT / "tests/helpers"))
from clones import clone, edit, run

TARGET = "results/table1.csv"
ENGINES = {
    "`dvc repro`": ("dvc", "repro"),
    "`dvc status dvc.yaml`": ("dvc", "status", "dvc.yaml"),
    f"`snakemake -n {TARGET}`": ("snakemake", "-n", "--cores", "1", TARGET),
}
IDLE = {"dvc": "up to date", "snakemake": "Nothing to be done"}  # part of the output of an engine without work


def main(repeats: int = 3, shards: str = "2,16") -> None:
    """`shards`: the numbers of shards of the clones in which nothing has run."""
    out, planned = report.Report("noop"), {}
    with projects.workplace() as home:
        print("the whole pipeline, once", flush=True)
        done = clone(home / "done")
        run(done, "dvc", "repro")
        run(done, sys.executable, "workflow/scripts/sync.py")
        taken = turns.take({name: partial(idle, done, *command) for name, command in ENGINES.items()}, repeats)
        for count in map(int, shards.split(",")):
            fresh = clone(home / f"fresh-{count}")
            edit(fresh, lambda params, count=count: params.update(shards=list(range(count))))
            ways = {name: partial(run, fresh, *ENGINES[name]) for name in list(ENGINES)[1:]}
            planned[count] = turns.take(ways, repeats)
    rows = [{"shards": count} | {name: seconds(name, found) for name in found} for count, found in planned.items()]
    out.write(
        {"repeats": repeats, "idle": taken, "planned": planned},
        f"Everything is up to date; medians of {repeats} turns, in seconds:",
        report.table([{"command": name, "seconds": seconds(name, taken)} for name in taken]),
        "Nothing has run yet; the same by the number of shards, in seconds:",
        report.table(rows),
    )


def idle(folder: Path, engine: str, *arguments: str) -> None:
    """Run an engine that should have nothing to do."""
    said = run(folder, engine, *arguments)
    assert IDLE[engine] in said, f"{engine}: not idle: {said[-1000:]}"


def seconds(name: str, taken: turns.Taken) -> str:
    return f"{turns.median(taken, name):.1f}"


if __name__ == "__main__":
    typer.run(main)
