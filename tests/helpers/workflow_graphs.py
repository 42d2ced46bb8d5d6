"""The pipeline's graph as each engine gives it: for every job its command, inputs, outputs and parameter keys."""

import ast
import json
import re
from dataclasses import dataclass
from pathlib import Path

from clones import run
from dvc.dependency.param import ParamsDependency
from dvc.repo import Repo

BLOCK = re.compile(
    r"^(?:local)?rule (?P<rule>\w+):\n(?P<fields>(?:    .*\n)+)(?:Shell command: (?P<command>.*)\n)?", re.M
)
FIELD = re.compile(r"^    (\w+): (.*)$", re.M)


TARGETS = {"all": "dvc.yaml", "ablations": "workflow/ablations/dvc.yaml"}  # Snakemake's: DVC's


@dataclass(frozen=True)
class Job:
    inputs: frozenset[str]
    outputs: frozenset[str]
    keys: frozenset[str]  # of params.yaml
    watched: frozenset[str] = frozenset()  # in Snakemake: its keys, and those of the jobs before it


def by_dvc(folder: Path) -> dict[str, Job]:
    """The jobs by command, from dvc.yaml as DVC resolves it."""
    jobs = {}
    with Repo(str(folder)) as repo:
        for stage in repo.index.stages:
            inputs = frozenset(dep.def_path for dep in stage.deps if not isinstance(dep, ParamsDependency))
            keys = frozenset(key for dep in stage.deps if isinstance(dep, ParamsDependency) for key in dep.params)
            jobs[stage.cmd] = Job(inputs, frozenset(out.def_path for out in stage.outs), keys)
    return jobs


def by_snakemake(folder: Path) -> dict[str, Job]:
    """The jobs by command without its log, from what a dry run prints; its own pin stands for parameter keys."""
    printed = run(folder, "snakemake", "--dry-run", "--forceall", "--printshellcmds", "--cores", "1", *TARGETS)
    jobs = {}
    for block in BLOCK.finditer(printed):
        if block["rule"] in TARGETS:
            continue
        fields = dict(FIELD.findall(block["fields"]))
        inputs, outputs = (names(fields[kind]) for kind in ("input", "output"))
        pins = {name for name in inputs if name.startswith("workflow/pins/")}
        (pin,) = (name for name in pins if re.match(rf"workflow/pins/{block['rule']}[@.]", name))
        keys = {name: frozenset(json.loads((folder / name).read_text())["params"]) for name in pins}
        command = block["command"].removesuffix(f" > {fields['log']} 2>&1")
        jobs[command] = Job(inputs - pins, outputs, keys[pin], frozenset().union(*keys.values()))
    return jobs


def names(printed: str) -> frozenset[str]:
    """Files as a dry run lists them, less the empty ones by which Snakemake marks a job as done."""
    files = printed.replace(" (update)", "").split(", ")
    return frozenset(file for file in files if not file.startswith("workflow/done/"))


def planned(folder: Path, target: str = "all") -> dict[str, set[str]]:
    """The jobs that each engine would run now, by DVC's names for them, such as train@lorm-0."""
    with Repo(str(folder)) as repo:
        names = {
            stage.cmd: stage.name if stage.path_in_repo == "dvc.yaml" else f"{stage.path_in_repo}:{stage.name}"
            for stage in repo.index.stages
        }
    printed = run(folder, "snakemake", "--dry-run", "--printshellcmds", "--cores", "1", target)
    blocks = [block for block in BLOCK.finditer(printed) if block["rule"] not in TARGETS]
    commands = {block["command"].partition(" > ")[0] for block in blocks}
    return {
        "dvc": set(json.loads(run(folder, "dvc", "status", "--json", TARGETS[target]))),
        "snakemake": {names[command] for command in commands},
    }


def imported(start: str, source: Path) -> set[Path]:
    """Files of the module `start` and of the modules that it imports, at once or later, under `source`."""
    found, waiting = set(), [start]
    while waiting:
        name = waiting.pop()
        place = source.joinpath(*name.split("."))
        file = next((file for file in (place / "__init__.py", place.with_suffix(".py")) if file.exists()), None)
        if file and file not in found:
            found.add(file)
            waiting += _imports(file)
    return found


def _imports(file: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names
