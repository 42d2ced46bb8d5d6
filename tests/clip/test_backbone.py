"""The backbone stage on real files: the inputs that it accepts, and a one-line error for the others."""

import do
import open_clip
import pytest
import tiny
import torch
from open_clip.model import CLIPVisionCfg
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from safetensors.torch import load_file, save_file

from rap import paths
from rap.clip import backbone, models
from rap.errors import UserError
from rap.files import digest_file


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HOME", str(tmp_path))

    def configure(**wanted):
        params = tiny.project(tmp_path, backbone={"pretrained": None, "weights": None} | wanted)
        (paths.backbone(params.backbone.name) / "backbone.json").unlink()  # so that the stage runs
        return params

    return configure


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.slow
def test_a_local_file_of_open_clip_loads_unchanged(project, tmp_path, suffix):
    torch.manual_seed(0)
    state = open_clip.create_model("ViT-B-32").state_dict()
    file = tmp_path / f"weights.{suffix}"
    if suffix == "pt":
        torch.save({"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}, file)
    else:
        save_file({f"module.{name}": value for name, value in state.items()}, file)
    params = project(name="ViT-B-32", weights=f"~/{file.name}")
    assert "151.28 M" in do.backbone(params)
    folder = paths.backbone(params.backbone.name)
    clip, config = backbone.load(folder)
    assert config["digest"] == digest_file(folder / "weights.safetensors")
    assert config["preprocess"]["size"] == 224 and config["tokenizer"] == {"kind": "bpe"}
    stored = {name.removeprefix("text."): value for name, value in load_file(folder / "weights.safetensors").items()}
    assert all(torch.equal(stored[name], value) for name, value in state.items())
    assert not any(p.requires_grad for p in clip.parameters())


def test_a_load_draws_no_random_number_and_has_the_weights_of_the_file(tmp_path):
    """Every model has random values at first; here a file replaces all of them."""
    state = tiny.clip().state_dict()
    before = torch.random.get_rng_state()
    found = backbone.build(tiny.CONFIG, state, "here").state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert found.keys() == state.keys() and all(torch.equal(found[name], state[name]) for name in state)


def test_a_logit_scale_and_a_bias_of_any_shape_are_loaded():
    """As open_clip does; a bias comes from its option --siglip."""
    state = tiny.clip().state_dict()
    odd = state | {"logit_scale": torch.tensor([2.5]), "logit_bias": torch.tensor([-9.0])}
    found = backbone.build(tiny.CONFIG, odd, "here")
    assert found.logit_scale == 2.5 and found.logit_bias == -9.0 and not found.logit_bias.requires_grad
    again = backbone.build(tiny.CONFIG, found.weights.state_dict(), "here")
    assert torch.equal(again.logits(torch.ones(2)), found.logits(torch.ones(2)))
    assert backbone.build(tiny.CONFIG, state, "here").logit_bias is None


def test_a_missing_tokenizer_is_reported_before_a_video_is_decoded(project, tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "any.safetensors")
    with pytest.raises(UserError, match=r"transformers|its tokenizer timm/ViT-B-16-SigLIP2 cannot be found"):
        do.backbone(project(name="ViT-B-16-SigLIP2", weights="any.safetensors"))


@pytest.mark.slow
def test_weights_of_another_model_are_refused(project, tmp_path):
    torch.manual_seed(0)
    save_file(open_clip.create_model("ViT-B-32").state_dict(), tmp_path / "b32.safetensors")
    params = project(name="ViT-B-16", weights="b32.safetensors")
    before = digest_file(paths.backbone(params.backbone.name) / "weights.safetensors")
    with pytest.raises(UserError, match=r"b32.safetensors: not the weights of ViT-B-16: .* set backbone.name"):
        do.backbone(params)
    assert digest_file(paths.backbone(params.backbone.name) / "weights.safetensors") == before


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"name": "ViT-B-23"}, "no model 'ViT-B-23'; did you mean 'ViT-B-32'?"),
        ({"name": "RN50", "weights": "w.pt"}, "w.pt is missing; put the weights file there"),
        ({"name": "ViT-B-32"}, "ViT-B-32 has no weights; set backbone.weights to a file or backbone.pretrained"),
        ({"name": "ViT-B-32", "weights": "absent.pt"}, "absent.pt is missing; put the weights file there"),
        ({"name": "ViT-B-32", "weights": "text.pt"}, "text.pt cannot be read as weights"),
        ({"name": "ViT-B-32", "weights": "list.pt"}, "list.pt cannot be read as weights"),
        ({"name": "ViT-B-32", "pretrained": "openia"}, "no tag 'openia'; did you mean 'openai'?"),
        ({"name": "ViT-B-32", "pretrained": "openai"}, "download failed .* set backbone.weights to the file"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do(project, tmp_path, wanted, message):
    (tmp_path / "text.pt").write_text("no weights")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(UserError, match=message) as error:
        do.backbone(project(**wanted))
    assert "\n" not in str(error.value)


def test_the_preprocessing_of_every_tag_is_open_clips():
    pairs = open_clip.list_pretrained()
    assert len(pairs) == 196
    for name, tag in pairs:
        want = merge_preprocess_dict(PreprocessCfg(), open_clip.get_pretrained_cfg(name, tag))
        want["size"] = CLIPVisionCfg(**open_clip.get_model_config(name)["vision_cfg"]).image_size
        for key, ours in models.open_clip_config(name, tag)["preprocess"].items():
            assert ours == (list(want[key]) if isinstance(want[key], tuple) else want[key]), (name, tag, key)
