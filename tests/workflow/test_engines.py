"""Both engines to the end on a small demo, in a clone each: same bytes, in step after `make sync`, nothing missed."""

import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml
from clones import ROOT, clone, edit, kill, run, start
from workflow_graphs import planned

pytestmark = [pytest.mark.engine, pytest.mark.slow]

TABLE = [f"results/table1.{kind}" for kind in ("csv", "md", "png")]
ABLATIONS = "workflow/ablations/dvc.yaml"
NUMBERS = yaml.safe_load((ROOT / ABLATIONS).read_text())["stages"]["table"]["matrix"]["number"]
ABLATED = ["results/table3.csv", "results/table3.md", "results/ablations/rank_2/seed-0/adapter.safetensors"]
RUNS = [f"results/runs/lorm/seed-0/{name}" for name in ("adapter.safetensors", "run.json", "metrics.json")]
RANKS = [f"results/runs/lorm/seed-0/{name}" for name in ("ranks.parquet", "similarity.npy")]
LORM = {"train@lorm-0", "evaluate@lorm-0", "table@1", "table@2"}
CHECKPOINT = "results/runs/lorm/seed-0/checkpoint.pt"
PORT = "50712"
NOTHING = {"dvc": set(), "snakemake": set()}
INSTALLED = ("--old-file", ".venv/installed")  # the clones use the packages that the tests use


@pytest.fixture(scope="module")
def ran_dvc(tmp_path_factory) -> Path:
    folder = clone(tmp_path_factory.mktemp("dvc"))
    run(folder, "make", "demo", *INSTALLED)
    return folder


@pytest.fixture(scope="module")
def ran_snakemake(tmp_path_factory) -> Path:
    folder = clone(tmp_path_factory.mktemp("snakemake"))
    run(folder, "snakemake", "--cores", "8", "results/table1.csv")
    run(folder, "snakemake", "--cores", "8")
    return folder


def sync(folder: Path, fails: bool = False) -> str:
    return run(folder, "make", "sync", *INSTALLED, fails=fails)


def set_rank(folder: Path, rank: int) -> None:
    """A parameter of one variant."""
    edit(folder, lambda params: params["variants"]["lorm"]["lorm"].update(rank=rank))


def wait_for(address: str, server: subprocess.Popen) -> bytes:
    """What a server answers as soon as it does."""
    while server.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=10) as answer:
                return answer.read()
        except urllib.error.URLError:
            time.sleep(0.2)
    raise AssertionError("the server ended")


def contents(folder: Path, names: list[str]) -> list[bytes]:
    return [(folder / name).read_bytes() for name in names]


def test_both_engines_make_the_same_bytes(ran_dvc, ran_snakemake):
    assert contents(ran_dvc, TABLE + RUNS) == contents(ran_snakemake, TABLE + RUNS)


def test_ablations_are_targets_of_their_own(ran_dvc, ran_snakemake):
    """The default run leaves them alone; asked for, they reuse its runs and come out the same in both engines."""
    assert not (ran_dvc / "results/ablations").exists()
    run(ran_dvc, "dvc", "repro", ABLATIONS)
    run(ran_snakemake, "snakemake", "--cores", "2", "ablations")
    assert contents(ran_dvc, ABLATED) == contents(ran_snakemake, ABLATED)
    sync(ran_dvc)
    assert planned(ran_dvc, "ablations") == NOTHING
    edit(ran_dvc, lambda params: params["ablations"]["rank_2"]["lorm"].update(rank=1))
    assert planned(ran_dvc) == NOTHING
    needed = {
        f"{ABLATIONS}:{job}"
        for job in ("train@rank_2-0", "evaluate@rank_2-0", *(f"table@{number}" for number in NUMBERS))
    }
    assert planned(ran_dvc, "ablations") == {"dvc": needed, "snakemake": needed}
    edit(ran_dvc, lambda params: params["ablations"]["rank_2"]["lorm"].update(rank=2))


def test_a_second_run_has_nothing_to_do(ran_dvc, ran_snakemake):
    assert planned(ran_dvc)["dvc"] == planned(ran_snakemake)["snakemake"] == set()


