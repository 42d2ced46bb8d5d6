"""The graph as DVC reads it: dvc.yaml and workflow/ablations/dvc.yaml, generated from rap.stages, and the digests.

DVC compares only files and values in files. So its first stage writes data/provenance.json, with one
digest of parameters and source code for every job, and every other stage depends on its own entry in that file. That
first stage runs whenever params.yaml or a source file changes; if an entry stays the same, its stage does not run.
"""

from pathlib import Path
from string import Formatter
from typing import Any

import yaml

from rap import paths
from rap.errors import UserError
from rap.files import digest, write_json, write_text
from rap.jobs import Job, jobs
from rap.params import Params
from rap.stages import RUN, STAGES, Stage, axes

NOTE = """\
# Generated from src/rap/stages.py by `rap graph --write`; edit that file, not this one. See docs/engines.md.
"""
ABLATIONS_NOTE = """\
# The ablations and their tables, for `dvc repro workflow/ablations/dvc.yaml`: `dvc repro` alone does not run them.
# A fresh clone has no such file; `rap graph --ablations` wrote it.
"""


def write(params: Params, ablations: bool = False) -> str:
    """Generate dvc.yaml again, and the file of the ablations if it is there or asked for; return a summary.

    A fresh clone lacks the file of the ablations: DVC reads every dvc.yaml of a repository, so plain `dvc status` would
    list results that nobody asked for.
    """
    wanted = {file: text for file, text in rendered(params).items() if file == paths.DVC or ablations or file.exists()}
    changed = [str(file) for file, text in wanted.items() if _differs(file, text)]
    for file in changed:
        write_text(Path(file), wanted[Path(file)])
    return f"changed: {', '.join(changed)}" if changed else f"up to date: {', '.join(map(str, wanted))}"


def write_digests(params: Params) -> str:
    """Write data/provenance.json. Raises UserError if dvc.yaml does not match params.yaml."""
    if stale := [str(file) for file, text in rendered(params).items() if file.exists() and _differs(file, text)]:
        raise UserError(f"{stale[0]}: does not fit params.yaml any more; run `rap graph --write`, then continue")
    found = digests(params)
    write_json(paths.DIGESTS, found)
    return f"{paths.DIGESTS}: digests of parameters and source code for {sum(map(len, found.values()))} jobs"


def digests(params: Params) -> dict[str, dict[str, str]]:
    """By stage and then by variant, table or "all": a digest of the parameters and the source code of the jobs."""
    found: dict[str, dict[str, str]] = {}
    for job in jobs(params):
        entry = job.item.get("variant") or job.item.get("table") or "all"
        found.setdefault(job.stage, {})[entry] = digest([job.settings, job.code])
    return found


def rendered(params: Params) -> dict[Path, str]:
    """The text of each file of DVC."""
    default: dict[str, Any] = {"provenance": _provenance()}
    ablations: dict[str, Any] = {}
    for name, stage in STAGES.items():
        if "variant" not in stage.axes and any("{variant}" in pattern for pattern in stage.inputs):
            for job in jobs(params):
                if job.stage == name:
                    (ablations if job.is_ablation else default)[job.item.get("table", name)] = _over_runs(job)
            continue
        default[name] = _stage(params, name, stage, "run")
        if "variant" in stage.axes:
            ablations[name] = _stage(params, name, stage, "ablations")
    moved = {"vars": ["../../params.yaml"], "stages": {name: {"wdir": "../..", **s} for name, s in ablations.items()}}
    whole = {"stages": default, "plots": _plots(params), "artifacts": _artifacts(params)}
    return {paths.DVC: NOTE + _dump(whole), paths.DVC_ABLATIONS: NOTE + ABLATIONS_NOTE + _dump(moved)}


def _provenance() -> dict[str, Any]:
    return {
        "desc": "Digests of the parameters and the source code of every job",
        "cmd": "rap graph --digests",
        "deps": [str(paths.PARAMS), "src/rap"],
        "outs": [str(paths.DIGESTS)],
    }


