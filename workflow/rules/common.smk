"""What the rules share: the checked parameters, the paths, and the inputs that make a job run again.

A rule's memory (megabytes) and time (minutes) are for a cluster; on one machine they bound nothing.

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

# Which file of DVC describes a job: that of the default run, or that of the ablations.
PIPELINES = {"runs": Path("dvc.yaml"), "ablations": Path("workflow/ablations/dvc.yaml")}
STAGES = {
    group: yaml.safe_load(file.read_text())["stages"]
    for group, file in PIPELINES.items()
}
LOCKED = {}
for file in PIPELINES.values():
    if file.with_suffix(".lock").exists():
        LOCKED |= yaml.load(file.with_suffix(".lock").read_text(), yaml.CSafeLoader)[
            "stages"
        ]

GROUPS = {"runs": PARAMS.variants, "ablations": PARAMS.all_variants}
TABLES = {  # numbers of the tables: of the default run, and those that name an ablation
    group: [
        name.removeprefix("table")
        for name, table in PARAMS.tables.items()
        if (group == "ablations") == any(v in PARAMS.ablations for v in table.variants)
    ]
    for group in PIPELINES
}
RUNS = {"variant": PARAMS.all_variants, "seed": PARAMS.seeds}
JOBS = {  # the jobs of each stage
    "download": {},
    "backbone": {},
    "frames": {"shard": PARAMS.shards},
    "features": {"cache": PARAMS.features.caches, "shard": PARAMS.shards},
    "train": RUNS,
    "evaluate": RUNS,
    "table": {"number": TABLES["runs"] + TABLES["ablations"]},
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
RUN = "results/{group}/{variant}/seed-{seed}"
# Of features, train and evaluate: one for each process of a job.
GPU = PARAMS.runtime.processes * (PARAMS.runtime.device == "cuda")
THREADS = PARAMS.runtime.processes * PARAMS.runtime.threads

# A rule that updates its outputs also makes an empty file here, and whoever reads them waits for it. When such a job
# fails, Snakemake puts the outputs' former version back, with a new time: it would pass for up to date.
DONE = f"workflow/done/{PARAMS.dataset.name}"
FRAMES_DONE = f"{DONE}/frames-{{shard}}"
FEATURES_DONE = f"{DONE}/features-{{cache}}-{{shard}}"
TRAIN_DONE = f"{DONE}/train-{{group}}-{{variant}}-{{seed}}"

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


wildcard_constraints:
    group="|".join(PIPELINES),


def growing(amount):
    """A resource of which a job gets more each time it is tried again."""
    return lambda wildcards, attempt: attempt * amount


def group_of(stage, item):
    """Whether a job belongs to the default run or to the ablations."""
    ablations = {**PARAMS.ablations, **dict.fromkeys(TABLES["ablations"])}
    return (
        "ablations"
        if stage in ("train", "evaluate", "table") and item[0] in ablations
        else "runs"
    )


def run_files(variants, *names):
    """Files of all runs of some variants."""
    return [
        file
        for variant in variants
        for file in expand(
            f"{RUN}/{{name}}",
            group=group_of("train", [variant]),
            variant=variant,
            seed=PARAMS.seeds,
            name=names,
        )
    ]


def pins_of_table(job):
    """The pins of a table and of all that its file of DVC lets come before it."""
    variants = GROUPS[group_of("table", [job.number])]
    return [file.format(number=job.number) for file in pins("table", variant=variants)]


def pins(stage, **chosen):
    """The pins of a job and of the jobs before it, with the stage's own wildcards left open."""
    found = []
    for name in [stage, *AFTER[stage]]:
        others = {
            wildcard: chosen.get(wildcard, values)
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
    for key in STAGES[group_of(stage, item)][stage].get("params", []):
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
        for path in STAGES["runs"][name]["deps"]
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
