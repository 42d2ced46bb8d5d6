"""Weights from all sources: OpenAI's archives, the caches of open_clip and of the hub, a hub on this machine."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
import warnings
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import do
import open_clip
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from rap import paths
from rap.clip import weights
from rap.clip.torchscript import is_torchscript, read_torchscript
from rap.errors import UserError
from rap.files import digest_file, read_json

NAME, TAG, REPOSITORY = "rap-tiny", "openai", "someone/rap-tiny"
MODEL = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 64, "layers": 1},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture
def known(tmp_path, monkeypatch):
    """Register a small model and a tag in open_clip, with a URL and a hub repository; neither has a file yet."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / f"{NAME}.json").write_text(json.dumps(MODEL))
    open_clip.add_model_config(tmp_path / "configs")
    entry = {"url": "", "hf_hub": f"{REPOSITORY}/", "quick_gelu": True}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, NAME, {TAG: entry})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return entry


@pytest.fixture
def model(known):
    torch.manual_seed(0)
    return open_clip.create_model(NAME, force_quick_gelu=True).eval()


def archive(model: nn.Module, path: Path) -> Path:
    """Save the model as a TorchScript archive, as OpenAI does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(model, (torch.zeros(1, 3, 32, 32), torch.zeros(1, 8, dtype=torch.long)), strict=False)
        torch.jit.save(traced, path)
    return path


def store(**wanted) -> tuple[dict, dict]:
    """Run the backbone stage on `wanted`: config.json and the weights."""
    settings = tiny.project(Path(), backbone={"name": NAME, "pretrained": None, "weights": None} | wanted)
    folder = paths.backbone(settings.backbone.name)
    (folder / "backbone.json").unlink()  # so that the stage runs
    do.backbone(settings)
    return read_json(folder / "config.json"), load_file(folder / "weights.safetensors")


def same(stored: dict, model: nn.Module) -> bool:
    own = {name.removeprefix("text."): tensor for name, tensor in stored.items()}
    wanted = {name: tensor for name, tensor in model.state_dict().items() if name != "attn_mask"}
    return own.keys() == wanted.keys() and all(torch.equal(own[name], tensor) for name, tensor in wanted.items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_an_archive_gives_the_tensors_of_its_state_dict(tmp_path, dtype):
    part = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Sequential(nn.Linear(4, 2))).to(dtype).eval()
    part.register_parameter("turned", nn.Parameter(torch.randn(5, 3, dtype=dtype).t()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(part), tmp_path / "part.pt")
    torch.save(part.state_dict(), tmp_path / "plain.pt")
    assert is_torchscript(tmp_path / "part.pt") and not is_torchscript(tmp_path / "plain.pt")
    found, wanted = read_torchscript(tmp_path / "part.pt"), part.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) and found[name].dtype == wanted[name].dtype for name in wanted)


class Trap:
    def __reduce__(self):
        return (open, ("sprung", "w"))


def test_no_code_of_an_archive_is_executed(known, model, tmp_path):
    good = archive(model, tmp_path / "good.pt")
    with zipfile.ZipFile(good) as source, zipfile.ZipFile("bad.pt", "w") as target:
        for name in source.namelist():
            body = pickle.dumps(Trap()) if name.endswith("/data.pkl") else source.read(name)
            target.writestr(name, body)
    with pytest.raises(UserError, match=r"bad.pt cannot be read as weights: it names (_io|io|builtins)\.open"):
        store(weights="bad.pt", pretrained=TAG)
    assert not Path("sprung").exists()


def test_openais_archive_loads_with_its_activation_and_not_without(known, model, tmp_path):
    file = archive(model, tmp_path / "mine.pt")
    config, stored = store(weights="mine.pt", pretrained=TAG)
    assert config["model"]["quick_gelu"] and same(stored, model)
    assert config["source"] == {"file": "mine.pt", "digest": digest_file(file)}
    with pytest.raises(UserError, match=r"mine.pt: .*QuickGELU.*set backbone.pretrained: openai in addition"):
        store(weights="mine.pt")


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_half_precision_becomes_float32_and_settings_among_the_weights_are_dropped(known, model, tmp_path):
    for name in weights.EXTRAS:
        model.__dict__.pop(name, None)  # open_clip stores some of them as plain numbers
        model.register_buffer(name, torch.tensor(32))
    file = archive(model.half().float(), tmp_path / "whole.pt")
    torch.jit.load(file).half().save(tmp_path / "half.pt")
    found = read_torchscript(tmp_path / "half.pt")
    assert found["visual.proj"].dtype == torch.float16 and set(weights.EXTRAS) < set(found)
    stored = store(weights="half.pt", pretrained=TAG)[1]
    for name in weights.EXTRAS:
        delattr(model, name)
    assert same(stored, model) and {tensor.dtype for tensor in stored.values()} == {torch.float32}


def test_a_file_in_the_cache_of_the_hub_is_used(known, model, tmp_path):
    commit = tmp_path / "hub" / f"models--{REPOSITORY.replace('/', '--')}"
    (commit / "refs").mkdir(parents=True)
    (commit / "refs" / "main").write_text("c0ffee")
    (commit / "snapshots" / "c0ffee").mkdir(parents=True)
    save_file(model.state_dict(), commit / "snapshots" / "c0ffee" / "open_clip_model.safetensors")
    config, stored = store(pretrained=TAG)
    assert same(stored, model) and config["source"]["file"] == "open_clip_model.safetensors"


def test_an_archive_in_open_clips_cache_is_used_if_its_digest_is_right(known, model, tmp_path):
    Path(".cache/clip").mkdir(parents=True)
    file = archive(model, Path(".cache/clip/tiny.pt"))
    known["url"] = f"https://openaipublic.invalid/clip/models/{digest_file(file)}/tiny.pt"
    assert same(store(pretrained=TAG)[1], model)
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    damaged = digest_file(file)
    with pytest.raises(UserError, match=r"download failed .*checksum does not match"):
        store(pretrained=TAG)
    assert digest_file(file) == damaged


def test_without_a_network_the_error_names_the_download_and_its_place(known, monkeypatch):
    known["url"] = "https://openaipublic.invalid/clip/models/0123/tiny.pt"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError) as error:
        weights.find(NAME, TAG)
    said = str(error.value)
    assert "\n" not in said and f"https://huggingface.co/{REPOSITORY} or {known['url']}" in said
    assert said.endswith("set backbone.weights to the file, or put tiny.pt into ~/.cache/clip")


class Hub(BaseHTTPRequestHandler):
    """The requests of the hub's client that this test needs."""

    body: bytes

    def do_HEAD(self):
        self.do_GET(head=True)

    def do_GET(self, head=False):
        there = self.path == f"/{REPOSITORY}/resolve/main/open_clip_model.safetensors"
        self.send_response(200 if there or self.path == "/" else 404)
        for name, value in {"ETag": '"abc"', "X-Repo-Commit": "c0ffee", "Content-Length": len(self.body)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if there and not head:
            self.wfile.write(self.body)

    def log_message(self, *_): ...


@pytest.mark.slow
def test_a_reachable_hub_is_used(known, model, tmp_path):
    save_file(model.state_dict(), "served.safetensors")
    Hub.body = Path("served.safetensors").read_bytes()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    asks = (
        "import open_clip; from rap.clip import weights; open_clip.add_model_config('configs');"
        f"open_clip.pretrained._PRETRAINED['{NAME}'] = {{'{TAG}': {{'hf_hub': '{REPOSITORY}/'}}}};"
        f"print(weights.find('{NAME}', '{TAG}'))"
    )
    address = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path / "home")}
    environment = {**os.environ, **address, "HF_HUB_DISABLE_XET": "1"}
    try:
        found = subprocess.run(
            [sys.executable, "-c", asks], env=environment, capture_output=True, text=True, check=True
        )
    finally:
        server.shutdown()
        server.server_close()
    shutil.copy(found.stdout.strip(), "fetched.safetensors")
    assert digest_file("fetched.safetensors") == digest_file("served.safetensors")
