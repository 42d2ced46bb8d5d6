"""Logs finished runs to MLflow. The files are the results; MLflow is a view of them. No other module knows MLflow.

Each stage of a run is one MLflow run, found again by its key STAGE/VARIANT/SEED. The same result is never logged twice;
another result supersedes the old MLflow run, which is deleted (MLflow can restore it). The table stage logs all runs of
its table at once, because opening a store takes seconds. In the UI, the filter `tags.table1 = 'yes' and tags.stage =
'evaluate'` shows the variants of a table side by side.

This stays our own code: MLflow has no call that finds a run by a key, skips it if its content is the same, supersedes
it if not, and holds a lock while a new database is set up.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
from filelock import FileLock

from rap import paths
from rap.errors import UserError, installed, require
from rap.files import digest, read_json
from rap.params import Params
from rap.provenance import Record
from rap.report.runs import read_costs
from rap.training.run import Run, read_run

if TYPE_CHECKING:  # importing mlflow takes seconds
    from mlflow import MlflowClient

Stage = Literal["train", "evaluate"]
FILES: dict[Stage, tuple[str, ...]] = {
    "train": ("run.json", "history.csv"),
    "evaluate": ("run.json", "metrics.json", "evaluation.json"),
}
SETTINGS = {  # set before the import; a user's own setting wins
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # a server that is down must not hold up a finished training
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
BATCH = 1000  # MLflow's limit of metrics per request
PATIENCE = 120  # seconds to wait for other jobs that are logging


def log(params: Params, folders: Iterable[Path]) -> None:
    """Log the finished stages of runs, from their files. A store that fails is a warning on stderr, no more.

    Without MLflow, which is an extra, nothing is logged.
    """
    if not installed("mlflow"):
        print("rap: note: mlflow is not installed, so runs are not logged", file=sys.stderr)
        return
    try:
        _log(params, folders)
    except _failures() as error:
        print(f"rap: warning: not logged to MLflow ({_line(error)}); `rap track` logs it later", file=sys.stderr)


def log_all(params: Params) -> str:
    """Log every finished run under results/, as after a checkout, which restores files and logs nothing.

    Raises UserError if the store cannot be used.
    """
    require("mlflow", "tracking")
    try:
        new, known = _log(params, sorted(file.parent for file in paths.RESULTS.glob("runs/*/seed-*/run.json")))
    except _failures() as error:
        raise UserError(f"tracking.uri: {uri(params)}: {_line(error)}") from None
    return f"{new} runs logged, {known} already there; see them with `{ui(params)}`"


def _log(params: Params, folders: Iterable[Path]) -> tuple[int, int]:
    """How many stages were logged, and how many were there already."""
    store = _Store(params)
    finished = [(folder, stage) for folder in folders for stage in FILES if _is_finished(folder, stage)]
    new = sum(store.log(params, folder, stage) for folder, stage in finished)
    return new, len(finished) - new


def _is_finished(folder: Path, stage: Stage) -> bool:
    return all((folder / name).exists() for name in FILES[stage])


def uri(params: Params) -> str:
    """The store: MLFLOW_TRACKING_URI if it is set, else tracking.uri. A relative SQLite path is made absolute."""
    chosen = os.environ.get("MLFLOW_TRACKING_URI") or params.tracking.uri
    database = _database(chosen)
    return f"sqlite:///{database}" if database else chosen


def ui(params: Params) -> str:
    """The command that opens the MLflow UI on the store."""
    return f"mlflow ui --backend-store-uri {uri(params)} --workers 1"


class _Store:
    """A client; every data set is an experiment of its own, `rap-DATASET`. One lock for all jobs of a machine.

    MLflow fails when several processes set up one new database, and has no atomic search-then-create.
    """

    def __init__(self, params: Params):
        self.uri = uri(params)
        self.database = _database(self.uri)
        beside = Path(f"{self.database}.lock") if self.database else Path(tempfile.gettempdir(), digest(self.uri)[:16])
        beside.parent.mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(beside, timeout=PATIENCE)

    def log(self, params: Params, folder: Path, stage: Stage) -> bool:
        """Log a stage of a run unless the same result is logged already. Returns whether it was logged."""
        run, trained = read_run(folder)
        record = trained if stage == "train" else Record.read(folder / "evaluation.json")
        key = f"{stage}/{run.variant}/{run.seed}"
        content = _content(params, run, record, stage)
        contents = digest({**content, "files": record.files})
        with self.lock:
            client, experiment = self._open(f"rap-{content['params']['dataset']}")
            old = client.search_runs([experiment], f"tags.`rap.key` = '{key}'")
            if len(old) == 1 and old[0].data.tags.get("rap.contents") == contents:
                return False
            for other in old:
                client.delete_run(other.info.run_id)
            tags = content["tags"] | {"rap.key": key} | _revision()
            id = client.create_run(experiment, run_name=f"{run.variant} seed {run.seed}", tags=tags).info.run_id
            _write(client, id, content["params"], _metrics(folder, run, stage))
            for name in FILES[stage]:
                client.log_artifact(id, str(folder / name))
            client.set_tag(id, "rap.contents", contents)  # last: a run without it is incomplete and is superseded
            client.set_terminated(id)
        return True

    def _open(self, experiment: str) -> tuple["MlflowClient", str]:
        _prepare()
        from mlflow import MlflowClient

        client = MlflowClient(self.uri)
        found = client.get_experiment_by_name(experiment)
        if found:
            return client, found.experiment_id
        artifacts = (self.database.parent / "mlartifacts" / experiment).as_uri() if self.database else None
        note = "Compare a table: filter tags.table1 = 'yes' and tags.stage = 'evaluate', then group by variant."
        return client, client.create_experiment(experiment, artifacts, {"mlflow.note.content": note})


def _content(params: Params, run: Run, record: Record, stage: Stage) -> dict[str, dict[str, str]]:
    """Params and tags of an MLflow run: everything known of how the result was made, except the state of git."""
    facts = run.model_dump(include={"dataset", "variant", "adapter", "seed", "backbone", "frames", "caches", "train"})
    tables = [name for name, table in params.tables.items() if run.variant in table.variants]
    tags = {"variant": run.variant, "adapter": run.adapter, "seed": str(run.seed)} | dict.fromkeys(tables, "yes")
    made = record.provenance
    digests = {"provenance": made.digest, "digest.params": made.params, "digest.code": made.code}
    tags |= digests | {"digest.weights": run.weights, "stage": stage, "mlflow.source.name": "rap"}
    return {"params": dict(_flat(facts | run.options)), "tags": tags}


def _metrics(folder: Path, run: Run, stage: Stage) -> Iterator[tuple[str, float, int]]:
    """Name, value and step of every metric; `/` groups charts in the UI, and `@` is not allowed in a name."""
    yield "trainable_parameters", run.parameters, 0
    if stage == "train":
        for row in pd.read_csv(folder / "history.csv").to_dict("records"):
            for name in ("loss", "lr", "grad_norm"):
                yield f"train/{name}", row[name], int(row["step"])
        for name, value in read_costs(run.variant, run.seed).items():
            if name != "device" and value is not None:
                yield f"costs/{name}", value, 0
    else:
        figures = read_json(folder / "metrics.json")
        chosen = {
            name: figures[name]
            for name in ("t2v", "v2t", "twin", "by_kind", "post", "videos", "queries")
            if name in figures
        }
        for name, value in _flat(chosen, "/"):
            yield name.replace("@", "_at_"), float(value), 0


def _write(client: "MlflowClient", run: str, params: dict[str, str], metrics: Iterator[tuple[str, float, int]]) -> None:
    from mlflow.entities import Metric, Param

    now = int(time.time() * 1000)
    entries = [Metric(name, value, now, step) for name, value, step in metrics]
    client.log_batch(run, params=[Param(name, value) for name, value in params.items()])
    for start in range(0, len(entries), BATCH):
        client.log_batch(run, metrics=entries[start : start + BATCH])


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


def _database(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///")).resolve() if uri.startswith("sqlite:///") else None


def _prepare() -> None:
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)


def _failures() -> tuple[type[Exception], ...]:
    """What a store may raise when it cannot be reached, written or read; connection errors are OSErrors."""
    _prepare()
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, SQLAlchemyError, OSError)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
