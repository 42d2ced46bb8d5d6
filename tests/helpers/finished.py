"""Finished runs that no training made: files that a test chooses, with the records that the present code would give."""

from pathlib import Path
from typing import Any

import pandas as pd

from rap import paths
from rap.adapters import registry
from rap.evaluation.stage import headlines
from rap.files import digest, digest_file, write_checked, write_json
from rap.jobs import Job
from rap.params import Params
from rap.training.run import Run

COSTS = {
    "began": 1.7e9,
    "ended": 1.7e9 + 2,
    "train_seconds": 1.5,
    "peak_memory_bytes": 2,
    "cache_bytes": 7,
    "flops_per_clip": 5,
    "index_bytes_per_video": 4,
    "device": "cpu",
}


def train(
    params: Params, variant: str, seed: int, history: str = "", costs: dict | None = None, **facts: Any
) -> paths.RunFolder:
    """The folder of a run with an empty adapter; `facts` replace those of the record."""
    folder, train = paths.run(variant, seed), params.training(variant).model_dump(mode="json")
    folder.mkdir(parents=True, exist_ok=True)
    folder.adapter.touch()
    folder.history.write_text(history)
    write_checked(folder.costs, COSTS | (costs or {}))
    values: dict[str, Any] = {
        "variant": variant,
        "seed": seed,
        "dataset": params.dataset.name,
        "adapter": params.variant(variant).adapter,
        "options": {name: group.model_dump(mode="json") for name, group in registry.options(params, variant).items()},
        "frames": params.frames.model_dump(mode="json"),
        "train": train,
        "caches": {"video": "video-0", "text": "text-ids"},
        "backbone": params.backbone.name,
        "weights": "w" * 64,
        "parameters": 5,
        "selected": "last",
        "selected_epoch": 0,
        "epochs": 1,
        "steps": 3,
        "videos": 2,
        "pairs": 2,
    }
    said = Run(**values | facts).model_dump(mode="json")
    job = Job(params, "train", {"variant": variant, "seed": seed})
    _record(job, folder.record, folder.trained, said)
    return folder


def evaluate(params: Params, variant: str, seed: int, figures: dict, ranks: pd.DataFrame, **facts: Any) -> None:
    """An evaluation of the present run; `facts` replace those of the record."""
    folder = paths.run(variant, seed)
    write_json(folder.figures, figures)
    write_json(folder.metrics, headlines(figures))
    ranks.to_parquet(folder.ranks)
    folder.similarity.touch()
    job = Job(params, "evaluate", {"variant": variant, "seed": seed})
    job.reads(folder.record)
    values = {"variant": variant, "seed": seed, "split": "test", "test_set": "t"}
    _record(job, folder.evaluation, folder.evaluated, values | facts)


def _record(job: Job, record: Path, covered: tuple[Path, ...], facts: dict) -> None:
    files = {file.name: digest_file(file) for file in covered}
    job.result(digest([files, facts]), files, **facts).write(record)
