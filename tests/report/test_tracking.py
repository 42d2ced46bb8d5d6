"""Logging against a real MLflow store on SQLite, from several real processes."""

import subprocess
import sys
from pathlib import Path

import finished
import pandas as pd
import pytest
import yaml

from rap import params
from rap.errors import UserError
from rap.files import read_json, write_json
from rap.provenance import Record
from rap.report import tracking

pytestmark = pytest.mark.engine

ROOT = Path(__file__).parents[2]
JOB = """
import pathlib, sys
from rap import params
from rap.report import tracking
tracking.log(params.load(), [pathlib.Path(sys.argv[1])])
"""


@pytest.fixture
def project(tmp_path, monkeypatch) -> params.Params:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name, value in tracking.SETTINGS.items():  # the tests import mlflow themselves
        monkeypatch.setenv(name, value)
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    Path("params.yaml").write_text(yaml.safe_dump(values))
    return params.load()


def write_run(project: params.Params, variant: str, seed: int, loss: float = 1.0, steps: int = 3) -> Path:
    rows = [f"{step},0,0.1,{loss / (step + 1)},1.0" for step in range(steps)]
    history = "\n".join(["step,epoch,lr,loss,grad_norm", *rows]) + "\n"
    folder = finished.train(project, variant, seed, history=history)
    figures = {"R@1": 12.5, "MdR": 2.0}
    test = {"t2v": figures, "v2t": figures, "twin": {"all": 60.0}, "by_kind": {"move": figures}}
    finished.evaluate(project, variant, seed, test | {"videos": 4, "queries": 8}, pd.DataFrame({"above": [0]}))
    return folder


def runs(project, everything: bool = False) -> list:
    from mlflow import MlflowClient
    from mlflow.entities import ViewType

    client = MlflowClient(tracking.uri(project))
    experiment = client.get_experiment_by_name("rap-demo").experiment_id
    return client.search_runs([experiment], run_view_type=ViewType.ALL if everything else ViewType.ACTIVE_ONLY)


@pytest.mark.slow
def test_eight_processes_at_once_into_a_new_store(project):
    jobs = [("lorm", 0), ("lorm", 1), ("lorm", 2), ("ssf", 0), ("ssf", 1), ("ssf", 2), ("rap", 0), ("rap", 0)]
    folders = [write_run(project, *job) for job in jobs]
    started = [
        subprocess.Popen([sys.executable, "-c", JOB, str(folder)], stderr=subprocess.PIPE, text=True)
        for folder in folders
    ]
    assert [process.communicate()[1] for process in started] == [""] * 8
    assert [process.returncode for process in started] == [0] * 8
    found = runs(project, everything=True)
    assert sorted(run.data.tags["rap.key"] for run in found) == sorted(
        f"{stage}/{v}/{s}" for v, s in set(jobs) for stage in ("train", "evaluate")
    )
    assert all(run.info.status == "FINISHED" for run in found)


def test_a_run_is_logged_once_and_other_contents_supersede_it(project):
    folder = write_run(project, "lorm", 0)
    assert tracking.log_all(project).startswith("2 runs logged, 0 already there")
    write_json(folder / "costs.json", read_json(folder / "costs.json") | {"train_seconds": 9.0})
    assert tracking.log_all(project).startswith("0 runs logged, 2 already there")
    assert len(runs(project, everything=True)) == 2
    write_run(project, "lorm", 0, loss=2.0)
    assert tracking.log_all(project).startswith("2 runs logged, 0 already there")
    assert len(runs(project)) == 2
    assert len(runs(project, everything=True)) == 4


def test_a_run_that_was_cut_off_is_superseded(project):
    folder = write_run(project, "lorm", 0)
    (folder / "evaluation.json").unlink()
    tracking.log(project, [folder])
    [run] = runs(project)
    from mlflow import MlflowClient

    MlflowClient(tracking.uri(project)).delete_tag(run.info.run_id, "rap.contents")
    tracking.log(project, [folder])
    assert [other.info.run_id == run.info.run_id for other in runs(project)] == [False]


def test_what_the_ui_compares_is_there(project):
    folder = write_run(project, "lorm", 0, steps=1500)  # three metrics each: above MLflow's limit per request
    tracking.log(project, [folder])
    by_stage = {run.data.tags["stage"]: run for run in runs(project)}
    train, evaluate = by_stage["train"], by_stage["evaluate"]
    assert train.data.params["lorm.rank"] == evaluate.data.params["lorm.rank"] == "2"
    assert {"variant", "seed", "adapter", "train.lr", "backbone", "caches.video", "dataset"} <= set(train.data.params)
    assert evaluate.data.metrics["t2v/R_at_1"] == evaluate.data.metrics["by_kind/move/R_at_1"] == 12.5
    assert evaluate.data.metrics["twin/all"] == 60.0
    assert train.data.metrics["costs/train_seconds"] == 1.5
    assert train.data.tags["table1"] == "yes" and train.data.tags["digest.weights"] == "w" * 64
    for stage, run in by_stage.items():
        made = Record.read(folder / {"train": "run.json", "evaluate": "evaluation.json"}[stage]).provenance
        wanted = {"provenance": made.digest, "digest.params": made.params, "digest.code": made.code}
        assert wanted.items() <= run.data.tags.items()
    assert evaluate.info.run_name == "lorm seed 0"
    from mlflow import MlflowClient

    client = MlflowClient(tracking.uri(project))
    assert len(client.get_metric_history(train.info.run_id, "train/loss")) == 1500
    assert {file.path for file in client.list_artifacts(train.info.run_id)} == set(tracking.FILES["train"])


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "sqlite:////dev/null", "nonsense://store"])
def test_a_store_that_fails_costs_a_line_not_the_training(project, uri, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    tracking.log(project, [write_run(project, "lorm", 0)])
    error = capsys.readouterr().err
    assert error.startswith("rap: warning: not logged to MLflow") and error.count("\n") == 1
    with pytest.raises(UserError, match=r"tracking\.uri"):
        tracking.log_all(project)


def test_without_mlflow_tables_are_made_and_nothing_is_logged(project, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    tracking.log(project, [write_run(project, "lorm", 0)])
    assert capsys.readouterr().err == "rap: note: mlflow is not installed, so runs are not logged\n"
    with pytest.raises(UserError, match=r"pip install 'rap-retrieval\[tracking\]'"):
        tracking.log_all(project)


def test_importing_it_does_not_import_mlflow():
    code = "import sys, rap.report.tracking; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
