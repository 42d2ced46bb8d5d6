"""What each engine would run now in a clone, and the clones that they share."""

import json
import re
from pathlib import Path

from clones import run

from rap.params import load
from rap.stages import STAGES, axes

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
    return set().union(*(commands_of(folder, name.rpartition(":")[2]) for name in stale))


def commands_of(folder: Path, stage: str) -> set[str]:
    """The jobs of one stage of DVC: `features@video-0` is that cache of all shards, `train@rap` all seeds of `rap`."""
    name, _, item = stage.partition("@")
    if name.startswith("table"):
        return {f"rap table --table {name}"}
    about = STAGES[name]
    own = [axis for axis in about.axes if axis != about.together]
    command = " ".join(["rap", name, *(f"--{axis} {value}" for axis, value in zip(own, [item], strict=False))])
    if not about.together:
        return {command}
    return {f"{command} --{about.together} {value}" for value in axes(load(folder / "params.yaml"))[about.together]}


def _by_snakemake(folder: Path, target: str) -> set[str]:
    printed = run(folder, "snakemake", "--dry-run", "--printshellcmds", "--cores", "1", target)
    blocks = [block for block in BLOCK.finditer(printed) if block["command"] and "rap " in block["command"]]
    return {block["command"].partition(" > ")[0] for block in blocks}
