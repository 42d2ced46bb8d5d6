"""Logging against a real MLflow store on SQLite, from several real processes."""

import re
import resource
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from urllib.parse import parse_qs

import do
import finished
import mlflow_ui
import pandas as pd
import pytest
import tiny
import yaml
from browser import shown

from rap import params, paths
from rap.errors import UserError
from rap.files import read_checked, read_json, write_checked
from rap.provenance import Record
from rap.report import tracking
from rap.retrieval.pretrained import from_pretrained
from rap.runtime.mlflow_settings import SETTINGS

pytestmark = pytest.mark.engine

ROOT = Path(__file__).parents[2]
JOB = """
import sys
from rap import params, paths
from rap.report import tracking
tracking.log(params.load(), [paths.RunFolder(sys.argv[1])])
"""


@pytest.fixture
def project(tmp_path, monkeypatch) -> params.Params:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name, value in SETTINGS.items():  # the tests import mlflow themselves
        monkeypatch.setenv(name, value)
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    Path("params.yaml").write_text(yaml.safe_dump(values))
    return params.load()


def write_run(project: params.Params, variant: str, seed: int, loss: float = 1.0, steps: int = 3, **costs) -> Path:
    rows = [f"{step},0,0.1,{loss / (step + 1)},1.0" for step in range(steps)]
    history = "\n".join(["step,epoch,lr,loss,grad_norm", *rows]) + "\n"
    folder = finished.train(project, variant, seed, history=history, costs=costs)
    figures = {"R@1": 12.5, "R@5": 30.0, "R@10": 40.0, "MdR": 2.0, "MnR": 3.0}
    test = {"t2v": figures, "v2t": figures, "twin": {"all": 60.0}, "by_kind": {"move": figures}}
    finished.evaluate(project, variant, seed, test | {"videos": 4, "queries": 8}, pd.DataFrame({"above": [0]}))
    return folder


def store(project):
    from mlflow import MlflowClient

    client = MlflowClient(tracking.uri(project))
    return client, client.get_experiment_by_name("rap-demo").experiment_id


def runs(project, everything: bool = False) -> list:
    """The runs of variants; those of tables are `parents`."""
    from mlflow.entities import ViewType

    client, experiment = store(project)
    view = ViewType.ALL if everything else ViewType.ACTIVE_ONLY
    return [run for run in client.search_runs([experiment], run_view_type=view) if "rap.key" in run.data.tags]


def parents(project) -> dict[str, object]:
    client, experiment = store(project)
    return {run.info.run_name: run for run in client.search_runs([experiment]) if "rap.table" in run.data.tags}


@pytest.mark.slow
def test_processes_at_once_into_a_new_store(project):
    jobs = [("lorm", 0), ("lorm", 1), ("rap", 0), ("rap", 0)]
    folders = [write_run(project, *job) for job in jobs]
    started = [
        subprocess.Popen([sys.executable, "-c", JOB, str(folder)], stderr=subprocess.PIPE, text=True)
        for folder in folders
    ]
    assert [process.communicate()[1] for process in started] == [""] * len(jobs)
    assert [process.returncode for process in started] == [0] * len(jobs)
    found = runs(project, everything=True)
    assert sorted(run.data.tags["rap.key"] for run in found) == sorted(f"{v}/{s}" for v, s in set(jobs))
    assert all(run.info.status == "FINISHED" for run in found)


