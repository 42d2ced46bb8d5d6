"""The loop: what it gives to the loss, the optimiser and the selection of a checkpoint."""

import do
import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from safetensors.torch import load_file
from shipped import shipped

from rap import paths
from rap.training import loop
from rap.training.optimiser import optimiser, rate
from rap.training.run import read_run


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make(others="test", **train):
        params = tiny.project(tmp_path, others=others, train=train)
        tiny.cache(params)
        return params

    return make


def test_the_best_epoch_on_the_named_split_is_kept_and_its_weights_are_restored(project, monkeypatch):
    """Scores are made up: the second of three epochs is the best. Only clips of the split are scored."""
    params, scored, weights = project("val", select="val", epochs=3), [], []

    def score(model, video, text, videos, captions, batch):
        scored.append(set(videos))
        weights.append({name: tensor.clone() for name, tensor in model.adapter.state_dict().items()})
        own = np.array([[caption.split("#")[0] == id for id in videos] for caption in captions], np.float32)
        return own if len(scored) == 2 else -own

    monkeypatch.setattr(loop, "score", score)
    do.train(params, "lorm", 0)
    kept = load_file(paths.run("lorm", 0) / "adapter.safetensors")
    assert len(scored) == 3 and all(ids == {"v2", "v3", "v6", "v7"} for ids in scored)
    assert read_run(paths.run("lorm", 0))[0].selected_epoch == 1
    assert all(torch.equal(kept[name], tensor) for name, tensor in weights[1].items())
    assert not all(torch.equal(kept[name], tensor) for name, tensor in weights[2].items())


def test_the_rate_of_every_step_is_that_of_the_schedule(project):
    params = project(epochs=3)
    do.train(params, "lorm", 0)
    history = pd.read_csv(paths.run("lorm", 0) / "history.csv")
    settings, shape = params.training("lorm"), rate(len(history), params.train.warmup)
    np.testing.assert_allclose(history.lr, [settings.lr * shape(step) for step in range(len(history))], rtol=1e-6)
    assert history.lr.nunique() > 3


def test_gradients_are_clipped_before_every_step(project, monkeypatch):
    params, norms, step = project(clip_norm=1e-3), [], torch.optim.AdamW.step

    def spied(self, *arguments, **options):
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        norms.append(torch.cat([gradient.flatten() for gradient in gradients]).norm().item())
        return step(self, *arguments, **options)

    monkeypatch.setattr(torch.optim.AdamW, "step", spied)
    do.train(params, "lorm", 0)
    assert norms and max(norms) < 1.001e-3


def test_matrices_decay_and_vectors_do_not():
    matrix, vector = torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(2))
    adamw, _ = optimiser([matrix, vector], 10, shipped("train", weight_decay=0.5, lr=0.1, warmup=0.0))
    for weight in (matrix, vector):
        weight.grad = torch.zeros_like(weight)
    adamw.step()
    assert (matrix < 1).all() and (vector == 1).all()


def test_the_loss_is_told_which_captions_and_clips_are_of_one_video(project, monkeypatch):
    """A batch holds both captions of each of four videos, in an order that the seed gives."""
    params, marked, loss = project(batch=8), [], loop.LOSSES["infonce"]
    monkeypatch.setitem(
        loop.LOSSES, "infonce", lambda logits, positives: marked.append(positives) or loss(logits, positives)
    )
    do.train(params, "lorm", 0)
    for positives in marked:
        assert torch.equal(positives, positives.T) and positives.diagonal().all()
        assert (positives.sum(1) == 2).all()
