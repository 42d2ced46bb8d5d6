"""Training: resumes exactly, depends on what it says it depends on, learns what a time-blind method cannot."""

import math

import do
import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from open_clip.loss import SigLipLoss
from safetensors.torch import load_file
from sealed import damage

from rap import paths
from rap.errors import UserError
from rap.files import digest_file
from rap.params import Variant
from rap.retrieval.corpus import open_corpus
from rap.retrieval.loss import info_nce, sigmoid
from rap.retrieval.model import new_model
from rap.training.batches import Pairs
from rap.training.optimiser import optimiser, rate
from rap.training.run import read_run
from rap.training.state import State

CPU = torch.device("cpu")
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
    return [digest_file(paths.run(variant, seed) / name) for name in DETERMINISTIC]


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["rap", "full", "lora"])
def test_a_run_killed_anywhere_ends_with_the_same_bytes(project, monkeypatch, variant):
    params = project()
    do.train(params, variant, 0)
    whole = digests(variant, 0)
    (paths.run(variant, 0) / "run.json").unlink()
    step = State.save

    def dying(state, *arguments):
        step(state, *arguments)
        if state.step == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(State, "save", dying)
    with pytest.raises(KeyboardInterrupt):
        do.train(params, variant, 0)
    monkeypatch.setattr(State, "save", step)
    assert paths.run(variant, 0).checkpoint.exists()
    do.train(params, variant, 0)
    assert digests(variant, 0) == whole


def fresh(params, variant="lora") -> State:
    model, _ = new_model(params, variant, 0, CPU)
    weights = [p for p in model.adapter.parameters() if p.requires_grad]
    return State(model.adapter, *optimiser(weights, 10, params.training(variant)))


def test_a_checkpoint_of_another_provenance_or_a_damaged_one_is_not_resumed(project, tmp_path, capsys):
    params, file = project(), tmp_path / "checkpoint.pt"
    state = fresh(params)
    state.step = 3
    state.save(file, "this")
    for provenance, step in (("this", 3), ("another", 0)):
        state = fresh(params)
        state.resume(file, provenance, CPU)
        assert state.step == step
    content = file.read_bytes()
    state = fresh(params)

    def refused(file):
        state.resume(file, "this", CPU)
        assert state.step == 0 and capsys.readouterr().err.endswith("damaged; training starts again\n")

    for offset in (*range(0, len(content), 97), *range(len(content) - 80, len(content))):
        damage(file, offset)
        refused(file)
        damage(file, offset)
    for size in (0, 10, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:size])
        refused(file)
    file.write_bytes(content)
    state.resume(file, "this", CPU)
    assert state.step == 3


def test_a_training_from_a_shallow_cache_names_the_deeper_one(project):
    params = project(features={"caches": ["video-0", "text-ids"]})
    blocks = {"variants": params.variants | {"ssf": Variant(adapter="ssf", ssf={"blocks": [2]})}}
    assert do.train(params.model_copy(update=blocks), "ssf", 0).endswith(
        "with video-2 in features.caches, it would compute less"
    )
    params = project()
    assert "would compute less" not in do.train(params, "lorm", 0)


def test_a_finished_run_is_left_alone_until_what_it_depends_on_changes(project, tmp_path):
    params = project()
    do.train(params, "ssf", 0)
    assert "up to date" in do.train(params, "ssf", 0)
    assert "steps" in do.train(tiny.project(tmp_path, train={"epochs": 3}), "ssf", 0)


def test_seeds_differ_and_repeat(project):
    params = project()
    do.train(params, "lora", 0)
    first = digests("lora", 0)
    do.train(params, "lora", 1)
    assert digests("lora", 1)[0] != first[0]
    (paths.run("lora", 0) / "run.json").unlink()
    do.train(params, "lora", 0)
    assert digests("lora", 0) == first


