"""Run benchmarks one after another: `make bench`. All of them take about half an hour on two idle cores.

    python benchmarks [NAME ...]

Each runs with its defaults in its own process and writes benchmarks/results/NAME.json and .md, and its table in docs/.
A failure does not stop the others. The last lines list the outcomes; the exit status is 1 if one failed.
"""

import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from lib import report

BENCHMARKS = (
    "decoders", "features", "step", "profiles", "epoch", "evaluation", "search", "page", "noop", "growth",
    "verification", "families",
)  # fmt: skip
OTHERS = {  # not part of `make bench`
    "units": "needs a folder of videos",
    "slurm": "needs root",
    "msrvtt_size": "needs 10 GB of disk and more memory",
    "gpu": "needs a GPU",
    "recordings": "takes twenty minutes",
    "indexing": "takes more than half an hour",
    "manifest": "prints seconds only",
}


def main(names: Annotated[list[str] | None, typer.Argument(help="Benchmarks to run; default: all.")] = None) -> None:
    rows = [run(name) for name in names or BENCHMARKS]
    print(report.table(rows))
    sys.exit(any(row["result"] != "ok" for row in rows))


def run(name: str) -> dict:
    """Run a benchmark; return a row of the summary."""
    print(f"\n== {name}", flush=True)
    began = time.perf_counter()
    status = subprocess.run([sys.executable, Path(__file__).with_name(f"{name}.py")]).returncode
    seconds = f"{time.perf_counter() - began:.0f}"
    return {"benchmark": name, "seconds": seconds, "result": "failed" if status else "ok"}


if __name__ == "__main__":
    typer.run(main)