def _stage(params: Params, name: str, stage: Stage, group: str) -> dict[str, Any]:
    """A stage with DVC's placeholders, one command for each entry of its matrix."""
    own = [axis for axis in stage.axes if axis != stage.together]
    values = {"shard": "${shards}", "cache": "${features.caches}", "variant": f"${{{group}}}", "seed": "${seeds}"}
    names = {"dataset": "${dataset.name}", "backbone": "${backbone.name}"}
    names |= {axis: f"${{item.{axis}}}" for axis in own}
    matrix = {"matrix": {axis: values[axis] for axis in own}} if own else {}
    options = "".join(f" --{axis} {names[axis]}" for axis in own)
    entry = names["variant"] if "variant" in stage.axes else "all"
    each = [names | {stage.together: value} for value in axes(params)[stage.together]] if stage.together else [names]
    inputs = [_filled(pattern, values) for values in each for pattern in stage.inputs]
    return {
        "desc": stage.about,
        **matrix,
        "cmd": f"rap {name}{options}",
        "params": [{str(paths.DIGESTS): [f"{name}.{entry}"]}],
        **_deps([*inputs, *stage.external(params)]),
        **_outs(stage, each),
    }


def _over_runs(job: Job) -> dict[str, Any]:
    """A job that reads the runs of several variants: DVC's placeholders cannot list them."""
    names = {"dataset": "${dataset.name}", "backbone": "${backbone.name}", **job.item}
    several = [names | {"variant": variant, "table": table} for variant in job.variants for table in job.tables]
    table = job.params.tables.get(job.item.get("table", ""))
    return {
        "desc": f"{job.about.about}: {table.title}" if table else job.about.about,
        "cmd": job.command,
        "params": [{str(paths.DIGESTS): [f"{job.stage}.{job.item.get('table', 'all')}"]}],
        **_deps([_filled(pattern, values) for pattern in job.about.inputs for values in several]),
        **_outs(job.about, [names]),
    }


def _plots(params: Params) -> list[dict[str, Any]]:
    """For `dvc plots show`: recall in the tables of the default run, and the loss of every training, by seed."""
    tables = [name for name in params.tables if not Job(params, "table", {"table": name}).is_ablation]
    recall = [
        {
            f"recall, {name}": {
                "template": "bar_horizontal",
                "x": {str(paths.table(name).csv): "t2v_R@1_mean"},
                "y": {str(paths.table(name).csv): "label"},
                "x_label": "R@1, text to video",
                "y_label": "method",
            }
        }
        for name in tables
    ]
    return recall + [
        {
            f"loss, seed {seed}": {
                "template": "linear",
                "x": "step",
                "y": {str(paths.run(name, seed).history): "loss" for name in params.run},
                "x_label": "step",
                "y_label": "loss",
            }
        }
        for seed in params.seeds
    ]


def _artifacts(params: Params) -> dict[str, Any]:
    """The adapter of the first seed of every variant, for `dvc artifacts get`. DVC allows no underscore in a name."""
    return {
        name.replace("_", "-"): {
            "path": str(paths.run(name, params.seeds[0]).adapter),
            "type": "model",
            "desc": params.variant(name).label,
        }
        for name in params.run
    }


def _filled(pattern: str, names: dict[str, str]) -> str:
    """A pattern with names filled in; cut to the folder before the first part with an unknown name."""
    parts: list[str] = []
    for part in pattern.split("/"):
        fields = [name for _, name, _, _ in Formatter().parse(part) if name]
        if not names.keys() >= set(fields):
            return "/".join(parts) + "/"
        parts.append(part.format(**names))
    return "/".join(parts)


def _deps(inputs: list[str]) -> dict[str, list[str]]:
    return {"deps": list(dict.fromkeys(inputs))} if inputs else {}


def _outs(stage: Stage, each: list[dict[str, str]]) -> dict[str, list]:
    """The outputs that DVC keeps, which stages update in place; `dvc metrics show` reads metrics.json."""
    outputs = [_filled(pattern, names) for names in each for pattern in stage.in_dvc or stage.outputs]
    metrics = [path for path in outputs if path.endswith(f"/{RUN.metrics.name}")]
    others = [path for path in outputs if path not in metrics]
    options = {"cache": False} if stage.in_git else {"persist": True}
    kept = {"metrics": metrics, "outs": others}
    return {kind: [{path: dict(options)} for path in paths] for kind, paths in kept.items() if paths}


def _dump(values: dict) -> str:
    return yaml.safe_dump(values, sort_keys=False, width=120, allow_unicode=True)


def _differs(file: Path, text: str) -> bool:
    return not file.exists() or file.read_text(encoding="utf-8") != text
