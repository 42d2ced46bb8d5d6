"""Both engines to the end on a small demo: same bytes, nothing left to do, the same bytes after a kill."""

import base64
import json
import os
import random
import re
import shlex
import shutil
import time
from pathlib import Path

import mlflow_ui
import pandas as pd
import pytest
import requests
import yaml
from clones import GIT, ROOT, clone, edit, kill, run, start
from engines import planned

pytestmark = [pytest.mark.engine, pytest.mark.slow]

TABLE = [f"results/table1.{kind}" for kind in ("csv", "md", "png", "json")]
LORM = "results/runs/lorm/seed-0"
RUNS = [f"{LORM}/{name}" for name in ("adapter.safetensors", "run.json", "metrics.json", "evaluation.json")]
ABLATED = ["results/table3.csv", "results/table3.md", "results/runs/rank_4/seed-0/adapter.safetensors"]
INSTALLED = ("--old-file", ".venv/installed")  # the clones use the packages that the tests use


def lean(folder: Path) -> Path:
    """A clone with two variants, one table and one shard: the pipeline runs often here."""

    def reduce(params: dict) -> None:
        params["shards"], params["run"] = [0], ["lorm", "rap"]
        del params["variants"]["ssf"], params["tables"]["table2"]
        params["tables"]["table1"].update(variants=["lorm", "rap"], baseline="rap")

    edit(clone(folder), reduce)
    return folder


@pytest.fixture(scope="module")
def dvc_ran(tmp_path_factory) -> Path:
    """A clone in which DVC ran; do not change it."""
    folder = lean(tmp_path_factory.mktemp("dvc"))
    run(folder, "make", "demo", *INSTALLED)
    return folder


@pytest.fixture(scope="module")
def snakemake_ran(tmp_path_factory) -> Path:
    """A clone in which Snakemake ran; do not change it."""
    folder = lean(tmp_path_factory.mktemp("snakemake"))
    run(folder, "snakemake", "--cores", "8", "results/table1.csv")
    run(folder, "snakemake", "--cores", "8")
    return folder


@pytest.fixture
def by_dvc(dvc_ran, tmp_path) -> Path:
    return Path(shutil.copytree(dvc_ran, tmp_path / "by-dvc", symlinks=True))


@pytest.fixture
def by_snakemake(snakemake_ran, tmp_path) -> Path:
    return Path(shutil.copytree(snakemake_ran, tmp_path / "by-snakemake", symlinks=True))


def sync(folder: Path, fails: bool = False) -> str:
    return run(folder, "make", "sync", *INSTALLED, fails=fails)


def set_rank(folder: Path, rank: int) -> None:
    edit(folder, lambda params: params["variants"]["lorm"]["lorm"].update(rank=rank))


def contents(folder: Path, names: list[str]) -> list[bytes]:
    return [(folder / name).read_bytes() for name in names]


def test_both_engines_make_the_same_bytes(dvc_ran, snakemake_ran):
    assert contents(dvc_ran, TABLE + RUNS) == contents(snakemake_ran, TABLE + RUNS)


def test_a_second_run_has_nothing_to_do_in_either_engine(dvc_ran, snakemake_ran):
    assert planned(dvc_ran, "dvc") == planned(dvc_ran, "snakemake") == planned(snakemake_ran, "snakemake") == set()


def test_a_fresh_clone_makes_the_same_and_git_sees_no_change(by_dvc, tmp_path):
    """The lock pins no time and no memory: a second run on the same machine writes the same lock."""
    run(by_dvc, *GIT, "add", "--all")
    run(by_dvc, *GIT, "commit", "--quiet", "--message", "Results")
    fresh = tmp_path / "fresh"
    run(tmp_path, "git", "clone", "--quiet", str(by_dvc), str(fresh))
    run(fresh, "make", "demo", *INSTALLED)
    assert run(fresh, "git", "status", "--porcelain") == ""
    assert "up to date" in run(fresh, "dvc", "status")
    figures = {f"results/runs/rap/seed-0/metrics.json:{name}" for name in ("t2v_R@1", "twin_all")}
    assert documented(fresh, "dvc exp show --drop") >= {"Experiment", "workspace", *figures}
    assert contents(fresh, TABLE + RUNS) == contents(by_dvc, TABLE + RUNS)


