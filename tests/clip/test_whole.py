"""Models of open_clip that are used whole: its own embeddings, all methods on embeddings, one line for the others.

MODELS=all pytest tests/clip/test_whole.py compares the embeddings of every model without a text tower of the hub,
MODELS=hub those of the others (workflow/scripts/hub_towers.py).
"""

import json
import os
import shutil
from contextlib import chdir
from pathlib import Path

import do
import numpy as np
import open_clip
import pytest
import tiny
import torch
from safetensors.torch import save_file

from rap import paths
from rap.adapters import registry
from rap.clip import backbone, models, whole
from rap.clip.tokenizer import tokenize
from rap.clip.towers import INPUT, Context, Tuner
from rap.errors import UserError
from rap.features.cache import Batch
from rap.params import Params, Table
from rap.report import methods
from rap.retrieval.loss import LOSSES
from rap.retrieval.model import Retriever, new_model
from rap.search.library import Library

NAME = "rap-whole"
TINY = {  # a ResNet, as small as it gets
    "embed_dim": 16,
    "init_logit_bias": -10.0,
    "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
FAMILIES = ("RN50", "MobileCLIP-S1", "convnext_base", "ViTamin-S")
LARGEST = 1_500_000_000  # parameters of a model that is compared: there are two of it
VARIANTS = {
    "none": {"adapter": "none"},
    "window": {"adapter": "window"},
    "static": {"adapter": "static"},
    "projection": {"adapter": "projection"},
    "lorm": {"adapter": "lorm", "lorm": {"sites": ["ln_post"], "rank": 2}},
    "sigmoid": {"adapter": "lorm", "lorm": {"sites": ["ln_post"], "rank": 2}, "train": {"loss": "sigmoid"}},
    "content": {"adapter": "lorm", "lorm": {"sites": ["ln_post"], "rank": 2, "time": "content"}},
    "lstm": {"adapter": "sequential", "sequential": {"head": "lstm", "tune": "none"}},
    "transformer": {"adapter": "sequential", "sequential": {"head": "transformer", "tune": "none"}},
}


@pytest.fixture(scope="module")
def embedded(tmp_path_factory) -> tuple[Path, Params]:
    """A tiny project on a tiny ResNet: cached embeddings and nothing else."""
    folder = tmp_path_factory.mktemp("embedded")
    with chdir(folder):
        return folder, _made(folder)


@pytest.fixture
def project(embedded, tmp_path, monkeypatch) -> Params:
    folder, params = embedded
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return params


def _made(folder: Path) -> Params:
    Path("configs").mkdir()
    Path(f"configs/{NAME}.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(Path("configs"))
    torch.manual_seed(0)
    save_file(open_clip.create_model(NAME, load_weights=False).state_dict(), "weights.safetensors")
    features = {"caches": ["video-all", "text-all"], "max_words": 12}
    wanted = {"name": NAME, "pretrained": None, "weights": "weights.safetensors"}
    params = tiny.project(folder, backbone=wanted, features=features, variants=VARIANTS)
    (paths.backbone(NAME) / "backbone.json").unlink()  # tiny made one of another model
    do.backbone(params)
    for shard in params.shards:
        tiny.noise_frames(params, shard)
        for cache in params.features.caches:
            do.features(params, cache, shard)
    return params


def moved(params: Params, variant: str) -> Retriever:
    """A model whose adapter is away from its initial values, where much of a gradient is zero."""
    model, _ = new_model(params, variant, 0, torch.device("cpu"))
    torch.manual_seed(1)
    for weight in model.adapter.parameters():
        weight.data += 0.1 * torch.randn(weight.shape)
    return model


@pytest.mark.parametrize("variant", VARIANTS)
def test_loss_and_gradients_from_the_cache_are_those_from_the_frames(project, variant):
    from rap.features.cache import Batch, Cache
    from rap.shards import Shard

    model = moved(project, variant)
    visual, text = model.clip.visual, model.clip.text
    frames = Shard.read(paths.frames("demo", 0))
    ids = frames.index.id.tolist()
    captions = [f"{id}#0" for id in ids]
    length = torch.tensor(frames.index.length.to_numpy())
    tokens, lengths = tokenize(_texts(project, captions), {"kind": "open_clip", "name": NAME}, 12)
    cached = Cache(project, "video-all", visual).batch(ids), Cache(project, "text-all", text).batch(captions)
    fresh = (
        Batch(torch.from_numpy(np.array(frames.array)), length, INPUT),
        Batch(torch.from_numpy(tokens), torch.from_numpy(lengths), INPUT),
    )
    found = []
    for video, caption in (cached, fresh):
        logits = model.clip.logits(model.similarity(video, caption))
        loss = LOSSES[project.training(variant).loss](logits, torch.eye(len(ids), dtype=torch.bool))
        weights = [weight for weight in model.adapter.parameters() if weight.requires_grad]
        found.append([loss.detach(), *(torch.autograd.grad(loss, weights) if weights else ())])
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-6)


def _texts(params: Params, captions: list[str]) -> list[str]:
    from rap.data.manifest import Manifest

    table = Manifest.read(paths.manifest(params.dataset.name)).captions.set_index("caption_id").caption
    return [table[id] for id in captions]


@pytest.mark.parametrize("variant", ["none", "lorm", "sigmoid", "transformer", "projection"])
def test_a_variant_is_trained_and_evaluated(project, variant):
    assert "from video-all" in do.train(project, variant, 0)
    assert "queries" in do.evaluate(project, variant, 0)


@pytest.mark.slow
def test_it_is_searched_and_reported_like_any_other(project, monkeypatch):
    monkeypatch.setattr("rap.report.tracking.log", lambda *_: None)
    run = ("none", "lorm")
    tables = {"table1": Table(title="Two", variants=run, baseline="none")}
    params = project.model_copy(update={"run": run, "listed": tables, "seeds": (0,)})
    for variant in run:
        do.train(params, variant, 0)
        do.evaluate(params, variant, 0)
    do.table(params, "table1")
    assert "results/report.html" in do.report(params)
    found = Library.open(params, variant="lorm").text("a red ball", top=3)
    assert len(found) == 3


def test_training_leaves_the_statistics_of_a_frozen_backbone_alone(project):
    model, _ = new_model(project, "lorm", 0, torch.device("cpu"))
    before = {name: value.clone() for name, value in model.clip.weights.state_dict().items()}
    assert any("running_mean" in name for name in before)
    model.train()
    model.video(Batch(torch.randint(0, 256, (2, project.frames.count, 32, 32, 3)).byte(), torch.tensor([4, 4]), INPUT))
    assert all(torch.equal(value, before[name]) for name, value in model.clip.weights.state_dict().items())


def test_a_method_that_needs_blocks_is_refused_in_one_line_with_near_models(project):
    for variant in ("rap", "full", "ssf", "lora"):
        with pytest.raises(UserError, match=f"{NAME} is used whole and has no blocks to change; near models") as error:
            do.train(project, variant, 0)
        assert "\n" not in str(error.value) and "variants" in str(error.value)
    blocks = project.features.model_copy(update={"caches": ("video-0",)})
    with pytest.raises(UserError, match=r"features\.caches: video-0: list video-all and text-all; rap-whole is used"):
        do.features(project.model_copy(update={"features": blocks}), "video-0", 0)


def test_a_variant_that_says_it_needs_no_blocks_is_built_and_every_other_is_refused(project):
    clip, _ = backbone.load(paths.backbone(NAME))
    without = {name for name in project.all_variants if not registry.needs_blocks(project, name)}
    assert set(VARIANTS) | {"zero_shot", "late", "lorm_head"} <= without and "rap" not in without
    for name in project.all_variants:
        if name in without:
            registry.build(clip, project, name)
        else:
            with pytest.raises(UserError, match=f"variants.{name}: it changes blocks; {NAME} is used whole"):
                registry.build(clip, project, name)
    assert methods.run(project).count("needs blocks") == len(project.all_variants) - len(without)


def compared() -> list[str]:
    asked = os.environ.get("MODELS")
    if asked not in ("all", "hub"):
        return list(FAMILIES)
    known = {name: open_clip.get_model_config(name) for name in open_clip.list_models()}
    return [
        name
        for name, model in known.items()
        if not name.startswith("rap-")
        and "whole" in models.open_clip_config(name, None)
        and ("hf_model_name" in model["text_cfg"]) == (asked == "hub")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", compared())
def test_embeddings_are_those_of_open_clip(name):
    with torch.device("meta"):
        size = sum(weight.numel() for weight in whole.Whole(models.open_clip_config(name, None)).parameters())
    if size > LARGEST:
        pytest.skip(f"{size / 1e9:.1f} billion parameters")
    torch.manual_seed(0)
    theirs = open_clip.create_model(name, load_weights=False, pretrained_text=False).eval()
    config = models.open_clip_config(name, None)
    ours = backbone.build(config, theirs.state_dict(), name)
    size = config["preprocess"]["size"]
    pixels = torch.randint(0, 256, (1, 2, size, size, 3), dtype=torch.uint8)
    mean, std = (torch.tensor(config["preprocess"][key]).view(3, 1, 1) for key in ("mean", "std"))
    words = config["model"]["text_cfg"].get("context_length", 77)  # none in the config of a tower of the hub
    ids = torch.randint(1, 1000, (3, words))
    context = Context(ours.visual, torch.tensor([2]))
    with torch.no_grad():
        frames = theirs.encode_image((pixels[0].movedim(-1, 1) / 255 - mean) / std, normalize=False)
        texts = theirs.encode_text(ids, normalize=False)
        found = ours.visual.run(pixels, INPUT, ours.visual.all, context, Tuner())[0]
        said = ours.text.run(ids.int(), INPUT, ours.text.all, context, Tuner())
    for one, other in ((found, frames), (said, texts)):
        assert (one - other).abs().max() <= 1e-5 * other.abs().max()
