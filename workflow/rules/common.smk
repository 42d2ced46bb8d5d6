"""What the rules share: the checked parameters, the paths, and the inputs that make a job run again.

pins(stage)   the parameters that a job depends on, in a small file per job, written when one of them changes
code(stage)   the source files that a job depends on

Both lists stand in dvc.yaml, once for both engines. A job also has those of every stage before it as inputs: when a
job fails, Snakemake would otherwise take what comes after it, made from its former output, for up to date.
"""

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

RUNS = {"variant": PARAMS.variants, "seed": PARAMS.seeds}
JOBS = {  # the jobs of each stage
    "download": {},
    "backbone": {},
    "frames": {"shard": PARAMS.shards},
    "features": {"cache": PARAMS.features.caches, "shard": PARAMS.shards},
    "train": RUNS,
    "evaluate": RUNS,
    "table": {"number": [name.removeprefix("table") for name in PARAMS.tables]},
}
AFTER = {  # the stages that must be done before
    "download": [],
    "backbone": [],
    "frames": ["download", "backbone"],
    "features": ["download", "backbone", "frames"],
    "train": ["download", "backbone", "frames", "features"],
    "evaluate": ["download", "backbone", "frames", "features", "train"],
    "table": ["download", "backbone", "frames", "features", "train", "evaluate"],
}

DATA = str(PARAMS.data)
BACKBONE = str(PARAMS.backbone_folder)
MANIFEST = [f"{DATA}/manifest/{name}.parquet" for name in ("videos", "captions")]
WEIGHTS = [f"{BACKBONE}/{name}" for name in ("weights.safetensors", "config.json")]
SHARD = ("npy", "parquet")
RUN = "results/runs/{variant}/seed-{seed}"
GPU = int(PARAMS.runtime.device == "cuda")

# A rule that updates its outputs also makes an empty file here, and whoever reads them waits for it. When such a job
# fails, Snakemake puts the outputs' former version back, with a new time: it would pass for up to date.
DONE = f"workflow/done/{PARAMS.dataset.name}"
FRAMES_DONE = f"{DONE}/frames-{{shard}}"
FEATURES_DONE = f"{DONE}/features-{{cache}}-{{shard}}"
TRAIN_DONE = f"{DONE}/train-{{variant}}-{{seed}}"

FRAMES = expand(
    [f"{DATA}/frames/shard-{{shard}}.{kind}" for kind in SHARD] + [FRAMES_DONE],
    **JOBS["frames"],
)
FEATURES = expand(
    [f"{DATA}/features/{{cache}}/shard-{{shard}}.{kind}" for kind in SHARD]
    + [FEATURES_DONE],
    **JOBS["features"],
)

# `rap` is found beside the Python that runs Snakemake, also where no environment is activated.
shell.prefix(f"PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH; ")


def pins(stage):
    """The pins of a job and of the jobs before it, with the stage's own wildcards left open."""
    found = []
    for name in [stage, *AFTER[stage]]:
        others = {
            wildcard: values
            for wildcard, values in JOBS[name].items()
            if wildcard not in JOBS[stage]
        }
        found += expand(
            pin(name, *(f"{{{wildcard}}}" for wildcard in JOBS[name])),
            allow_missing=True,
            **others,
        )
    return found


def pin(stage, *item):
    """The pin of one job, named as DVC names the job."""
    return f"workflow/pins/{job_name(stage, item)}.json"


def job_name(stage, item):
    return "@".join(filter(None, [stage, "-".join(map(str, item))]))


def write_pin(stage, item):
    """Write what the job's parameters are now, unless the pin says so already.

    A pin notes what dvc.lock says if DVC ran the job with other values: files that DVC has made since are then older
    than the pin, although the parameters are back at those of the last run of Snakemake.
    """
    wanted = {key: value_of(key) for key in keys(stage, item)}
    locked = (
        LOCKED.get(job_name(stage, item), {})
        .get("params", {})
        .get("params.yaml", wanted)
    )
    value = {"params": wanted, "dvc": locked if locked != wanted else None}
    file = Path(pin(stage, *item))
    if not file.exists() or files.read_json(file) != value:
        files.write_json(file, value)


def keys(stage, item):
    """The stage's parameters as dvc.yaml lists them, for one job."""
    for key in STAGES[stage].get("params", []):
        for wildcard, value in zip(JOBS[stage], item):
            key = key.replace(f"${{item.{wildcard}}}", str(value))
        yield key


def value_of(key):
    value = RAW
    for part in key.split("."):
        value = value[part]
    return value


def code(stage):
    """The source files of a stage and of the stages before it, and what the user wrote: the annotations."""
    paths = {
        path
        for name in [stage, *AFTER[stage]]
        for path in STAGES[name]["deps"]
        if path.startswith("src/")
    }
    if "download" in [stage, *AFTER[stage]]:
        paths.add(PARAMS.dataset.annotations)
    return sorted({file for path in paths for file in files_in(path)})


def files_in(path):
    """A file as it is; of a folder the files that count, since a folder's own time says little."""
    found = sorted(Path(path).rglob("*")) if Path(path).is_dir() else [Path(path)]
    return [
        str(file)
        for file in found
        if not file.is_dir() and "__pycache__" not in file.parts
    ]


for stage, wildcards in JOBS.items():
    for item in product(*wildcards.values()):
        write_pin(stage, item)
