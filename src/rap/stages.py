"""The pipeline, described once: for each stage its jobs, inputs, outputs, parameters, source code and resources.

dvc.yaml is generated from this table (rap.graph), workflow/rules/ read it, and rap.jobs runs its jobs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rap import paths
from rap.data import datasets, registry
from rap.params import Params

Item = dict[str, Any]  # the axes of a job with their values, such as {"variant": "rap", "seed": 0}

MANIFEST, BACKBONE = paths.manifest("{dataset}"), paths.backbone("{backbone}")
FRAMES, FEATURES = paths.frames("{dataset}", "{shard}"), paths.features("{dataset}", "{cache}", "{shard}")
RUN, TABLE = paths.run("{variant}", "{seed}"), paths.table("{table}")
SHARDS = (*FRAMES.files, FRAMES.record, *FEATURES.files, FEATURES.record)
TRAINED, EVALUATED = (*RUN.trained, RUN.record), (*RUN.evaluated, RUN.evaluation)


def _patterns(*files: Path) -> tuple[str, ...]:
    return tuple(map(str, files))


@dataclass(frozen=True)
class Stage:
    """One row of the table: `rap NAME` with an option for each axis is one job.

    `inputs` and `outputs` are patterns. The last output is the record of the result. If an input has an axis that the
    stage lacks, the stage reads all values of it.
    """

    about: str
    module: str  # its `run(job, **item)` does the work
    axes: tuple[str, ...]
    settings: Callable[[Params, Item], dict]  # the parameters that the result depends on
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    external: Callable[[Params], list[str]] = lambda params: []  # the user's own files among the inputs
    plugins: Callable[[Params, Item], list[str]] = lambda params, item: []  # modules that the parameters choose
    untracked: Callable[[Params, Item], list[Path]] = lambda params, item: []  # files that are not part of the result
    parts: Callable[[Params, Item], list[Path]] = lambda params, item: []  # of an unfinished result: a run continues it
    metrics: Callable[[Item], Path] | None = None  # where `tracking.system_metrics` goes; None: the stage has none
    together: str = ""  # an axis whose values one command runs in parallel if the option is omitted, as DVC does
    in_dvc: tuple[str, ...] = ()  # kept by DVC instead of the outputs
    in_git: bool = False  # git keeps the outputs, so DVC does not
    always_runs: bool = False  # it reads files that no record covers
    gpu: bool = False
    threads: Callable[[Params], int] = lambda params: 1
    memory: int = 2000  # MB, for a cluster
    minutes: int = 30  # for a cluster


def _runtime(params: Params) -> dict:
    """The runtime parameters that change the bits of a result."""
    return params.runtime.model_dump(include={"device", "precision", "processes", "threads"})


def _download_settings(params: Params, item: Item) -> dict:
    sources = params.download.model_dump(mode="json", include={"archives", "videos", "pages", "format"})
    return {"dataset": params.dataset.model_dump(mode="json"), "download": sources}


def _frames_settings(params: Params, item: Item) -> dict:
    limit = params.dataset.max_failed
    return {"frames": params.frames.model_dump(), "shards": len(params.shards), "max_failed": limit}


def _features_settings(params: Params, item: Item) -> dict:
    features = params.features.model_dump(mode="json", exclude={"caches"})
    frames = params.frames.count
    limit = {} if params.frames.store else {"max_failed": params.dataset.max_failed}  # this stage decodes
    return {"features": features, "frames": frames, "shards": len(params.shards), "runtime": _runtime(params)} | limit


def _train_settings(params: Params, item: Item) -> dict:
    return _variant(params, item) | {
        "train": params.training(item["variant"]).model_dump(),
        "frames": params.frames.sampling.model_dump(),
        "max_words": params.features.max_words,
        "shards": len(params.shards),
        "runtime": _runtime(params),
    }


def _evaluate_settings(params: Params, item: Item) -> dict:
    evaluation = params.evaluation.model_dump(mode="json")
    return _variant(params, item) | {
        "evaluation": evaluation,
        "batch": params.features.batch,
        "shards": len(params.shards),
        "runtime": _runtime(params),
    }


def _variant(params: Params, item: Item) -> dict:
    variant = params.variant(item["variant"])
    return {"adapter": variant.adapter, "options": variant.options}


def _table_settings(params: Params, item: Item) -> dict:
    table = params.tables[item["table"]]
    labels = [params.variant(name).label for name in table.variants]
    shown = {"post": list(params.evaluation.post), "held_out": registry.held_out(params)}
    return {"table": table.model_dump(mode="json"), "labels": labels, "seeds": params.seeds, **shown}


def _report_settings(params: Params, item: Item) -> dict:
    """The parameters that the page shows: every parameter that a figure of the default run may depend on."""
    others = {"ablations", "download", "listed", "pretrain", "sweep", "tracking"}
    return params.model_dump(mode="json", exclude=others)


def _users_files(params: Params) -> list[str]:
    """The annotations and, unless the stage fills it, the folder of the videos."""
    fetches = params.download.archives or params.download.videos or params.download.pages
    files = [params.dataset.annotations, None if fetches else params.dataset.videos]
    return [file for file in files if file]


def _weights(params: Params) -> list[str]:
    """A local weights file; that of the demo's own backbone comes with its config."""
    file = params.backbone.file
    if not file:
        return []
    return [str(file), str(file.with_suffix(".json"))] if params.backbone.name == "demo-vit" else [str(file)]