def test_system_metrics_are_measured_on_request_and_shown_with_their_times(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = {"uri": "sqlite:///mlflow.db", "system_metrics": 0.05}
    settings = tiny.project(tmp_path, tracking=asked, train={"epochs": 40})
    tiny.cache(settings)
    do.train(settings, "lorm", 0)
    measured = pd.read_csv(paths.run("lorm", 0).system)
    assert len(measured) > 2 and measured.time.is_monotonic_increasing
    tracking.log_all(settings)
    (run,) = runs(settings)
    for name in ("cpu_utilization_percentage", "system_memory_usage_megabytes"):
        history = store(settings)[0].get_metric_history(run.info.run_id, f"system/{name}")
        assert [(entry.timestamp, entry.value) for entry in history] == list(
            zip(measured.time, measured[name], strict=True)
        )
    settings = settings.model_copy(update={"tracking": settings.tracking.model_copy(update={"system_metrics": None})})
    assert do.train(settings, "lorm", 0).endswith("up to date")
    do.train(settings, "lorm", 1)
    assert not paths.run("lorm", 1).system.exists()


@pytest.mark.idle
def test_in_a_browser_the_notes_link_compares_a_table_by_its_first_headline(tmp_path, monkeypatch):
    """MLflow's own page, in Chromium: the six headlines come first, and the best run on top."""
    monkeypatch.chdir(tmp_path)
    settings = tiny.project(tmp_path)
    tiny.cache(settings)
    best = {}
    for variant in ("zero_shot", "ssf", "lorm"):
        do.train(settings, variant, 0)
        do.evaluate(settings, variant, 0)
        best[f"{variant} seed 0"] = read_json(paths.run(variant, 0) / "metrics.json")["t2v_R@1"]
    tracking.log_all(settings)
    client, experiment = store(settings)
    note = client.get_experiment(experiment).tags["mlflow.note.content"]
    link = re.search(r"\]\((#.+?)\)", note)[1].replace("table2", "table1")  # a tiny project has one table
    with mlflow_ui.serving(tmp_path) as address:
        page, said = shown(f"{address}/{link}", "--window-size=1500,1000", seconds=60)
    text = re.sub("<[^>]+>", " ", page)
    listed = re.findall(r"\w+ seed 0", text)
    assert re.search(r"headlines\s+\(6\)", text) and "Sort: headlines/R_at_1" in text, said
    assert set(listed) == set(best) and [best[name] for name in dict.fromkeys(listed)] == sorted(best.values())[::-1]
    assert not [line for line in said if "Uncaught" in line or "Error" in line]


def test_a_run_is_logged_once_and_other_contents_supersede_it(project):
    folder = write_run(project, "lorm", 0)
    assert tracking.log_all(project).startswith("1 runs logged, 0 already there")
    write_checked(folder / "costs.json", read_checked(folder / "costs.json") | {"train_seconds": 9.0})
    assert tracking.log_all(project).startswith("0 runs logged, 1 already there")
    assert len(runs(project, everything=True)) == 1
    write_run(project, "lorm", 0, loss=2.0)
    assert tracking.log_all(project).startswith("1 runs logged, 0 already there")
    assert len(runs(project)) == 1
    assert len(runs(project, everything=True)) == 2
    assert [run.info.status for run in runs(project)] == ["FINISHED"]


def test_a_run_that_was_cut_off_is_superseded_by_whoever_logs_next(project):
    folder = write_run(project, "lorm", 0)
    tracking.log(project, [folder])
    [run] = runs(project)
    client, _ = store(project)
    client.delete_tag(run.info.run_id, "rap.contents")
    client.update_run(run.info.run_id, "RUNNING")
    tracking.log(project, [write_run(project, "ssf", 0)])
    assert [other.info.run_name for other in runs(project)] == ["ssf seed 0"]
    tracking.log(project, [folder])
    assert {other.info.status for other in runs(project)} == {"FINISHED"} and len(runs(project)) == 2


def test_training_and_evaluation_are_one_run_with_the_times_of_the_training(project):
    folder = write_run(project, "lorm", 0, began=1.7e9, ended=1.7e9 + 68)
    (folder / "evaluation.json").unlink()
    tracking.log(project, [folder])
    [run] = runs(project)
    assert not any(name.startswith(("headlines/", "test/")) for name in run.data.metrics)
    tracking.log(project, [write_run(project, "lorm", 0, began=1.7e9, ended=1.7e9 + 68)])
    [run] = runs(project)
    assert (run.info.start_time, run.info.end_time) == (1_700_000_000_000, 1_700_000_068_000)
    assert run.info.run_name == "lorm seed 0" and run.data.metrics["headlines/R_at_1"] == 12.5


def test_the_evaluation_of_an_earlier_training_is_not_logged_as_that_of_this_one(project):
    write_run(project, "lorm", 0)
    finished.train(project, "lorm", 0, history="step,epoch,lr,loss,grad_norm\n", steps=4)
    tracking.log_all(project)
    [run] = runs(project)
    assert not any(name.startswith(("headlines/", "test/")) for name in run.data.metrics)
    assert "provenance.evaluate" not in run.data.tags
    client, _ = store(project)
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"run.json", "history.csv"}