@pytest.mark.slow
def test_training_lowers_the_loss_and_leaves_the_backbone(project):
    params = project(train={"epochs": 60})
    before = digest_file(paths.backbone(params.backbone.name) / "weights.safetensors")
    do.train(params, "rap", 0)
    rows = (paths.run("rap", 0) / "history.csv").read_text().splitlines()[1:]
    loss = [float(row.split(",")[3]) for row in rows]
    assert sum(loss[-4:]) < 0.8 * sum(loss[:4])
    assert digest_file(paths.backbone(params.backbone.name) / "weights.safetensors") == before


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["full", "lora", "ssf", "rap"])
def test_mixed_precision_follows_float32(project, variant):
    """The same steps under bfloat16 autocast: other bits, nearly the same losses, weights still in float32."""
    losses = {}
    for precision in ("float32", "bfloat16"):
        do.train(project(runtime={"precision": precision}), variant, 0)
        losses[precision] = pd.read_csv(paths.run(variant, 0) / "history.csv").loss.to_numpy()
        weights = load_file(paths.run(variant, 0) / "adapter.safetensors")
        assert {str(weight.dtype) for weight in weights.values()} == {"torch.float32"}
    assert (losses["float32"] != losses["bfloat16"]).any()
    np.testing.assert_allclose(losses["bfloat16"], losses["float32"], rtol=0.05)


def test_zero_shot_trains_nothing(project):
    params = project()
    do.train(params, "zero_shot", 0)
    run = read_run(paths.run("zero_shot", 0))[0]
    assert (run.parameters, run.steps, run.caches) == (0, 0, {"video": "video-all", "text": "text-all"})


def test_selection_keeps_the_best_epoch_of_the_split_that_it_names(project):
    params = project(train={"epochs": 4, "lr": 0.05, "select": "test"})
    do.train(params, "ssf", 0)
    run = read_run(paths.run("ssf", 0))[0]
    assert run.selected == "test" and 0 <= run.selected_epoch < 4


@pytest.mark.parametrize("together", [True, False])
def test_an_epoch_holds_every_pair_once_and_twins_share_its_batches(project, together):
    params = project(train={"twins": together, "batch": 2})
    model, _ = new_model(params, "ssf", 0, CPU)
    data = Pairs(open_corpus(params, model), params.training("ssf"), 0)
    order = [row for group in data.neighbours for row in group]
    assert sorted(order) == list(range(len(data.captions)))
    scenes = [{int(data.owners[row][1:]) // 2 for row in group} for group in data.neighbours]
    assert all(len(scene) == 1 for scene in scenes)
    assert {len(group) for group in data.neighbours} == ({2} if together else {1})
    if together:
        assert all(data.captions[a].split("#")[1] == data.captions[b].split("#")[1] for a, b in data.neighbours)


def test_too_few_videos_is_one_line(project):
    params = project(videos=1)
    with pytest.raises(UserError, match="fewer than two"):
        do.train(params, "ssf", 0)


def test_info_nce_of_a_known_matrix_and_without_false_negatives():
    similarity = torch.tensor([[0.5, 0.1], [0.3, 0.4]])
    logits = 10 * similarity
    want = [
        math.log(1 + math.exp(10 * (wrong - right)))
        for right, wrong in [(0.5, 0.1), (0.4, 0.3), (0.5, 0.3), (0.4, 0.1)]
    ]
    assert info_nce(logits, torch.eye(2, dtype=torch.bool)).item() == pytest.approx(sum(want) / 4, rel=1e-5)
    assert info_nce(logits, torch.ones(2, 2, dtype=torch.bool)).item() == 0


def test_the_sigmoid_loss_is_open_clips_and_leaves_false_negatives_out():
    features = torch.nn.functional.normalize(torch.randn(2, 6, 8), dim=-1)
    scale, bias = torch.tensor(10.0), torch.tensor(-4.0)
    logits = (scale * features[0] @ features[1].T + bias).requires_grad_()
    alone = torch.eye(6, dtype=torch.bool)
    theirs = SigLipLoss()(features[0], features[1], scale, bias)
    assert sigmoid(logits, alone).item() == pytest.approx(theirs.item(), rel=1e-6)
    same = alone | alone.roll(1, 0) | alone.roll(1, 1)
    (gradient,) = torch.autograd.grad(sigmoid(logits, same), logits)
    assert not gradient[same & ~alone].any() and gradient[~same].all() and gradient[alone].all()


def test_the_sigmoid_loss_needs_a_backbone_with_a_bias(project):
    with pytest.raises(UserError, match=r"^train.loss: sigmoid needs a backbone with a logit_bias"):
        do.train(project(train={"loss": "sigmoid"}), "lorm", 0)


def test_the_rate_rises_then_falls_to_zero():

    shape = rate(100, warmup=0.1)
    rates = [shape(step) for step in range(101)]
    assert rates[0] == 0.1 and max(rates) == rates[9] == 1.0 and rates[100] == pytest.approx(0)
    assert rates[:10] == sorted(rates[:10]) and rates[10:] == sorted(rates[10:], reverse=True)
