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
    """The ablations come along if one engine has made them all, in the same pass: each touch makes files newer."""
    targets = ["all"]
    if Path("results/ablations").exists() and (
        not dvc_changes(["ablations"]) or snakemake_has_nothing_to_do(["ablations"])
    ):
        targets.append("ablations")
    sync(targets)
    print("sync: DVC and Snakemake are both up to date")


def sync(targets: list[str]) -> None:
    changes = dvc_changes(targets)
    done = snakemake_has_nothing_to_do(targets)
    if changes and not done:
        refuse(f"neither engine is up to date (dvc: {first(changes)}); {ADVICE}")
    if changes:
        if suspects := [stage for stage, change in changes.items() if is_suspect(change)]:
            refuse(f"{first(suspects)}: parameters changed, results did not; run `dvc repro`, then `make sync` again")
        call("dvc", "commit", "--force", "--quiet", *pipelines(targets))
    if changes or not done:
        mark_done(targets)
        call("snakemake", "--cores", "1", "--touch", "--forceall", *targets)
        if dvc_changes(targets) or not snakemake_has_nothing_to_do(targets):
            refuse(f"the engines still differ; {ADVICE}")


def pipelines(targets: list[str]) -> list[str]:
    """DVC's files for targets of Snakemake."""
    return [PIPELINES[target] for target in targets]


def dvc_changes(targets: list[str]) -> dict[str, list]:
    """What DVC would run again, by stage, with its reasons."""
    return json.loads(call("dvc", "status", "--json", *pipelines(targets)))


def snakemake_has_nothing_to_do(targets: list[str]) -> bool:
    return "Nothing to be done" in call("snakemake", "--cores", "1", "--dry-run", *targets)


def mark_done(targets: list[str]) -> None:
    """Make the empty files by which Snakemake knows finished jobs; it touches only what is there."""
    jobs = call("snakemake", "--cores", "1", "--dry-run", "--forceall", *targets)
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
