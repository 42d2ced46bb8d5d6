"""All benchmarks, one after another: `make bench`. About half an hour on two idle cores.

    python benchmarks [NAME ...]

Each runs as it is, with its defaults, in a process of its own, and writes benchmarks/results/NAME.json and .md and the
table in the document that has its marks. One that fails does not stop the others: the last lines say which did, and the
exit status is 1.
"""

import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import report
import typer

BENCHMARKS = ("decoders", "features", "step", "profiles", "epoch", "evaluation", "search", "noop", "growth")
OTHERS = {  # those that `make bench` leaves out
    "units": "asks for a folder of videos",
    "slurm": "asks for root",
    "msrvtt_size": "asks for 10 GB of disk and more memory",
    "gpu": "asks for a GPU",
    "manifest": "prints, and what it times is part of growth",
    "ceilings": "prints what the others measure on the way",
}


def main(names: Annotated[list[str] | None, typer.Argument(help="Which; without, all.")] = None) -> None:
    rows = [run(name) for name in names or BENCHMARKS]
    print(report.table(rows))
    if any(row["result"] != "ok" for row in rows):
        sys.exit(1)


def run(name: str) -> dict:
    """A row of the summary."""
    print(f"\n== {name}", flush=True)
    began = time.perf_counter()
    status = subprocess.run([sys.executable, Path(__file__).with_name(f"{name}.py")]).returncode
    return {
        "benchmark": name,
        "seconds": f"{time.perf_counter() - began:.0f}",
        "result": "failed" if status else "ok",
        "table": f"benchmarks/results/{name}.md",
    }


if __name__ == "__main__":
    typer.run(main)
