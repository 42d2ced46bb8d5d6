"""`rap verify` and `rap graph`: the state of every result, with the command that mends it."""

from pathlib import Path

from tabulate import tabulate

from rap.errors import UserError
from rap.jobs import Freshness, Job, jobs
from rap.params import Params
from rap.provenance import Record


def run(params: Params, ablations: bool | None = None) -> str:
    """Check the bytes and the provenance of every result on disk. Raises UserError that lists what is wrong.

    `ablations`: only those of the default run, or only those of the ablations.

    Results that do not exist are not wrong, nor are tables that git brought without their runs. Reads all data.
    """
    fresh, checked, alone, wrong = Freshness(params), 0, 0, []
    for job in jobs(params, ablations):
        if not any(Path(file).exists() for file in job.outputs):
            continue
        checked += 1
        reason = fresh.record(job.record)
        if damaged := job.damaged():
            wrong += [f"{file}: damaged; run `{job.command}`" for file in damaged]
        elif reason and _lacks_runs(job):
            alone += 1
        elif reason:
            wrong.append(f"{job.record}: {reason}; run `{job.command}`")
    if wrong:
        raise UserError("\n".join([f"verify: {len(wrong)} of {checked} results are damaged or stale:", *wrong]))
    said = f"verify: {checked - alone} results are undamaged, and made with the present parameters, code and inputs"
    return said + (f"; {alone} tables are undamaged, but their runs are not on this machine" if alone else "")


def _lacks_runs(job: Job) -> bool:
    """Whether git brought the result, made with the present parameters and code, and something it was made from is
    not here."""
    made = Record.read(job.record).provenance
    present = (made.params, made.code) == (job.settings, job.code)
    return job.about.in_git and present and not all(Path(path).exists() for path in made.inputs)


def states(params: Params) -> str:
    """A line for each job: its command, and whether its result is fresh or why not. Reads records, not data."""
    fresh = Freshness(params)
    rows = [(job.command, fresh.record(job.record) or "fresh") for job in jobs(params)]
    return tabulate(rows, headers=["job", "state"])


def unfinished(params: Params, ablations: bool) -> list[Job]:
    """The jobs of the default run, or of the ablations, whose results are not fresh."""
    fresh = Freshness(params)
    return [job for job in jobs(params, ablations) if fresh.record(job.record)]
