"""Several processes compute the same loss, gradients, features and metrics as one process with the whole batch."""

import os
import subprocess
import sys
from pathlib import Path

import do
import numpy as np
import pandas as pd
import pytest
import tiny
import together
import torch
import yaml

from rap import paths
from rap.files import digest_file
from rap.runtime import distributed
from rap.training.run import read_run

ROOT = Path(__file__).resolve().parents[2]
METHODS = {  # besides those of params.yaml: a text-conditioned method, and a head over frames
    "text_query": {"adapter": "rap", "asa": {"blocks": [1, 2], "form": "attention", "query": "text", "top_k": 2}},
    "lstm": {"adapter": "sequential", "sequential": {"head": "lstm"}},
    "sigmoid": {"adapter": "ssf", "train": {"loss": "sigmoid"}},
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """`project(processes)`: a tiny project without features."""
    monkeypatch.chdir(tmp_path)

    def make(processes: int, **changes):
        runtime = {"processes": processes, "threads": 1, "device": "cpu"}
        return tiny.project(tmp_path, runtime=runtime, features={"batch": 2}, variants=METHODS, **changes)

    return make


def start(*command: str) -> str:
    """Run a command in the project and return both streams. Fails with the command's output."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}"}
    done = subprocess.run(
        [sys.executable, "-m", *command], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert not done.returncode, done.stdout[:2000] + done.stdout[-2000:]
    return done.stdout


def test_shares_are_all_items_in_order_and_nearly_equal(monkeypatch):
    for count in range(10):
        shares = []
        for rank in range(4):
            monkeypatch.setattr(distributed, "size", lambda: 4)
            monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
            shares.append(distributed.share(list(range(count))))
        assert [item for share in shares for item in share] == list(range(count))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.slow
def test_loss_and_gradients_are_those_of_one_process_with_the_whole_batch(project, processes):
    """Every method of the default run, including an uneven last batch and one with fewer pairs than processes."""
    settings = project(1)
    tiny.cache(settings)
    variants = [name for name in settings.variants if name not in ("zero_shot", "late")]  # these train nothing
    whole = together.every(settings, variants)
    project(processes)
    torchrun = ("torch.distributed.run", "--standalone", "--nproc-per-node", str(processes))
    start(*torchrun, str(ROOT / "tests/helpers/together.py"), "found.pt", *variants)
    found = torch.load("found.pt", weights_only=True)
    assert found.keys() == whole.keys()
    for case, values in whole.items():
        assert found[case].keys() == values.keys(), case
        scale = max(value.abs().max() for name, value in values.items() if name != "loss")
        for name, value in values.items():
            apart = (found[case][name] - value).abs().max()
            assert apart <= 4e-6 * max(scale, value.abs().max()), f"{case}: {name} is {apart:.1e} off"
        assert scale > 1e-3, case


@pytest.mark.slow
def test_a_job_of_two_processes_makes_the_features_and_metrics_of_one(project):
    """Features are byte-identical and, with the same adapter, so are the matrix, ranks and metrics."""
    caches = ("video-1", "text-ids")
    tiny.cache(project(1))
    alone = {name: digest_file(f"data/demo/features/{name}/shard-0.npy") for name in caches}
    settings = project(2)
    for name in caches:
        for end in ("npy", "parquet"):
            Path(f"data/demo/features/{name}/shard-0.{end}").unlink()
        said = start("rap", "features", "--cache", name, "--shard", "0")
        assert said.count("computed") == 1 and " 0 computed" not in said
        assert digest_file(f"data/demo/features/{name}/shard-0.npy") == alone[name]
    tiny.cache(settings)  # the other caches: their rows are kept, their records name the present runtime
    run, folder = ("--variant", "text_query", "--seed", "0"), paths.run("text_query", 0)
    assert start("rap", "train", *run).count("trainable parameters") == 1
    assert "up to date" in start("rap", "train", *run)
    start("rap", "evaluate", *run)
    names = ("metrics.json", "figures.json", "ranks.parquet", "similarity.npy")
    two = {name: (folder / name).read_bytes() for name in names}
    (folder / "evaluation.json").unlink()
    assert "queries" in do.evaluate(settings, "text_query", 0)
    assert {name: (folder / name).read_bytes() for name in names} == two


@pytest.mark.slow
def test_training_in_two_processes_follows_training_in_one(project):
    """Losses agree step by step up to rounding, which grows with the steps."""
    settings = project(1)
    tiny.cache(settings)
    do.train(settings, "rap", 0)
    folder = paths.run("rap", 0)
    alone = pd.read_csv(folder / "history.csv")
    tiny.cache(project(2))
    start("rap", "train", "--variant", "rap", "--seed", "0")
    both = pd.read_csv(folder / "history.csv")
    assert read_run(folder)[0].steps == len(both) == len(alone)
    np.testing.assert_allclose(both.loss, alone.loss, rtol=1e-4)
    np.testing.assert_allclose(both.grad_norm, alone.grad_norm, rtol=1e-3)


@pytest.mark.slow
def test_a_mistake_in_several_processes_is_one_line(project):
    project(2)
    command = [sys.executable, "-m", "rap", "train", "--variant", "rap", "--seed", "0"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, env=environment, text=True, capture_output=True)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("rap: data/demo/features")


@pytest.mark.slow
def test_a_torchrun_of_another_size_is_refused(project):
    project(3)
    command = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "rap", "train")
    with pytest.raises(AssertionError, match=r"runtime\.processes is 3, but torchrun started 2"):
        start(*command, "--variant", "rap", "--seed", "0")


def test_the_default_is_one_process():
    assert yaml.safe_load((ROOT / "params.yaml").read_text())["runtime"]["processes"] == 1
    assert distributed.size() == 1 and distributed.is_main()
