"""The time that the engines need to find that everything is up to date.

    python benchmarks/noop.py [--repeats 3] [--shards 2,16]

DVC runs the whole pipeline in a small clone of the project (tests/helpers/clones.py); Snakemake uses its results. Then
`dvc repro`, `dvc status`, `snakemake` and `snakemake -n` run in turns, together with `dvc repro` in a bare
project: as many stages, each with one file in and one file out, and a params.yaml of ten lines. The two commands that
only plan also run in clones without results, for several numbers of shards. Four minutes on two cores.
"""

import subprocess
import sys
from functools import partial
from pathlib import Path

import typer
import yaml
from lib import projects, report, turns

sys.path.append(str(report.ROOT / "tests/helpers"))
from clones import GIT, clone, edit, run

TARGET = "results/table1.csv"
ENGINES = {
    "`dvc repro`": ("dvc", "repro"),
    "`dvc status`": ("dvc", "status"),
    f"`snakemake {TARGET}`": ("snakemake", "--cores", "1", TARGET),
    f"`snakemake -n {TARGET}`": ("snakemake", "-n", "--cores", "1", TARGET),
}
PLANNING = [name for name, command in ENGINES.items() if {"status", "-n"} & set(command)]  # they run no stage
OURS, BARE = "`dvc repro`", "`dvc repro`, bare project"
IDLE = {"dvc": "up to date", "snakemake": "Nothing to be done"}  # part of an engine's output if nothing is to be done


def main(repeats: int = 3, shards: str = "2,16") -> None:
    """`shards`: the numbers of shards of the clones in which nothing has run."""
    out, planned = report.Report("noop"), {}
    with projects.workplace() as home:
        print("the whole pipeline, once", flush=True)
        done = clone(home / "done")
        run(done, "dvc", "repro")
        stages = len(run(done, "dvc", "stage", "list", "--name-only").split())
        ways = {name: partial(idle, done, *command) for name, command in ENGINES.items()}
        taken = turns.take(ways | {BARE: partial(idle, bare(home / "bare", stages), "dvc", "repro")}, repeats)
        for count in map(int, shards.split(",")):
            fresh = clone(home / f"fresh-{count}")
            edit(fresh, lambda params, count=count: params.update(shards=list(range(count))))
            ways = {name: partial(run, fresh, *ENGINES[name]) for name in PLANNING}
            planned[count] = turns.take(ways, repeats)
    rows = [{"shards": count} | {name: seconds(name, found) for name in found} for count, found in planned.items()]
    ratio = turns.ratio(taken, OURS, BARE)
    out.write(
        {"repeats": repeats, "stages": stages, "ratio": ratio, "idle": taken, "planned": planned},
        f"Everything is up to date; medians of {repeats} turns, in seconds:",
        report.table([{"command": name, "seconds": seconds(name, taken)} for name in taken]),
        f"The bare project has {stages} stages too. `dvc repro` takes {ratio:.2f} times as long as there.",
        "Nothing has run yet; the same by the number of shards, in seconds:",
        report.table(rows),
    )


def bare(folder: Path, stages: int) -> Path:
    """A project that DVC has run, of `stages` stages in a chain and a params.yaml of ten lines."""
    folder.mkdir()
    (folder / "params.yaml").write_text("".join(f"p{n}: {n}\n" for n in range(10)))
    (folder / "0.txt").write_text("0\n")
    chain = {
        f"s{n}": {
            "cmd": f"cp {n}.txt {n + 1}.txt",
            "deps": [f"{n}.txt"],
            "params": [f"p{n % 10}"],
            "outs": [{f"{n + 1}.txt": {"cache": False}}],
        }
        for n in range(stages)
    }
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": chain}, sort_keys=False))
    subprocess.run([*GIT, "init", "--quiet"], cwd=folder, check=True)
    run(folder, "dvc", "init", "--quiet")
    run(folder, "dvc", "repro", "--quiet")
    return folder


def idle(folder: Path, engine: str, *arguments: str) -> None:
    """Run an engine that should have nothing to do."""
    said = run(folder, engine, *arguments)
    assert IDLE[engine] in said, f"{engine}: not idle: {said[-1000:]}"


def seconds(name: str, taken: turns.Taken) -> str:
    return f"{turns.median(taken, name):.1f}"


if __name__ == "__main__":
    typer.run(main)
