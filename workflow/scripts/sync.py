"""Bring DVC and Snakemake in step after one of them ran: `make sync`.

DVC knows results by their contents, Snakemake by their times. The engine that ran says that it has nothing left to
do; the other is then told to take the files as they are. If neither says so, nothing is touched: a changed parameter
must be run, never blessed.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

ADVICE = "run `dvc repro`, or `snakemake --cores 8`, to its end; then `make sync` again"


PIPELINES = {"all": "dvc.yaml", "ablations": "workflow/ablations/dvc.yaml"}  # Snakemake's target: DVC's file


def main() -> None:
    for target, pipeline in PIPELINES.items():
        if target == "all" or Path("results", target).exists():
            sync(target, pipeline)
    print("sync: DVC and Snakemake are both up to date")


def sync(target: str, pipeline: str) -> None:
    changes = dvc_changes(pipeline)
    done = snakemake_has_nothing_to_do(target)
    if changes and not done:
        refuse(f"neither engine is up to date (dvc: {first(changes)}); {ADVICE}")
    if changes:
        if suspects := [stage for stage, change in changes.items() if is_suspect(change)]:
            refuse(f"{first(suspects)}: parameters changed, results did not; `dvc repro {pipeline}`, then sync again")
        call("dvc", "commit", "--force", "--quiet", pipeline)
    if changes or not done:
        mark_done(target)
        call("snakemake", "--cores", "1", "--touch", "--forceall", target)
        if dvc_changes(pipeline) or not snakemake_has_nothing_to_do(target):
            refuse(f"the engines still differ; {ADVICE}")


def dvc_changes(pipeline: str) -> dict[str, list]:
    """What DVC would run again, by stage, with its reasons."""
    return json.loads(call("dvc", "status", "--json", pipeline))


def snakemake_has_nothing_to_do(target: str) -> bool:
    return "Nothing to be done" in call("snakemake", "--cores", "1", "--dry-run", target)


def mark_done(target: str) -> None:
    """Make the empty files by which Snakemake knows finished jobs; it touches only what is there."""
    jobs = call("snakemake", "--cores", "1", "--dry-run", "--forceall", target)
    for name in set(re.findall(r"workflow/done/[^\s,]+", jobs)):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def is_suspect(change: list) -> bool:
    """Whether a stage's outputs are still those that DVC made with other parameters, as after `dvc checkout --force`.

    A parameter that does not matter to its stage looks the same; then `dvc repro` is quick.
    """
    kinds = {kind: files for reason in change if isinstance(reason, dict) for kind, files in reason.items()}
    return "params.yaml" in kinds.get("changed deps", {}) and "changed outs" not in kinds


def first(names) -> str:
    names = list(names)
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def call(*command: str) -> str:
    """Run a command; its output, both streams. A failure ends the program with the command's last words."""
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        words = (result.stderr or result.stdout).strip().splitlines() or [f"exit status {result.returncode}"]
        refuse(f"`{' '.join(command)}` failed: {words[-1]}")
    return result.stdout if "--json" in command else result.stdout + result.stderr


def refuse(why: str) -> NoReturn:
    sys.exit(f"sync: {why}")


if __name__ == "__main__":
    main()