def documented(folder: Path, start: str) -> set[str]:
    """The words that a command of docs/engines.md prints."""
    lines = (ROOT / "docs/engines.md").read_text().splitlines()
    (command,) = (line.strip() for line in lines if line.strip().startswith(start))
    return set(run(folder, *shlex.split(command)).split())


def test_ablations_are_targets_of_their_own(by_dvc, by_snakemake):
    """The default run leaves them alone; asked for, they reuse its runs and come out the same in both engines."""
    assert not (by_dvc / "results/runs/rank_4").exists()
    run(by_dvc, "rap", "graph", "--ablations")
    run(by_dvc, "dvc", "repro", "workflow/ablations/dvc.yaml")
    run(by_snakemake, "snakemake", "--cores", "2", "ablations")
    assert contents(by_dvc, ABLATED) == contents(by_snakemake, ABLATED)
    edit(by_dvc, lambda params: params["ablations"]["rank_4"]["lorm"].update(rank=1))
    needed = {f"rap {job}" for job in ("train --variant rank_4 --seed 0", "evaluate --variant rank_4 --seed 0")}
    needed |= {"rap table --table table3"}
    assert planned(by_dvc, "dvc") == planned(by_dvc, "snakemake") == set()
    assert planned(by_dvc, "snakemake", "ablations") == planned(by_dvc, "dvc", "ablations") == needed


def test_the_report_of_snakemake_shows_the_tables_and_the_page(by_snakemake):
    run(by_snakemake, "snakemake", "--report", "shown.html")
    shown = (by_snakemake / "shown.html").read_text()
    assert all(name in shown for name in ("results/report.html", "results/table1.png"))
    assert "differences from the" in shown  # a caption of workflow/report


def test_results_can_be_looked_at(by_dvc):
    assert "rap" in run(by_dvc, "rap", "adapters")
    assert "results/runs/lorm/seed-0/metrics.json" in run(by_dvc, "dvc", "metrics", "show")
    plots = json.loads(run(by_dvc, "dvc", "plots", "show", "--json"))["data"]
    curves, bars = (plots[name][0]["content"] for name in ("loss, seed 0", "recall, table1"))
    table = pd.read_csv(by_dvc / "results/table1.csv")
    drawn = {row["label"]: float(row["t2v_R@1_mean"]) for row in bars["data"]["values"]}
    assert drawn == dict(zip(table.label, table["t2v_R@1_mean"], strict=True))
    assert {row["filename"].split("/")[0] for row in curves["data"]["values"]} >= {"lorm"}
    assert yaml.safe_load((by_dvc / "dvc.yaml").read_text())["artifacts"]["lorm"]["type"] == "model"
    assert "undamaged" in run(by_dvc, "rap", "verify")
    with mlflow_ui.serving(by_dvc) as address:
        assert "MLflow" in requests.get(address).text


def test_dvc_takes_over_what_snakemake_made_and_sync_records_nothing_else(by_snakemake):
    assert "rap train --variant lorm --seed 0" in planned(by_snakemake, "dvc")
    set_rank(by_snakemake, 3)
    assert "the default run is not finished" in sync(by_snakemake, fails=True)
    set_rank(by_snakemake, 2)
    content = bytearray((by_snakemake / RUNS[0]).read_bytes())
    content[-60:] = bytes(60)
    (by_snakemake / RUNS[0]).write_bytes(content)
    assert f"{RUNS[0]}: damaged; run `rap train --variant lorm --seed 0`" in sync(by_snakemake, fails=True)
    run(by_snakemake, "rap", "train", "--variant", "lorm", "--seed", "0")
    sync(by_snakemake)
    assert planned(by_snakemake, "dvc") == planned(by_snakemake, "snakemake") == set()