def test_what_the_ui_compares_is_there(project):
    folder = write_run(project, "lorm", 0, steps=1500)  # three metrics each: above MLflow's limit per request
    tracking.log(project, [folder])
    [run] = runs(project)
    assert run.data.params["lorm.rank"] == "2"
    assert {"variant", "seed", "adapter", "train.lr", "backbone", "caches.video", "dataset"} <= set(run.data.params)
    assert run.data.metrics["test/t2v/R_at_1"] == run.data.metrics["test/by_kind/move/R_at_1"] == 12.5
    assert run.data.metrics["headlines/twin_accuracy"] == 60.0 and run.data.metrics["resources/train_seconds"] == 1.5
    groups = [name.partition("/")[0] for name in sorted(run.data.metrics)]
    assert groups[:6] == ["headlines"] * 6 and set(groups[6:]) == {"resources", "test", "train"}
    assert run.data.tags["table1"] == "yes" and run.data.tags["digest.weights"] == "w" * 64
    for stage, name in (("train", "run.json"), ("evaluate", "evaluation.json")):
        made = Record.read(folder / name).provenance
        assert run.data.tags[f"provenance.{stage}"] == made.digest and run.data.tags[f"code.{stage}"] == made.code
    inputs = [(one.dataset.name, one.tags[0].value) for one in run.inputs.dataset_inputs]
    assert sorted(inputs) == [("demo test", "test"), ("demo training", "training")]
    client, experiment = store(project)
    assert len(client.get_metric_history(run.info.run_id, "train/loss")) == 1500
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {
        "run.json",
        "history.csv",
        "metrics.json",
        "figures.json",
        "evaluation.json",
    }
    tags = client.get_experiment(experiment).tags
    assert tags["mlflow.experimentKind"] == "custom_model_development" and "table2" in tags["mlflow.note.content"]


def test_a_table_is_a_parent_that_lasts_from_its_first_training_to_its_last(project):
    folders = [
        write_run(project, name, 0, began=1.7e9 + begun, ended=1.7e9 + begun + 10)
        for name, begun in (("lorm", 100), ("ssf", 0), ("rap", 200))
    ]
    tracking.log(project, folders)
    tables = parents(project)
    spans = {name: (table.info.start_time, table.info.end_time) for name, table in tables.items()}
    began, ended = 1_700_000_000_000, 1_700_000_210_000
    assert spans == {"table1": (began, ended), "table2": (began + 100_000, ended)}  # all rows of table 2 are in table 1
    assert {table.info.status for table in tables.values()} == {"FINISHED"}
    assert {run.data.tags["mlflow.parentRunId"] for run in runs(project)} == {tables["table1"].info.run_id}
    assert tracking.log_all(project).startswith("0 runs logged, 3 already there") and len(parents(project)) == 2


def test_the_note_of_a_table_leads_to_its_runs(project):
    tracking.log(project, [write_run(project, "lorm", 0), write_run(project, "ssf", 0)])
    client, experiment = store(project)
    listed = {}
    for name, table in parents(project).items():
        link = re.search(r"\]\(#/experiments/\d+/runs\?(.+?)\)", table.data.tags["mlflow.note.content"])[1]
        chosen = parse_qs(link)
        assert chosen["orderByKey"] == ["metrics.`headlines/R_at_1`"] and chosen["compareRunsMode"] == ["CHART"]
        found = client.search_runs([experiment], chosen["searchFilter"][0])
        listed[name] = {run.info.run_name for run in found}
    assert listed == {"table1": {"lorm seed 0", "ssf seed 0"}, "table2": {"lorm seed 0"}}


