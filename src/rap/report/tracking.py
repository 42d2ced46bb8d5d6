"""Finished runs in MLflow, the only file that knows it. Files are the results; MLflow is a view of them.

Every run of a stage is one MLflow run, found again by its key STAGE/VARIANT/SEED. The same contents are never logged
twice; other contents supersede the old run, which goes to MLflow's bin. The table stage logs the runs of its table, all
at once: opening a store costs seconds, more than many an evaluation. In the UI, the filter
`tags.table1 = 'yes' and tags.stage = 'evaluate'` shows the variants of a table side by side.
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

from rap.errors import UserError, installed, require
from rap.files import digest, digest_file, read_json
from rap.params import Params

if TYPE_CHECKING:  # importing mlflow takes seconds
    from mlflow import MlflowClient

RESULTS = Path("results")
Stage = Literal["train", "evaluate"]
FILES = {"train": ("run.json", "history.csv", "costs.json"), "evaluate": ("run.json", "metrics.json")}
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
        new, known = _log(params, sorted(file.parent for file in RESULTS.glob("*/*/seed-*/run.json")))
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
        """Log a run unless the same contents stand there already. Returns whether it was logged."""
        about = read_json(folder / "run.json")
        variant, seed = about["variant"], about["seed"]
        key = f"{stage}/{variant}/{seed}"
        content = _content(params, folder, stage)
        files = {name: digest_file(folder / name) for name in FILES[stage] if name != "costs.json"}  # times vary
        contents = digest({**content, "files": files})
        with self.lock:
            client, experiment = self._open(f"rap-{content['params']['dataset']}")
            old = client.search_runs([experiment], f"tags.`rap.key` = '{key}'")
            if len(old) == 1 and old[0].data.tags.get("rap.contents") == contents:
                return False
            for run in old:
                client.delete_run(run.info.run_id)
            tags = content["tags"] | {"rap.key": key} | _revision()
            run = client.create_run(experiment, run_name=f"{variant} seed {seed}", tags=tags).info.run_id
            _write(client, run, content["params"], _metrics(folder, stage))
            for name in FILES[stage]:
                client.log_artifact(run, str(folder / name))
            client.set_tag(run, "rap.contents", contents)  # last: a run without it is not whole and is superseded
            client.set_terminated(run)
        return True

    def _open(self, experiment: str) -> tuple["MlflowClient", str]:
        _prepare()
        from mlflow import MlflowClient

        client = MlflowClient(self.uri)
        found = client.get_experiment_by_name(experiment)
        if found:
            return client, found.experiment_id
        artifacts = self.database and (self.database.parent / "mlartifacts" / experiment).as_uri()
        note = "Compare a table: filter tags.table1 = 'yes' and tags.stage = 'evaluate', then group by variant."
        return client, client.create_experiment(experiment, artifacts, {"mlflow.note.content": note})


def _content(params: Params, folder: Path, stage: Stage) -> dict[str, dict[str, str]]:
    """Params and tags of a run: all that is known of how it was made, except the state of git."""
    about = read_json(folder / "run.json")
    facts = {
        name: about[name] for name in ("dataset", "variant", "adapter", "seed", "backbone", "frames", "caches", "train")
    }
    chosen = facts | about["options"]
    tables = [name for name, table in params.tables.items() if about["variant"] in table.variants]
    tags = {name: str(about[name]) for name in ("variant", "adapter", "seed")} | dict.fromkeys(tables, "yes")
    digests = {f"digest.{name}": value for name, value in about["digests"].items()}
    return {"params": dict(_flat(chosen)), "tags": {**tags, **digests, "stage": stage, "mlflow.source.name": "rap"}}


def _metrics(folder: Path, stage: Stage) -> Iterator[tuple[str, float, int]]:
    """Name, value and step of every metric; `/` groups charts in the UI, and `@` is not allowed in a name."""
    yield "trainable_parameters", read_json(folder / "run.json")["parameters"], 0
    if stage == "train":
        for row in pd.read_csv(folder / "history.csv").to_dict("records"):
            for name in ("loss", "lr", "grad_norm"):
                yield f"train/{name}", row[name], int(row["step"])
        for name, value in read_json(folder / "costs.json").items():
            if name != "device":
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