def _method(params: Params, item: Item) -> list[str]:
    return [f"rap.adapters.{params.variant(item['variant']).adapter}"]


def _processes(params: Params) -> int:
    return params.runtime.processes * params.runtime.threads


STAGES = {
    "download": Stage(
        about="Fetch missing videos, inspect each, write the manifest",
        module="rap.download.stage",
        axes=(),
        settings=_download_settings,
        plugins=lambda params, item: [datasets.module(params.dataset.name)],
        inputs=(),
        external=_users_files,
        outputs=_patterns(*MANIFEST.files, MANIFEST.record),
        always_runs=True,
        threads=lambda params: params.runtime.workers,
        minutes=720,
    ),
    "backbone": Stage(
        about="The weights of the frozen CLIP, and how to prepare frames and captions for it",
        module="rap.clip.stage",
        axes=(),
        settings=lambda params, item: params.backbone.model_dump(),
        inputs=(),
        external=_weights,
        outputs=_patterns(*BACKBONE.files, BACKBONE.record),
        memory=4000,
    ),
    "frames": Stage(
        about="Decode the videos into frames of the backbone's size",
        module="rap.frames.stage",
        axes=("shard",),
        together="shard",
        settings=_frames_settings,
        inputs=_patterns(*MANIFEST.files, BACKBONE.config),
        outputs=_patterns(*FRAMES.files, FRAMES.record),
        parts=lambda params, item: paths.parts(paths.frames(params.dataset.name, **item)),
        threads=lambda params: params.runtime.workers,
        minutes=240,
    ),
    "features": Stage(
        about="Compute the frozen part of a tower, once for all variants",
        module="rap.features.stage",
        axes=("cache", "shard"),
        together="shard",
        settings=_features_settings,
        inputs=_patterns(*MANIFEST.files, *BACKBONE.files, *FRAMES.files, FRAMES.record),
        outputs=_patterns(*FEATURES.files, FEATURES.record),
        parts=lambda params, item: paths.parts(paths.features(params.dataset.name, **item)),
        gpu=True,
        threads=_processes,
        memory=4000,
        minutes=240,
    ),
    "train": Stage(
        about="Train a variant's adapter from the cache",
        module="rap.training.stage",
        axes=("variant", "seed"),
        settings=_train_settings,
        plugins=_method,
        inputs=_patterns(*MANIFEST.files, *BACKBONE.files, *SHARDS),
        outputs=_patterns(*TRAINED),
        together="seed",
        untracked=lambda params, item: [paths.run(**item).costs, paths.run(**item).system],
        parts=lambda params, item: [paths.run(**item).checkpoint],
        metrics=lambda item: paths.run(**item).system,
        gpu=True,
        threads=_processes,
        memory=4000,
        minutes=720,
    ),
    "evaluate": Stage(
        about="Score the test split with a trained variant, in both directions",
        module="rap.evaluation.stage",
        axes=("variant", "seed"),
        settings=_evaluate_settings,
        plugins=_method,
        inputs=_patterns(*MANIFEST.files, *BACKBONE.files, *SHARDS, RUN.adapter, RUN.record),
        outputs=_patterns(*EVALUATED),
        together="seed",
        gpu=True,
        threads=_processes,
        memory=4000,
        minutes=120,
    ),
    "table": Stage(
        about="Finished runs side by side",
        module="rap.report.table",
        axes=("table",),
        settings=_table_settings,
        inputs=_patterns(RUN.record, *EVALUATED),
        outputs=_patterns(*TABLE.files, TABLE.record),
        untracked=lambda params, item: [paths.table(item["table"]).costs],
        in_git=True,
    ),
    "report": Stage(
        about="One page with the tables, figures and examples of the default run",
        module="rap.report.page.stage",
        axes=(),
        settings=_report_settings,
        inputs=_patterns(
            *MANIFEST.files, *BACKBONE.files, *FRAMES.files, FRAMES.record, TABLE.record, *TRAINED, *EVALUATED
        ),
        outputs=_patterns(paths.REPORT, paths.REPORT_RECORD),
        untracked=lambda params, item: [paths.figure("*"), paths.latex("*")],
        in_dvc=_patterns(paths.FIGURES),  # the page shows times, which vary: dvc.lock would change with every run
    ),
}


def axes(params: Params) -> dict[str, list]:
    """The values of every axis."""
    return {
        "shard": list(params.shards),
        "cache": list(params.features.caches),
        "variant": [*params.run, *params.ablations],
        "seed": list(params.seeds),
        "table": list(params.tables),
    }
