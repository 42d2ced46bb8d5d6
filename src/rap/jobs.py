"""Jobs: single calls of stages. This module alone decides whether a result is fresh, for DVC, Snakemake and a person.

A result is fresh if its record (rap.provenance) names the present parameters, the present source code, and the present
content of its inputs, and the inputs are fresh themselves.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from itertools import product, takewhile
from pathlib import Path
from string import Formatter
from typing import Any

from rap import paths, provenance
from rap.errors import UserError
from rap.files import digest
from rap.params import Params, hint
from rap.provenance import Provenance, Record
from rap.runtime.alone import alone, remove_temporary
from rap.stages import STAGES, Item, Stage, axes


def jobs(params: Params, ablations: bool | None = None) -> Iterator["Job"]:
    """All jobs in the order of the pipeline, or only those of the default run or of the ablations."""
    for name, stage in STAGES.items():
        for values in product(*(axes(params)[axis] for axis in stage.axes)):
            job = Job(params, name, dict(zip(stage.axes, values, strict=True)))
            if ablations is None or job.is_ablation == ablations:
                yield job


@dataclass
class Job:
    """One call of a stage. While it runs, it records the inputs read, and writes the record of the result."""

    params: Params
    stage: str
    item: Item
    read: dict[str, str] = field(default_factory=dict)  # content of the inputs by path

    def __post_init__(self) -> None:
        if self.stage not in STAGES or self.item.keys() != set(self.about.axes):
            raise ValueError(f"no job of {self.stage} for {self.item}")
        for axis, value in self.item.items():
            if value not in (known := axes(self.params)[axis]):
                key = {"shard": "shards", "cache": "features.caches", "variant": "run"}.get(axis, f"{axis}s")
                raise UserError(f"params.yaml: {key}: {value!r} is not in the list{hint(value, known)}")

    @property
    def about(self) -> Stage:
        return STAGES[self.stage]

    @property
    def variants(self) -> list[str]:
        """The variants that the job reads or writes: its own, those of its table, or those of the default run."""
        if "table" in self.item:
            return list(self.params.tables[self.item["table"]].variants)
        return [self.item["variant"]] if "variant" in self.item else list(self.params.run)

    @property
    def tables(self) -> list[str]:
        """The tables that the job reads or writes."""
        if "table" in self.item:
            return [self.item["table"]]
        return [name for name in self.params.tables if not Job(self.params, "table", {"table": name}).is_ablation]

    @property
    def is_ablation(self) -> bool:
        """Whether the job belongs to the ablations and not to the default run."""
        return any(name in self.params.ablations for name in self.variants)

    @property
    def command(self) -> str:
        return " ".join(["rap", self.stage, *(f"--{axis} {value}" for axis, value in self.item.items())])

    @property
    def inputs(self) -> list[str]:
        """The input files, including the user's own."""
        return [*self._files(self.about.inputs), *self.about.external(self.params)]

    @property
    def outputs(self) -> list[str]:
        return self._files(self.about.outputs)

    @property
    def files(self) -> list[str | Path]:
        """All output files, as names or patterns."""
        about = self.about
        return [*self.outputs, *about.untracked(self.params, self.item), *about.parts(self.params, self.item)]

    @property
    def record(self) -> str:
        return self.outputs[-1]

    def _files(self, patterns: tuple[str, ...]) -> list[str]:
        known = axes(self.params) | {axis: [value] for axis, value in self.item.items()}
        if "variant" not in self.item:
            known |= {"variant": self.variants, "table": self.tables}
        known |= {"dataset": [self.params.dataset.name], "backbone": [self.params.backbone.name]}
        found = []
        for pattern in patterns:
            names = list(dict.fromkeys(name for _, name, _, _ in Formatter().parse(pattern) if name))
            for values in product(*(known[name] for name in names)):
                found.append(pattern.format(**dict(zip(names, values, strict=True))))
        return found

    @cached_property
    def code(self) -> str:
        return provenance.code(self.about.module, *self.about.plugins(self.params, self.item))

    @cached_property
    def settings(self) -> str:
        own = self.about.settings(self.params, self.item)
        return digest([own, self._before()] if self.about.in_git else own)

    def _before(self) -> list[str]:
        """Digests of the parameters and the code of all jobs before this one.

        Git keeps a table without its runs: only these digests tell in a clone that the runs would be others now.
        """
        found = set()
        for name in takewhile(lambda name: name != self.stage, STAGES):
            known = {axis: values[:1] for axis, values in axes(self.params).items()} | {"variant": self.variants}
            for values in product(*(known[axis] for axis in STAGES[name].axes)):
                job = Job(self.params, name, dict(zip(STAGES[name].axes, values, strict=True)))
                found.add(digest([name, job.settings, job.code]))
        return sorted(found)

    @cached_property
    def _inputs(self) -> "Freshness":
        """Freshness of the inputs, computed once per job, because hashing weights is slow."""
        return Freshness(self.params)

    @property
    def provenance(self) -> Provenance:
        return Provenance(self.settings, self.code, dict(sorted(self.read.items())))

    def reads(self, path: str | Path, *files: str, whole: bool = False) -> Record:
        """Open the record of an input and note its content. Raises UserError if it is absent, damaged or stale.

        `files`: names beside the record whose bytes are verified; `whole`: verify all files of the record.
        """
        if reason := self._inputs.record(str(path)):
            raise UserError(f"{path}: {reason}; run `{_command_for(self.params, str(path))}` first")
        record, folder = Record.read(path), Path(path).parent
        if damaged := record.damaged(folder, None if whole else files):
            again = _command_for(self.params, str(path))
            raise UserError(f"{folder / damaged[0]}: damaged; run `{again}` to make it again")
        self.read[str(path)] = record.content
        return record

    def reads_external(self) -> None:
        """Note the content of the user's own files."""
        for path in self.about.external(self.params):
            self.read[path] = provenance.content_of(path)

    def result(self, content: str, files: dict[str, str], **facts: Any) -> Record:
        """The record of the result."""
        return Record(self.stage, self.item, self.provenance, content, files, facts)

    def stale(self) -> str:
        """Why the result on disk is stale, or an empty text. Reads records, not data."""
        return Freshness(self.params).record(self.record)

    def done(self) -> bool:
        """Whether nothing is to be done: the result is fresh and undamaged, and the stage does not always run."""
        return not self.about.always_runs and not self.stale() and not self.damaged()

    def damaged(self) -> list[str]:
        """Files of the result whose bytes differ from its record. Reads all files."""
        try:
            record = Record.read(self.record)
        except FileNotFoundError:
            return []
        except UserError:
            return [self.record]
        folder = Path(self.record).parent
        found = [str(folder / name) for name in record.damaged(folder)]
        if self.stage in ("frames", "features") and not found:
            found += damaged_rows(paths.ShardStem(Path(self.record).with_suffix("")))
        return found


