"""Logs finished runs to MLflow. The files are the results; MLflow is a view of them.

A variant with a seed is one MLflow run, found again by its key VARIANT/SEED, with the times of its training. It is
the child of the run of the first table that lists the variant, because MLflow allows one parent. Every table
of the default run has such a run, and the tag TABLE = 'yes' finds the runs of every table. The same result is
never logged twice; a new result replaces the old MLflow run, which is deleted (MLflow can restore it). The table stage
logs all runs of its table at once, because opening a store takes seconds.

This is our own code, because MLflow has no call that finds a run by a key, skips it if its content is the same,
replaces it if not, and holds a lock while a new database is set up. rap.report.mlflow_run defines the contents of a
run.
"""

import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from filelock import FileLock, Timeout

from rap import paths
from rap.errors import UserError, installed, require
from rap.files import digest
from rap.params import Params
from rap.report import mlflow_run
from rap.report.mlflow_run import Logged
from rap.runtime.mlflow_settings import prepare

if TYPE_CHECKING:  # importing mlflow takes seconds
    from mlflow import MlflowClient

PATIENCE = 120  # seconds to wait for other jobs that are logging
TRAINING = {"mlflow.experimentKind": "custom_model_development"}  # the UI then shows the view for model training


def log(params: Params, folders: Iterable[paths.RunFolder]) -> None:
    """Log finished runs, from their files. If the store fails, prints a warning.

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
    """Log every finished run under results/, for example after a checkout, which logs nothing.

    Raises UserError if the store cannot be used.
    """
    require("mlflow", "tracking")
    try:
        new, known = _log(params, paths.runs())
    except _failures() as error:
        raise UserError(f"tracking.uri: {uri(params)}: {_line(error)}") from None
    return f"{new} runs logged, {known} already there; see them with `{ui(params)}`"


def _log(params: Params, folders: Iterable[paths.RunFolder]) -> tuple[int, int]:
    """The numbers of runs logged now and logged before."""
    store = _Store(params)
    finished = []
    for folder in folders:
        if folder.record.exists():
            try:
                finished.append(mlflow_run.read(params, folder))
            except UserError as error:  # a damaged or incomplete run must not keep the others out
                print(f"rap: warning: not logged to MLflow: {error}", file=sys.stderr)
    finished.sort(key=lambda run: run.times)  # a table begins with its first run
    new = sum(store.log(params, run) for run in finished)
    return new, len(finished) - new


def uri(params: Params) -> str:
    """The store: MLFLOW_TRACKING_URI if it is set, else tracking.uri. A relative SQLite path is made absolute."""
    chosen = os.environ.get("MLFLOW_TRACKING_URI") or params.tracking.uri
    database = _database(chosen)
    return f"sqlite:///{database}" if database else chosen


def ui(params: Params) -> str:
    """The command that opens the MLflow UI on the store."""
    return f"mlflow ui --backend-store-uri {uri(params)} --workers 1"


class _Store:
    """A client; every dataset has its own experiment, `rap-DATASET`. One lock for all jobs of a machine.

    MLflow fails when several processes set up one new database, and has no atomic search-then-create.
    """

    def __init__(self, params: Params):
        self.uri = uri(params)
        self.database = _database(self.uri)
        beside = Path(f"{self.database}.lock") if self.database else Path(tempfile.gettempdir(), digest(self.uri)[:16])
        beside.parent.mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(beside, timeout=PATIENCE)
        prepare()
        import mlflow  # before the lock: on a busy machine the import takes longer than the work

        mlflow.set_tracking_uri(self.uri)

    def log(self, params: Params, run: Logged) -> bool:
        """Log a run unless the same result is logged already. Returns whether it was logged."""
        with self.lock:
            client, experiment = self._open(f"rap-{run.params['dataset']}")
            parents = [self._parent(client, experiment, params, table, run.times) for table in _parents(params, run)]
            old = client.search_runs([experiment], f"tags.`rap.key` = '{run.key}'")
            if len(old) == 1 and old[0].data.tags.get("rap.contents") == run.contents:
                return False
            for other in [*old, *self._cut_off(client, experiment)]:
                client.delete_run(other.info.run_id)
            tags = dict(run.tags)
            if parents:
                tags["mlflow.parentRunId"] = parents[0]
            mlflow_run.write(client, experiment, run, tags)
        return True

    def _cut_off(self, client: "MlflowClient", experiment: str) -> list:
        """Runs whose process was killed while logging: no other process writes while this one holds the lock.

        A server may have writers on other machines, so their runs are not deleted.
        """
        if not self.database:
            return []
        return client.search_runs([experiment], "attributes.status = 'RUNNING' and tags.`rap.key` LIKE '%'")

    def _parent(
        self, client: "MlflowClient", experiment: str, params: Params, table: str, times: tuple[int, int]
    ) -> str:
        """The run of a table, which ends with the last run that it lists. Its note links to these runs."""
        began, ended = times
        found = client.search_runs([experiment], f"tags.`rap.table` = '{table}'")
        if found:
            id = found[0].info.run_id
            if ended <= (found[0].info.end_time or 0):
                return id
        else:
            about = f"{params.tables[table].title}: [its runs, by R@1]({_link(experiment, table)})"
            tags = {"rap.table": table, "mlflow.source.name": "rap", "mlflow.note.content": about}
            id = client.create_run(experiment, began, tags, run_name=table).info.run_id
        client.set_terminated(id, end_time=ended)
        return id

    def _open(self, experiment: str) -> tuple["MlflowClient", str]:
        from mlflow import MlflowClient

        client = MlflowClient(self.uri)
        found = client.get_experiment_by_name(experiment)
        if found:
            return client, found.experiment_id
        artifacts = (self.database.parent / "mlartifacts" / experiment).as_uri() if self.database else None
        id = client.create_experiment(experiment, artifacts, TRAINING)
        client.set_experiment_tag(id, "mlflow.note.content", _note(id))
        return client, id


def _parents(params: Params, run: Logged) -> list[str]:
    """The tables whose runs span this one: the first that lists its variant, and all others of the default run."""
    made = params.tables
    default = [name for name in run.tables if not params.ablations.keys() & set(made[name].variants)]
    return list(dict.fromkeys([*run.tables[:1], *default]))


def _link(experiment: str, table: str) -> str:
    """The charts of a table's runs, ordered by R@1, as an address in MLflow's UI."""
    shown = {
        "searchFilter": f"tags.`{table}` = 'yes'",
        "orderByKey": "metrics.`headlines/R_at_1`",
        "orderByAsc": "false",
        "compareRunsMode": "CHART",
        "workflowType": "machine_learning",
    }
    return f"#/experiments/{experiment}/runs?{urlencode(shown)}"


def _note(experiment: str) -> str:
    """A link to the charts of table 2, and how to see another table."""
    link = _link(experiment, "table2")
    return f"[Compare table 2 by R@1]({link}). Another table: the filter `tags.table1 = 'yes'`, then group by variant."


def _database(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///")).resolve() if uri.startswith("sqlite:///") else None


def _failures() -> tuple[type[Exception], ...]:
    """The exceptions of a store that cannot be reached, locked, written or read; connection errors are OSErrors."""
    prepare()
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, SQLAlchemyError, OSError, Timeout)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
