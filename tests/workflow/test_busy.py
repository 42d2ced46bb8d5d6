"""Eight jobs of Snakemake at once on a busy machine: every run is logged to MLflow once, and none stays RUNNING.

ROUNDS=3 pytest tests/workflow/test_busy.py runs three rounds, some minutes each.
"""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from clones import clone, edit, run

ROUNDS = int(os.environ.get("ROUNDS", 0))
METHODS = ("ssf", "lorm", "rap", "lora", "bias", "vop", "st_adapter", "projection")
COUNT = """
from mlflow import MlflowClient
client = MlflowClient("sqlite:///mlflow.db")
for run in client.search_runs([client.get_experiment_by_name("rap-demo").experiment_id]):
    print(run.data.tags.get("rap.key", "table"), run.info.status)
"""

pytestmark = [pytest.mark.engine, pytest.mark.slow]


def eight(params: dict) -> None:
    """Eight variants with two seeds each, in eight tables that log at once."""
    known = params["variants"] | params["ablations"]
    params["variants"] = {name: known[name] for name in METHODS}
    params["run"], params["seeds"], params["ablations"] = list(METHODS), [0, 1], {}
    params["tables"] = {
        f"table{n}": {"title": name, "variants": [name], "baseline": name} for n, name in enumerate(METHODS, 1)
    }
    params["features"]["caches"] = ["video-0", "text-ids"]


@pytest.mark.skipif(not ROUNDS, reason="takes minutes: set ROUNDS=3")
def test_sixteen_runs_are_logged_by_eight_jobs_at_once(tmp_path):
    folder = clone(tmp_path)
    (folder / "params.yaml").write_text((Path(__file__).parents[2] / "params.yaml").read_text())
    edit(folder, lambda params: params["dataset"]["demo"].update(train=8, val=2, test=5))
    edit(folder, lambda params: params["train"].update(epochs=1))
    edit(folder, eight)
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4)]
    try:
        for _ in range(ROUNDS):
            for made in ("mlflow.db", *(str(file) for file in folder.glob("results/table*"))):
                (folder / made).unlink(missing_ok=True)
            said = run(folder, "snakemake", "--cores", "8")
            logged = Counter(run(folder, sys.executable, "-c", COUNT).splitlines())
            assert logged == {f"{name}/{seed} FINISHED": 1 for name in METHODS for seed in (0, 1)} | {
                "table FINISHED": 8
            }
            assert "not logged to MLflow" not in said
    finally:
        for process in busy:
            process.kill()