def test_results_can_be_looked_at(ran_dvc):
    assert "rap" in run(ran_dvc, "rap", "adapters")
    assert "results/runs/lorm/seed-0/metrics.json" in run(ran_dvc, "dvc", "metrics", "show")
    address = ("--backend-store-uri", "sqlite:///mlflow.db", "--workers", "1", "--port", PORT)
    server = start(ran_dvc, "mlflow", "ui", *address)
    try:
        assert wait_for(f"http://127.0.0.1:{PORT}/health", server) == b"OK"
    finally:
        kill(server)


def test_snakemake_takes_over_what_dvc_made_and_sees_a_changed_parameter(ran_dvc):
    sync(ran_dvc)
    assert planned(ran_dvc) == NOTHING
    set_rank(ran_dvc, 2)
    assert planned(ran_dvc) == {"dvc": LORM, "snakemake": LORM}
    assert "neither engine is up to date" in sync(ran_dvc, fails=True)
    set_rank(ran_dvc, 8)
    assert planned(ran_dvc)["dvc"] == set()


def test_dvc_takes_over_what_snakemake_made_and_sees_a_changed_parameter(ran_snakemake):
    assert planned(ran_snakemake)["dvc"] > LORM
    sync(ran_snakemake)
    assert planned(ran_snakemake) == NOTHING
    set_rank(ran_snakemake, 2)
    assert planned(ran_snakemake) == {"dvc": LORM, "snakemake": LORM}
    set_rank(ran_snakemake, 8)
    assert planned(ran_snakemake)["dvc"] == set()


def test_a_parameter_that_goes_there_and_back_is_not_missed(ran_dvc):
    """DVC runs with another value, unseen by Snakemake, and the value is put back: the files are the other value's."""
    sync(ran_dvc)
    before = contents(ran_dvc, TABLE + RUNS)
    set_rank(ran_dvc, 2)
    run(ran_dvc, "dvc", "repro")
    assert contents(ran_dvc, RUNS) != before[len(TABLE) :]
    set_rank(ran_dvc, 8)
    assert planned(ran_dvc) == {"dvc": LORM, "snakemake": LORM}
    sync(ran_dvc, fails=True)
    run(ran_dvc, "snakemake", "--cores", "2")
    assert contents(ran_dvc, TABLE + RUNS) == before
    sync(ran_dvc)
    assert planned(ran_dvc) == NOTHING


def test_results_of_other_parameters_are_not_recorded(ran_snakemake):
    """Snakemake made the new results, `dvc checkout --force` put the old ones back: sync must not call them new.

    By luck their times may be in the order that Snakemake expects; here they are.
    """
    sync(ran_snakemake)
    set_rank(ran_snakemake, 3)
    run(ran_snakemake, "snakemake", "--cores", "2")
    run(ran_snakemake, "dvc", "checkout", "--force")
    for name in [*RUNS, *RANKS, *TABLE, *(ran_snakemake / "results").glob("*[12].*")]:
        (ran_snakemake / name).touch()
    assert planned(ran_snakemake)["snakemake"] == set()
    assert "parameters changed, results did not" in sync(ran_snakemake, fails=True)
    set_rank(ran_snakemake, 8)
    run(ran_snakemake, "dvc", "repro")
    sync(ran_snakemake)
    assert planned(ran_snakemake) == NOTHING


def test_a_killed_training_ends_with_the_same_bytes(ran_dvc, ran_snakemake):
    """DVC trains in peace; Snakemake is killed with its job in the middle of training, unlocked, and run again."""
    for folder in (ran_dvc, ran_snakemake):
        edit(folder, lambda params: params["variants"]["lorm"].update(train={"epochs": 60, "checkpoint_every": 5}))
    run(ran_dvc, "dvc", "repro", "train@lorm-0")
    killed = start(ran_snakemake, "snakemake", "--cores", "2", RUNS[1])
    while not (ran_snakemake / CHECKPOINT).exists():
        assert killed.poll() is None, "the run ended before there was a checkpoint"
        time.sleep(0.01)
    kill(killed)
    run(ran_snakemake, "snakemake", "--unlock")
    run(ran_snakemake, "snakemake", "--cores", "2", RUNS[1])
    assert contents(ran_snakemake, RUNS[:2]) == contents(ran_dvc, RUNS[:2])
