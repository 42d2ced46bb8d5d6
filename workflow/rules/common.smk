"""What the rules share: the checked parameters, the paths, and two kinds of input that make a job run again.

pin(stage)   the parameters that the stage depends on, in a small file per job, written when one of them changes
code(stage)  the source files that the stage depends on

Both lists stand in dvc.yaml, once for both engines.
"""

import json
import shlex
import sys
from itertools import product
from pathlib import Path

import yaml

from rap import files
from rap import params as rap_params
from rap.errors import UserError

try:
    PARAMS = rap_params.load()
except UserError as error:
    raise WorkflowError(str(error)) from None

RAW = yaml.safe_load(Path("params.yaml").read_text())
STAGES = yaml.safe_load(Path("dvc.yaml").read_text())["stages"]
LOCK = Path("dvc.lock")
LOCKED = (
    yaml.load(LOCK.read_text(), yaml.CSafeLoader)["stages"] if LOCK.exists() else {}
)

DATA = str(PARAMS.data)
BACKBONE = str(PARAMS.backbone_folder)
MANIFEST = [f"{DATA}/manifest/{name}.parquet" for name in ("videos", "captions")]
WEIGHTS = [f"{BACKBONE}/{name}" for name in ("weights.safetensors", "config.json")]
FRAMES = expand(
    f"{DATA}/frames/shard-{{shard}}.{{kind}}",
    shard=PARAMS.shards,
    kind=("npy", "parquet"),
)
FEATURES = expand(
    f"{DATA}/features/{{cache}}/shard-{{shard}}.{{kind}}",
    cache=PARAMS.features.caches,
    shard=PARAMS.shards,
    kind=("npy", "parquet"),
)
RUN = "results/runs/{variant}/seed-{seed}"
GPU = int(PARAMS.runtime.device == "cuda")

# `rap` is found beside the Python that runs Snakemake, also where no environment is activated.
shell.prefix(f"PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH; ")


def files_in(path):
    """A file as it is; of a folder the files that count, since a folder's own time says little."""
    found = sorted(Path(path).rglob("*")) if Path(path).is_dir() else [Path(path)]
    return [
        str(file)
        for file in found
        if not file.is_dir() and "__pycache__" not in file.parts
    ]


def code(stage):
    return [
        file
        for path in STAGES[stage]["deps"]
        if path.startswith("src/")
        for file in files_in(path)
    ]


def pin(stage, **wildcards):
    """Write the pins of a stage's jobs, one for each combination of values; return their path with the wildcards.

    A pin notes what dvc.lock says if DVC ran the job with other values: files that DVC has made since are then older
    than the pin, although the parameters are back at those of the last run of Snakemake.
    """
    for values in product(*wildcards.values()):
        job = dict(zip(wildcards, values))
        name = "@".join(filter(None, [stage, "-".join(map(str, values))]))
        wanted = {key: value_of(key) for key in keys(stage, job)}
        locked = LOCKED.get(name, {}).get("params", {}).get("params.yaml", wanted)
        value = {"params": wanted, "dvc": locked if locked != wanted else None}
        file = Path("workflow/pins") / f"{name}.json"
        if not file.exists() or files.read_json(file) != value:
            files.write_json(file, value)
    return (
        "@".join(
            filter(
                None,
                [
                    f"workflow/pins/{stage}",
                    "-".join(f"{{{name}}}" for name in wildcards),
                ],
            )
        )
        + ".json"
    )


def keys(stage, job):
    """The stage's parameters as dvc.yaml lists them, for one job."""
    for key in STAGES[stage]["params"]:
        for name, value in job.items():
            key = key.replace(f"${{item.{name}}}", str(value))
        yield key


def value_of(key):
    value = RAW
    for part in key.split("."):
        value = value[part]
    return value