def test_a_store_from_before_a_table_had_a_run_gets_it(project):
    tracking.log(project, [write_run(project, "lorm", 0)])
    client, _ = store(project)
    client.delete_run(parents(project)["table2"].info.run_id)
    assert tracking.log_all(project).startswith("0 runs logged, 1 already there")
    assert parents(project).keys() == {"table1", "table2"}


def test_the_logged_model_gives_the_embeddings_of_the_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    settings = tiny.project(tmp_path)
    tiny.cache(settings)
    do.train(settings, "lorm", 0)
    tracking.log(settings, [paths.run("lorm", 0)])
    import mlflow

    [run] = runs(settings)
    [model] = mlflow.search_logged_models([run.info.experiment_id], output_format="list")
    assert model.source_run_id == run.info.run_id
    monkeypatch.chdir("/")  # it finds its backbone from anywhere
    queries = ["a red ball rolls", "a ball jumps"]
    found = mlflow.pyfunc.load_model(model.model_uri).predict(pd.DataFrame({"query": queries}))
    folder = tmp_path / paths.backbone(settings.backbone.name)
    whole = from_pretrained(tmp_path / paths.run("lorm", 0) / "adapter.safetensors", folder)
    assert (found == whole.texts(queries).numpy()).all() and found.shape == (2, 16)


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "sqlite:////dev/null", "nonsense://store"])
def test_a_store_that_fails_costs_a_line_not_the_training(project, uri, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    tracking.log(project, [write_run(project, "lorm", 0)])
    error = capsys.readouterr().err
    assert error.startswith("rap: warning: not logged to MLflow") and error.count("\n") == 1
    with pytest.raises(UserError, match=r"tracking\.uri"):
        tracking.log_all(project)


def test_a_locked_store_costs_a_line_and_is_caught_up_on(project, capsys):
    folders = [write_run(project, "lorm", seed) for seed in (0, 1)]
    tracking.log(project, folders[:1])
    with closing(sqlite3.connect("mlflow.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        tracking.log(project, folders)
    error = capsys.readouterr().err
    assert error.startswith("rap: warning: not logged to MLflow") and error.count("\n") == 1 and "locked" in error
    assert tracking.log_all(project).startswith("1 runs logged, 1 already there")


def test_a_store_without_room_costs_a_line_and_is_caught_up_on(project):
    """A limit on the size of files stands for a full disk."""
    folders = [write_run(project, "lorm", seed) for seed in (0, 1)]
    tracking.log(project, folders[:1])
    size = Path("mlflow.db").stat().st_size
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))  # noqa: E731
    done = subprocess.run(
        [sys.executable, "-c", JOB, str(folders[1])], preexec_fn=limit, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("rap: warning: not logged to MLflow") and done.stderr.count("\n") == 1
    assert tracking.log_all(project).startswith("1 runs logged, 1 already there")


def test_a_clock_that_ran_backwards_logs_no_negative_time(project):
    write_run(project, "lorm", 0, began=1.7e9, ended=1.7e9 - 3600)
    tracking.log_all(project)
    assert [run.info.end_time >= run.info.start_time for run in [*runs(project), *parents(project).values()]] == [
        True
    ] * 3


def test_without_mlflow_tables_are_made_and_nothing_is_logged(project, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    tracking.log(project, [write_run(project, "lorm", 0)])
    assert capsys.readouterr().err == "rap: note: mlflow is not installed, so runs are not logged\n"
    with pytest.raises(UserError, match=r"pip install 'rap-retrieval\[tracking\]'"):
        tracking.log_all(project)


def test_importing_it_does_not_import_mlflow():
    code = "import sys, rap.report.tracking; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