def test_a_parameter_that_goes_there_and_back_is_not_missed(by_dvc):
    """DVC runs with another value, unseen by Snakemake, and the value is put back: the files are the other value's."""
    before = contents(by_dvc, TABLE + RUNS)
    set_rank(by_dvc, 3)
    run(by_dvc, "dvc", "repro", "table1")
    assert contents(by_dvc, RUNS) != before[len(TABLE) :]
    set_rank(by_dvc, 2)
    run(by_dvc, "snakemake", "--cores", "2", TABLE[0])
    assert contents(by_dvc, TABLE + RUNS) == before


def test_a_changed_source_file_trains_again_and_leaves_nothing_old(by_dvc):
    """Training that drops four videos: the stage must not call the old weights up to date."""
    file = by_dvc / "src/rap/training/batches.py"
    text = file.read_text()
    changed = re.sub(r'corpus\.split\("train"\)', "_without_four(corpus)", text)
    assert changed != text
    changed += """

def _without_four(corpus):
    from rap.retrieval.corpus import Split

    split = corpus.split("train")
    captions = split.captions[split.captions.video_id.isin(split.videos[4:])].reset_index(drop=True)
    return Split(split.videos[4:], captions, split.total)
"""
    file.write_text(changed)
    before = contents(by_dvc, RUNS[:1])
    said = run(by_dvc, "dvc", "repro", "train@lorm")
    assert "up to date" not in said and contents(by_dvc, RUNS[:1]) != before


def test_a_killed_training_ends_with_the_same_bytes(by_dvc, by_snakemake):
    """DVC trains without interruption; Snakemake is killed with its job during a training, unlocked, and run again."""
    for folder in (by_dvc, by_snakemake):
        edit(folder, lambda params: params["variants"]["lorm"].update(train={"epochs": 30, "checkpoint_every": 5}))
    run(by_dvc, "dvc", "repro", "train@lorm")
    killed = start(by_snakemake, "snakemake", "--cores", "2", RUNS[1])
    while not (by_snakemake / LORM / "checkpoint.pt").exists():
        assert killed.poll() is None, "the run ended before there was a checkpoint"
        time.sleep(0.01)
    kill(killed)
    run(by_snakemake, "snakemake", "--unlock")
    run(by_snakemake, "snakemake", "--cores", "2", RUNS[1])
    assert contents(by_snakemake, RUNS[:2]) == contents(by_dvc, RUNS[:2])


def test_a_job_that_was_killed_before_its_end_was_noted_hides_no_other(by_snakemake):
    """Its files are whole, and Snakemake has a mark that they are not. What follows from them is missing."""
    shutil.rmtree(by_snakemake / "results")
    mark = base64.b64encode(b"data/demo/features/video-0/shard-0.npy").decode()
    (by_snakemake / ".snakemake/incomplete" / mark).touch()
    found = planned(by_snakemake, "snakemake")
    assert {"rap features --cache video-0 --shard 0", "rap train --variant lorm --seed 0", "rap report"} <= found


KILLS = int(os.environ.get("KILLS", 1))
UNLOCK = {"dvc": (), "snakemake": (("snakemake", "--unlock"),)}
WHOLE = {"dvc": ("dvc", "repro"), "snakemake": ("snakemake", "--cores", "2")}


@pytest.mark.parametrize("engine", WHOLE)
def test_a_pipeline_that_is_killed_at_random_moments_ends_with_the_same_bytes(by_dvc, engine):
    """All of it at once, by a signal that nothing can catch. KILLS=50 kills each engine so many times."""
    expected, moments = contents(by_dvc, TABLE + RUNS), random.Random(engine)
    for _ in range(KILLS):
        for made in ("data/demo/features", "results"):
            if moments.random() < 0.7:
                shutil.rmtree(by_dvc / made, ignore_errors=True)
        killed = start(by_dvc, *WHOLE[engine])
        time.sleep(moments.uniform(3, 25))
        kill(killed)
        for command in UNLOCK[engine]:
            run(by_dvc, *command)
    said = run(by_dvc, *WHOLE[engine])
    missing = [name for name in TABLE + RUNS if not (by_dvc / name).exists()]
    assert not missing, f"{missing}, and the last run said:\n{said}"
    assert contents(by_dvc, TABLE + RUNS) == expected
    assert "undamaged" in run(by_dvc, "rap", "verify")
