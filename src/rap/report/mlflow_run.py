"""The contents of a run in MLflow: parameters, tags, metrics, the datasets, the files and the adapter."""

import subprocess
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from rap import paths
from rap.errors import UserError
from rap.files import digest, read_json
from rap.params import Params
from rap.provenance import Record
from rap.report.runs import read_costs
from rap.training.run import Run, read_run

if TYPE_CHECKING:  # importing mlflow takes seconds
    from mlflow import MlflowClient

HEADLINES = {  # names in metrics.json, and in MLflow, whose UI shows this group first
    "t2v_R@1": "headlines/R_at_1",
    "t2v_R@5": "headlines/R_at_5",
    "t2v_R@10": "headlines/R_at_10",
    "t2v_MnR": "headlines/mean_rank",
    "v2t_R@1": "headlines/video_to_text_R_at_1",
    "twin_all": "headlines/twin_accuracy",
}
BATCH = 1000  # MLflow's limit of metrics per request


@dataclass(frozen=True)
class Logged:
    """A finished run as MLflow shows it. `contents` is the digest of everything but the state of git and the times."""

    key: str
    name: str
    params: dict[str, str]
    tags: dict[str, str]
    tables: list[str]
    contents: str
    evaluated: bool
    times: tuple[int, int]  # start and end of the training, in milliseconds since 1970
    folder: paths.RunFolder
    run: Run
    backbone: Path
    data: str  # digest of the manifest used in training


def read(params: Params, folder: paths.RunFolder) -> Logged:
    """A run from its files; before its evaluation, a run has no metrics of the test set."""
    run, trained = read_run(folder)
    evaluated = _evaluation(folder, trained)
    facts = run.model_dump(include={"dataset", "variant", "adapter", "seed", "backbone", "frames", "caches", "train"})
    for stage, record in (("train", trained), ("evaluate", evaluated)):
        if record and (damaged := record.damaged(folder)):
            again = f"rap {stage} --variant {run.variant} --seed {run.seed}"
            raise UserError(f"{folder / damaged[0]}: damaged; run `{again}` to make it again")
    tables = [name for name, table in params.tables.items() if run.variant in table.variants]
    tags = {"variant": run.variant, "adapter": run.adapter, "seed": str(run.seed)} | dict.fromkeys(tables, "yes")
    tags |= {"digest.weights": run.weights, "mlflow.source.name": "rap"}
    for stage, record in (("train", trained), ("evaluate", evaluated)):
        if record:
            made = record.provenance
            tags |= {f"provenance.{stage}": made.digest, f"code.{stage}": made.code, f"params.{stage}": made.params}
    values = dict(_flat(facts | run.options))
    files = [trained.files, evaluated.files if evaluated else {}]
    manifest = str(paths.manifest(run.dataset).record)
    return Logged(
        key=f"{run.variant}/{run.seed}",
        name=f"{run.variant} seed {run.seed}",
        params=values,
        tags=tags,
        tables=tables,
        contents=digest({"params": values, "tags": tags, "files": files}),
        evaluated=evaluated is not None,
        times=_times(run, folder),
        folder=folder,
        run=run,
        backbone=paths.backbone(run.backbone),
        data=trained.provenance.inputs.get(manifest, ""),
    )


def _evaluation(folder: paths.RunFolder, trained: Record) -> Record | None:
    """The evaluation of this training, or None; evaluations of earlier trainings are ignored."""
    try:
        found = Record.read(folder.evaluation)
    except FileNotFoundError:
        return None
    return found if trained.content in found.provenance.inputs.values() else None


def write(client: "MlflowClient", experiment: str, logged: Logged, tags: dict[str, str]) -> None:
    """Create the MLflow run. The tag rap.contents comes last: a run without it is incomplete and is superseded."""
    from mlflow.entities import Metric, Param

    begun, ended = logged.times
    tags = tags | {"rap.key": logged.key} | _revision()
    id = client.create_run(experiment, begun, tags, run_name=logged.name).info.run_id
    client.log_batch(id, params=[Param(name, value) for name, value in logged.params.items()])
    entries = [Metric(name, value, ended, step) for name, value, step in _metrics(logged)]
    entries += [Metric(f"system/{name}", value, time, step) for name, value, time, step in _system(logged)]
    for start in range(0, len(entries), BATCH):
        client.log_batch(id, metrics=entries[start : start + BATCH])
    _log_data(client, id, logged)
    folder = logged.folder
    evaluated = (folder.metrics, folder.figures, folder.evaluation) if logged.evaluated else ()
    for file in (folder.record, folder.history, *evaluated):
        client.log_artifact(id, str(file))
    if logged.run.parameters and folder.adapter.stat().st_size:
        _log_model(id, logged)
    client.set_tag(id, "rap.contents", logged.contents)
    client.set_terminated(id, end_time=ended)


