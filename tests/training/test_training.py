"""Training: resumes exactly, depends on what it says it depends on, learns what a time-blind method cannot."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from safetensors.torch import load_file

from rap import paths
from rap.errors import UserError
from rap.files import digest_file
from rap.retrieval.loss import info_nce
from rap.training import stage as training
from rap.training.run import Experiment, params_digest

DETERMINISTIC = ("adapter.safetensors", "history.csv", "run.json")


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make(**changes):
        params = tiny.project(tmp_path, **changes)
        tiny.cache(params)
        return params

    return make


def digests(variant, seed):
    return [digest_file(tiny.run_folder(variant, seed) / name) for name in DETERMINISTIC]


@pytest.mark.parametrize("variant", ["rap", "full", "lora"])
def test_a_run_killed_anywhere_ends_with_the_same_bytes(project, monkeypatch, variant):
    params = project()
    training.run(params, variant, 0)
    whole = digests(variant, 0)
    (tiny.run_folder(variant, 0) / "run.json").unlink()
    step = training.State.save

    def dying(state, experiment):
        step(state, experiment)
        if state.step == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(training.State, "save", dying)
    with pytest.raises(KeyboardInterrupt):
        training.run(params, variant, 0)
    monkeypatch.setattr(training.State, "save", step)
    assert training.checkpoint(Experiment(params, variant, 0)).exists()
    training.run(params, variant, 0)
    assert digests(variant, 0) == whole


def test_a_checkpoint_of_other_parameters_is_not_resumed(project, monkeypatch, tmp_path):
    params = project()
    experiment = Experiment(params, "lora", 0)
    data = training.Pairs(experiment.split("train"), experiment)
    state = training.State.begin(experiment, data)
    state.step = 3
    state.save(experiment)
    assert training.State.begin(experiment, data).step == 3
    other = tiny.project(tmp_path, train={"lr": 0.5})
    changed = Experiment(other, "ssf", 0)
    changed.folder = experiment.folder
    assert training.State.begin(changed, data).step == 0


def test_a_finished_run_is_left_alone_until_what_it_depends_on_changes(project, tmp_path):
    params = project()
    training.run(params, "ssf", 0)
    assert "up to date" in training.run(params, "ssf", 0)
    assert "steps" in training.run(tiny.project(tmp_path, train={"lr": 0.02}), "ssf", 0)


def test_the_digest_of_a_run_sees_its_own_parameters_only(project, tmp_path):
    params = project()
    before = {name: params_digest(params, name, 0) for name in params.variants}
    variants = params.model_dump()["variants"]
    variants["lora"]["lora"] = {"rank": 2}
    after = tiny.project(tmp_path, variants=variants)
    changed = [name for name in before if params_digest(after, name, 0) != before[name]]
    assert changed == ["lora"]
    assert params_digest(params, "lora", 1) != before["lora"]


def test_seeds_differ_and_repeat(project):
    params = project()
    training.run(params, "lora", 0)
    first = digests("lora", 0)
    training.run(params, "lora", 1)
    assert digests("lora", 1)[0] != first[0]
    (tiny.run_folder("lora", 0) / "run.json").unlink()
    training.run(params, "lora", 0)
    assert digests("lora", 0) == first


def test_training_lowers_the_loss_and_leaves_the_backbone(project):
    params = project(train={"epochs": 30})
    before = digest_file(paths.backbone(params.backbone.name) / "weights.safetensors")
    training.run(params, "rap", 0)
    rows = (tiny.run_folder("rap", 0) / "history.csv").read_text().splitlines()[1:]
    loss = [float(row.split(",")[3]) for row in rows]
    assert sum(loss[-4:]) < 0.8 * sum(loss[:4])
    assert digest_file(paths.backbone(params.backbone.name) / "weights.safetensors") == before


@pytest.mark.parametrize("variant", ["full", "lora", "ssf", "rap"])
def test_mixed_precision_follows_float32(project, variant):
    """The same steps under bfloat16 autocast: other bits, nearly the same losses, weights still in float32."""
    losses = {}
    for precision in ("float32", "bfloat16"):
        training.run(project(runtime={"precision": precision}), variant, 0)
        losses[precision] = pd.read_csv(tiny.run_folder(variant, 0) / "history.csv").loss.to_numpy()
        weights = load_file(tiny.run_folder(variant, 0) / "adapter.safetensors")
        assert {str(weight.dtype) for weight in weights.values()} == {"torch.float32"}
    assert (losses["float32"] != losses["bfloat16"]).any()
    np.testing.assert_allclose(losses["bfloat16"], losses["float32"], rtol=0.05)


def test_zero_shot_trains_nothing(project):
    params = project()
    training.run(params, "zero_shot", 0)
    run = json.loads((tiny.run_folder("zero_shot", 0) / "run.json").read_text())
    assert (run["parameters"], run["steps"], run["caches"]) == (0, 0, {"video": "video-all", "text": "text-all"})


def test_selection_keeps_the_best_epoch_of_the_split_that_it_names(project):
    params = project(train={"epochs": 4, "lr": 0.05, "select": "test"})
    training.run(params, "ssf", 0)
    run = json.loads((tiny.run_folder("ssf", 0) / "run.json").read_text())
    assert run["selected"] == "test" and 0 <= run["selected_epoch"] < 4


@pytest.mark.parametrize("together", [True, False])
def test_an_epoch_holds_every_pair_once_and_twins_share_its_batches(project, together):
    experiment = Experiment(project(train={"twins": together, "batch": 2}), "ssf", 0)
    data = training.Pairs(experiment.split("train"), experiment)
    order = [row for unit in data.units for row in unit]
    assert sorted(order) == list(range(len(data.captions)))
    scenes = [{int(data.owners[row][1:]) // 2 for row in unit} for unit in data.units]
    assert all(len(scene) == 1 for scene in scenes)
    assert {len(unit) for unit in data.units} == ({2} if together else {1})
    if together:
        assert all(data.captions[a].split("#")[1] == data.captions[b].split("#")[1] for a, b in data.units)


def test_too_few_videos_is_one_line(project, tmp_path):
    params = project()
    tiny.manifest(1).write(paths.manifest(params.dataset.name))
    with pytest.raises(UserError, match="fewer than two"):
        training.run(params, "ssf", 0)


def test_info_nce_of_a_known_matrix_and_without_false_negatives():
    similarity = torch.tensor([[0.5, 0.1], [0.3, 0.4]])
    scale = torch.tensor(math.log(10.0))
    want = [
        math.log(1 + math.exp(10 * (wrong - right)))
        for right, wrong in [(0.5, 0.1), (0.4, 0.3), (0.5, 0.3), (0.4, 0.1)]
    ]
    assert info_nce(similarity, scale, torch.eye(2, dtype=torch.bool)).item() == pytest.approx(sum(want) / 4, rel=1e-5)
    assert info_nce(similarity, scale, torch.ones(2, 2, dtype=torch.bool)).item() == 0


def test_the_rate_rises_then_falls_to_zero():
    from rap.params import Train

    shape = training.rate(100, Train(warmup=0.1))
    rates = [shape(step) for step in range(101)]
    assert rates[0] == 0.1 and max(rates) == rates[9] == 1.0 and rates[100] == pytest.approx(0)
    assert rates[:10] == sorted(rates[:10]) and rates[10:] == sorted(rates[10:], reverse=True)