def damaged_rows(stem: paths.ShardStem) -> list[str]:
    """The damage of a shard's rows, in one line, or nothing."""
    from rap.shards import Shard

    try:
        rows = Shard.read(stem).damaged()
    except UserError:
        return [str(stem.array)]
    return [f"{stem.array} ({len(rows)} rows, such as {rows[0]})"] if rows else []


class Freshness:
    """Why results are stale. Answers hold until a job writes; then create a new Freshness."""

    def __init__(self, params: Params):
        self.params = params
        self.answers: dict[str, str] = {}

    def record(self, path: str) -> str:
        """Why the result with the record `path` is stale, or an empty text. Reads records, not data."""
        if path not in self.answers:
            self.answers[path] = self._record(path)
        return self.answers[path]

    def _record(self, path: str) -> str:
        try:
            record = Record.read(path)
        except FileNotFoundError:
            return "not there"
        except UserError:
            return "damaged"
        try:
            job = Job(self.params, record.stage, record.item)
        except (UserError, ValueError):
            return "not a result of the present params.yaml"
        return self._compare(job, record) if job.record == path else "the record of another job"

    def _compare(self, job: Job, record: Record) -> str:
        made = record.provenance
        if made.params != job.settings:
            return "made with other parameters"
        if made.code != job.code:
            return "made by other source code"
        external = job.about.external(self.params)
        for path, content in made.inputs.items():
            if path in external:
                if provenance.content_of(path) != content:
                    return f"made from another version of {path}"
            elif reason := self.record(path):
                return (
                    f"its input {path} is stale ({reason})" if reason != "not there" else f"its input {path} is missing"
                )
            elif Record.read(path).content != content:
                return f"made from another version of {path}"
        if set(external) - set(made.inputs):
            return "made from other files"
        return next((f"{path} is missing" for path in job.outputs if not Path(path).exists()), "")


def perform(params: Params, stage: str, **values: Any) -> str:
    """Do one job, unless its result is fresh and undamaged; a summary in one line. Raises UserError.

    `values`: of the job's axes, and options of the stage.
    """
    from rap.adapters import registry

    job = Job(params, stage, {axis: values[axis] for axis in STAGES[stage].axes})
    if not job.about.inputs:  # the first stages: an error in any variant is reported before hours of work
        registry.check(params)
    if int(os.environ.get("RANK", 0)):  # of the processes that share a job, the first holds the lock
        return up_to_date(job) or _run(job, values)
    if said := up_to_date(job):
        return said
    with alone(job.record, job.command):
        if said := up_to_date(job):  # the process that this one waited for did the job
            return said
        remove_temporary(job.files)
        with _watched(job):
            summary = _run(job, values)
        _tidy(job)
        return summary


def up_to_date(job: Job) -> str:
    """The summary of a finished job, after removal of what killed processes left; an empty text if it must run."""
    if not job.done():
        return ""
    _tidy(job)
    return f"{job.record}: up to date"


def _run(job: Job, values: dict) -> str:
    """Import the stage by its name in the table: a job that is up to date needs no torch."""
    return import_module(job.about.module).run(job, **values)


def _watched(job: Job) -> AbstractContextManager[None]:
    """Measures the machine during the job, if params.yaml asks for it."""
    every, metrics = job.params.tracking.system_metrics, job.about.metrics
    if every is None or metrics is None:
        return nullcontext()
    from rap.runtime.monitor import watched

    return watched(every, metrics(job.item))


def _tidy(job: Job) -> None:
    """Remove files that killed processes left of a job that is now done."""
    remove_temporary(job.files)
    for file in job.about.parts(job.params, job.item):
        file.unlink(missing_ok=True)


def _command_for(params: Params, record: str) -> str:
    """The command that writes a record."""
    return next((job.command for job in jobs(params) if job.record == record), "rap --help")