def _log_data(client: "MlflowClient", id: str, logged: Logged) -> None:
    """The dataset, once for training and once for the test."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    about = (logged.data[:36] or "unknown", "local", f'{{"uri": "{paths.dataset(logged.run.dataset)}"}}')
    for context in ("training", "test") if logged.evaluated else ("training",):
        data = Dataset(f"{logged.run.dataset} {context}", *about)  # one name has one context
        client.log_inputs(id, [DatasetInput(data, [InputTag("mlflow.data.context", context)])])


def _log_model(id: str, logged: Logged) -> None:
    """The adapter as a model that `mlflow.pyfunc.load_model` loads: a column `query` in, embeddings out."""
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    signature = ModelSignature(
        Schema([ColSpec("string", "query")]), Schema([TensorSpec(np.dtype("float32"), (-1, -1), "embedding")])
    )
    with warnings.catch_warnings():  # MLflow asks for type hints and an example
        warnings.simplefilter("ignore")
        with mlflow.start_run(run_id=id), resources.as_file(resources.files("rap.report") / "mlflow_model.py") as code:
            mlflow.pyfunc.log_model(
                name=logged.run.variant,
                python_model=str(code),
                artifacts={"adapter": str(logged.folder.adapter)},
                signature=signature,
                model_config={"backbone_folder": str(logged.backbone.resolve())},
                pip_requirements=["rap-retrieval"],
            )


def _metrics(logged: Logged) -> Iterator[tuple[str, float, int]]:
    """Name, value and step of every metric; `@` is not allowed in a name.

    `/` groups charts in the UI, in alphabetical order of the groups.
    """
    run, folder = logged.run, logged.folder
    if logged.evaluated:
        for name, value in read_json(folder.metrics).items():
            yield HEADLINES[name], value, 0
        figures = read_json(folder.figures)
        chosen = ("t2v", "v2t", "twin", "by_kind", "post", "videos", "queries")
        for name, value in _flat({name: figures[name] for name in chosen if name in figures}, "/"):
            yield f"test/{name.replace('@', '_at_')}", float(value), 0
    yield "resources/trainable_parameters", run.parameters, 0
    for name, value in read_costs(paths.run(run.variant, run.seed)).items():
        if name not in ("began", "ended", "device") and value is not None:
            yield f"resources/{name}", value, 0
    for row in pd.read_csv(folder.history).to_dict("records"):
        for name in ("loss", "lr", "grad_norm"):
            yield f"train/{name}", row[name], int(row["step"])


def _system(logged: Logged) -> Iterator[tuple[str, float, int, int]]:
    """Name, value, time and number of every measurement of the machine, if there are any: the tab "System metrics"."""
    file = paths.run(logged.run.variant, logged.run.seed).system
    rows = pd.read_csv(file).to_dict("records") if file.exists() and file.stat().st_size > 1 else []
    for step, row in enumerate(rows):
        yield from ((name, value, int(row["time"]), step) for name, value in row.items() if name != "time")


def _times(run: Run, folder: paths.RunFolder) -> tuple[int, int]:
    """Start and end of the training. In a checkout, which lacks the costs, the time at which the file was written."""
    costs = read_costs(paths.run(run.variant, run.seed))
    written = folder.record.stat().st_mtime
    begun, ended = costs.get("began") or written, costs.get("ended") or written
    ended = min(ended, time.time())  # the clock may have been set back
    return int(1000 * min(begun, ended)), int(1000 * ended)


def _flat(values: dict[str, Any], joint: str = ".") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from ((f"{name}{joint}{inner}", text) for inner, text in _flat(value, joint))
        else:
            yield name, str(value)


def _revision() -> dict[str, str]:
    """Git's commit, under the tag that MLflow's UI shows as the version, and whether tracked files were changed."""
    try:
        commit = _git("rev-parse", "HEAD")
        return {"mlflow.source.git.commit": commit, "git.dirty": "yes" if _git("status", "-s", "-uno") else "no"}
    except (OSError, subprocess.CalledProcessError):
        return {"git.dirty": "no repository"}


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()
