"""`rap verify` and `rap graph`: the state of every result, with the command that repairs it."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tabulate import tabulate

from rap import paths
from rap.data.manifest import Manifest
from rap.data.registry import videos_folder
from rap.errors import UserError
from rap.files import digest_file
from rap.jobs import Freshness, Job, damaged_rows, jobs
from rap.params import Params
from rap.progress import progress
from rap.provenance import Record
from rap.report.runs import read_costs
from rap.training import points


def run(params: Params, ablations: bool | None = None) -> str:
    """Check the bytes and the provenance of every result on disk. Raises UserError that lists all problems.

    `ablations`: only results of the default run (False) or of the ablations (True).

    Missing results are no problem, nor are tables from git without their runs. With the default run, the videos, search
    indexes, costs, sweeps, and results that params.yaml does not list are checked; of the latter only the bytes. Reads
    all data.
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
    others = [] if ablations else _unlisted(params)
    if not ablations:
        checked += len(paths.indexes("*"))
        wrong += [*_damaged_indexes(), *_damaged_others(others), *_damaged_alone(), *_changed_videos(params)]
    if wrong:
        found = f"verify: {len(wrong)} results are damaged or stale:"
        raise UserError("\n".join([found, *wrong]))
    said = f"verify: {checked - alone} results are undamaged, and made with the present parameters, code and inputs"
    said += f"; {alone} tables are undamaged, but their runs are not on this machine" if alone else ""
    return said + (f"; {len(others)} results that params.yaml does not list are undamaged" if others else "")


def _damaged_indexes() -> Iterator[str]:
    """A line for each. A stale index is no problem: the next search updates it."""
    for stem in paths.indexes("*"):
        if damaged_rows(stem):
            yield f"{stem.record}: its rows are damaged; remove it, and the next search makes it again"
        if stem.cells_record.exists() and not _is_whole(stem.cells_record):
            yield f"{stem.cells_record}: damaged; remove it, and the next search makes it again"


def _unlisted(params: Params) -> list[Path]:
    """The records of results of other datasets, backbones, caches, variants and seeds than those in params.yaml."""
    run = paths.run("*", "*")
    patterns = [run.record, run.evaluation, paths.manifest("*").record, paths.backbone("*").record]
    patterns += [paths.frames("*", "*").record, paths.features("*", "*", "*").record]
    patterns += [paths.table("*").record, paths.refused("*").record]
    known = {job.record for job in jobs(params)}
    return [file for pattern in patterns for file in sorted(Path().glob(str(pattern))) if str(file) not in known]


def _damaged_others(records: list[Path]) -> Iterator[str]:
    for record in records:
        stem = paths.ShardStem(record.with_suffix(""))
        if not _is_whole(record) or (stem.array.exists() and damaged_rows(stem)):
            yield f"{record}: its result is damaged, and params.yaml does not list it; remove it"


def _damaged_alone() -> Iterator[str]:
    """A line for each file with its own checksum that no record covers: costs of trainings, and the sweep."""
    reads = [partial(read_costs, folder) for folder in paths.runs()] + [points.read]
    for read in reads:
        try:
            read()
        except UserError as error:
            yield str(error)


def _changed_videos(params: Params) -> Iterator[str]:
    """A line for each video whose bytes differ from the digest in the manifest. Missing videos are not reported."""
    try:
        manifest = Manifest.read(paths.manifest(params.dataset.name))
    except UserError:
        return
    digests = {row.path: row.digest for row in manifest.rows() if row.digest}
    folder = videos_folder(params)
    for path, digest in progress(digests.items(), "videos", unit="video"):
        if (file := folder / path).is_file() and digest_file(file) != digest:
            yield f"{file}: changed after `rap download`; restore it, or run `rap download`"


def _is_whole(record: Path) -> bool:
    try:
        return not Record.read(record).damaged(record.parent)
    except UserError:
        return False


def _lacks_runs(job: Job) -> bool:
    """Whether the result comes from git, was made with the present parameters and code, and lacks one of its inputs."""
    made = Record.read(job.record).provenance
    present = (made.params, made.code) == (job.settings, job.code)
    return job.about.in_git and present and not all(Path(path).exists() for path in made.inputs)


def states(params: Params) -> str:
    """A line for each job: its command, and `fresh` or the reason why not. Reads records, not data."""
    fresh = Freshness(params)
    rows = [(job.command, fresh.record(job.record) or "fresh") for job in jobs(params)]
    return tabulate(rows, headers=["job", "state"])


def unfinished(params: Params, ablations: bool) -> list[Job]:
    """The jobs of the default run, or of the ablations, whose results are not fresh."""
    fresh = Freshness(params)
    return [job for job in jobs(params, ablations) if fresh.record(job.record)]
