"""What each engine would run now in a clone, and the clones that they share."""

import json
import re
from pathlib import Path

from clones import run

BLOCK = re.compile(
    r"^(?:local)?rule (?P<rule>\w+):\n(?P<fields>(?:    .*\n)+)(?:Shell command: (?P<command>.*)\n)?", re.M
)
TARGETS = {"all": "dvc.yaml", "ablations": "workflow/ablations/dvc.yaml"}  # of Snakemake: of DVC


def planned(folder: Path, engine: str, target: str = "all") -> set[str]:
    """The commands of the jobs that an engine would run now."""
    return {"dvc": _by_dvc, "snakemake": _by_snakemake}[engine](folder, target)


def _by_dvc(folder: Path, target: str) -> set[str]:
    """DVC learns what changed from its first stage, so that one runs."""
    run(folder, "dvc", "repro", "--quiet", "provenance")
    stale = json.loads(run(folder, "dvc", "status", "--json", TARGETS[target]))
    return {command_of(name.rpartition(":")[2]) for name in stale}


def command_of(stage: str) -> str:
    """`features@video-0-1` as a command. A stage of all seeds is that of seed 0: the projects of the tests have one."""
    name, _, item = stage.partition("@")
    options = {"features": ("cache", "shard"), "frames": ("shard",)}.get(name, ("variant", "seed"))
    if name.startswith("table"):
        return f"rap table --table {name}"
    values = [item, "0"] if "seed" in options and item else item.rsplit("-", len(options) - 1) if item else []
    return " ".join(["rap", name, *(f"--{option} {value}" for option, value in zip(options, values, strict=False))])


def _by_snakemake(folder: Path, target: str) -> set[str]:
    printed = run(folder, "snakemake", "--dry-run", "--printshellcmds", "--cores", "1", target)
    blocks = [block for block in BLOCK.finditer(printed) if block["command"] and "rap " in block["command"]]
    return {block["command"].partition(" > ")[0] for block in blocks}
