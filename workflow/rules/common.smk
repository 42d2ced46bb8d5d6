"""The rules' access to src/rap/stages.py: files, commands, resources, and the freshness of results.

Snakemake compares file times, but a checkout or the other engine changes them. So all inputs are `ancient` here, and
the records of the results decide: jobs with stale results are forced, as with `--forcerun`. Parsing this file writes
nothing.
"""

import shlex
import sys
from pathlib import Path

from rap import params
from rap.errors import UserError
from rap.jobs import Freshness, Job, jobs
from rap.stages import STAGES, axes

try:
    PARAMS = params.load()
    next(jobs(PARAMS)).code  # rejects an unknown dataset
except UserError as error:
    raise WorkflowError(str(error)) from None

if config:
    raise WorkflowError(
        f"--config {', '.join(config)}: nothing here reads it; change params.yaml instead"
    )

FRESH = Freshness(PARAMS)
RECORDS = {file: job.record for job in jobs(PARAMS) for file in job.outputs}
NAMES = {"dataset": PARAMS.dataset.name, "backbone": PARAMS.backbone.name}
AXES = axes(PARAMS)
SHOWN = {"table": ".png", "report": ".html"}

# `rap` is found beside the Python that runs Snakemake, even without an activated environment.
shell.prefix(f"PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH; ")


wildcard_constraints:
    **{axis: "|".join(map(str, values)) for axis, values in AXES.items()},


def outputs(stage):
    """The files of a stage, updated in place: a stage keeps their valid parts."""
    wildcards = {axis: f"{{{axis}}}" for axis in STAGES[stage].axes}
    return [
        shown(stage, update(pattern.format(**NAMES, **wildcards)))
        for pattern in STAGES[stage].outputs
    ]


def shown(stage, file):
    """`snakemake --report` shows the pictures of tables and the page."""
    if not file.endswith(SHOWN.get(stage, "nothing")):
        return file
    return report(file, caption=f"../report/{stage}.rst", category="Results")


def inputs(stage):
    """The files that a job reads. Snakemake calls this for each job, which is forced if its result is stale."""

    def files(wildcards):
        job = job_of(stage, wildcards)
        # A job that runs anyway has no ancient inputs: behind a job that was killed
        # before its end was noted, Snakemake leaves out jobs whose inputs are ancient.
        if FRESH.record(job.record):
            workflow.dag.forcefiles.add(job.record)
            return job.inputs
        return [file if is_remade(file) else ancient(file) for file in job.inputs]

    return files


def is_remade(file):
    """Whether a job must make the file again."""
    return file in RECORDS and bool(FRESH.record(RECORDS[file]))


def job_of(stage, wildcards):
    known = {str(value): value for axis in STAGES[stage].axes for value in AXES[axis]}
    item = {axis: known[wildcards[axis]] for axis in STAGES[stage].axes}
    return Job(PARAMS, stage, item)


def command(stage):
    options = "".join(f" --{axis} {{wildcards.{axis}}}" for axis in STAGES[stage].axes)
    return f"rap {stage}{options} > {{log}} 2>&1"


def log_of(stage):
    wildcards = "".join(f"-{{{axis}}}" for axis in STAGES[stage].axes)
    return f"logs/{stage}{wildcards}.log"


def threads_of(stage):
    return STAGES[stage].threads(PARAMS)


def memory(stage):
    """Megabytes, for a cluster; more with every attempt."""
    return lambda wildcards, attempt: attempt * STAGES[stage].memory


def minutes(stage):
    """Minutes, for a cluster; more with every attempt."""
    return lambda wildcards, attempt: attempt * STAGES[stage].minutes


def gpus(stage):
    """One for each process of a job, if the job runs on GPUs."""
    return PARAMS.runtime.processes * (
        STAGES[stage].gpu and PARAMS.runtime.device == "cuda"
    )


def results(ablations):
    """The records of the tables and evaluations of the default run, or of the ablations."""
    return [
        job.record
        for job in jobs(PARAMS, ablations)
        if job.stage in ("evaluate", "table", "report")
    ]
