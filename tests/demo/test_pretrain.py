"""Pretraining of the demo's backbone: its first steps are reproducible, and they learn."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from shipped import shipped

from rap.clip.tokenizer import tokenize
from rap.clip.trainable import open_clip_model
from rap.demo import pretrain
from rap.demo.captions import caption
from rap.demo.scenes import KINDS, draw_scene, part
from rap.demo.stills import captions, group
from rap.files import read_json

FEW = shipped("pretrain", batch=20, warm_steps=3, pair_steps=3, course_steps=3, scene_steps=3, text_steps=3)


@pytest.mark.slow
def test_the_first_steps_of_every_phase_are_reproducible():
    (one, losses), (other, again) = pretrain.train(FEW), pretrain.train(FEW)
    assert losses == again and len(losses) == 15
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
    different, _ = pretrain.train(FEW.model_copy(update={"seed": 1}))
    assert not torch.equal(one.token_embedding.weight, different.token_embedding.weight)


@pytest.mark.slow
def test_the_warm_start_learns_in_its_first_steps():
    _, losses = pretrain.train(
        shipped("pretrain", batch=64, warm_steps=50, pair_steps=1, course_steps=1, scene_steps=1, text_steps=1)
    )
    assert np.mean(losses[40:50]) < np.mean(losses[:5]) - 0.05


def test_stills_of_a_group_differ_in_one_thing_and_have_four_captions():
    rng = np.random.default_rng(0)
    for vary in ("place", "colour", "shape", "size"):
        four = group(rng, 2, vary)
        assert len({still.things[0] for still in four}) == 4 and len({still.things[1] for still in four}) == 1
        assert len({still.background for still in four}) == 1
        assert len(set(captions(four, rng))) == 4


def test_every_caption_fits_the_text_tower_and_no_word_is_unknown():
    config, rng = pretrain.config(), np.random.default_rng(0)
    texts = [caption(draw_scene(rng, kind), rng) for kind in KINDS * 200]
    ids, lengths = tokenize(texts, config["tokenizer"], 64)
    assert lengths.max() <= config["model"]["text_cfg"]["context_length"]
    words = config["tokenizer"]["words"]
    assert words[0] == "<pad>" and words[-1] == "<end>" and not (ids == words.index("<unknown>")).any()


@pytest.mark.slow
def test_text_embeddings_without_padding_match_open_clip():
    model, _ = pretrain.train(FEW)
    texts = ["a red ring at the left", "a blue ring at the top right with a green star"]
    ids, _ = tokenize(texts, pretrain.config()["tokenizer"], 32)
    own = model.encode_text(torch.from_numpy(ids).long(), normalize=True)
    torch.testing.assert_close(F.normalize(pretrain.embed(model, texts), dim=-1), own, rtol=0, atol=1e-6)


def test_the_shipped_config_is_that_of_the_code():
    assert read_json(pretrain.FOLDER / "demo-vit.json") == pretrain.config()


@pytest.mark.slow
def test_pretraining_sees_no_scene_that_is_held_out(monkeypatch):
    seen, show = [], pretrain.shown
    monkeypatch.setattr(pretrain, "shown", lambda scene, rng: seen.append(scene) or show(scene, rng))
    pretrain.train(FEW)
    assert len(seen) > 100 and all(part(scene) == "seen" for scene in seen)


@pytest.mark.slow
def test_the_shipped_weights_know_places_and_the_captions_of_scenes():
    state = load_file(pretrain.FOLDER / "demo-vit.safetensors")
    model = open_clip_model(pretrain.config()["model"]).eval()
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    measured = pretrain.quality(model)
    assert measured.pop("place of four") > 90 and measured.pop("R@1 of 256") > 70
    assert measured.keys() == set(KINDS) and min(measured.values()) > 85, measured
