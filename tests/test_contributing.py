"""The recipes of CONTRIBUTING.md, run as they stand, in a copy of the package."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import yaml

from rap.clip import models
from rap.params import Params, parse

TEXT = (tiny.ROOT / "CONTRIBUTING.md").read_text()
FILES = {name: code for name, code in re.findall(r"^```python\n# (src/rap/\S+)\n(.*?)^```", TEXT, flags=re.M | re.S)}
SETTINGS = [yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```", TEXT, flags=re.M | re.S)]
ADAPTER = """
import sys
import tiny, torch
from pathlib import Path
from rap.adapters import registry
from rap.errors import UserError
from rap.features.cache import FRAMES, Cache
from rap.params import Variant
from rap.retrieval.model import Retriever

assert "frame_shift" in registry.names()
method = registry.method("frame_shift")
print(method.name, list(method.groups), method.about)

settings = tiny.project(Path.cwd())
tiny.cache(settings)
clip = tiny.clip()

def similarity(adapter, **options):
    made = settings.model_copy(update={"variants": {"it": Variant(adapter=adapter, **options)}, "run": ("it",)})
    model = Retriever(clip, registry.build(clip, made, "it"))
    clips = Cache(settings, FRAMES, clip.visual).batch([f"v{n}" for n in range(8)])
    captions = Cache(settings, "text-ids", clip.text).batch([f"v{n}#0" for n in range(8)])
    return model.similarity(clips, captions), model.adapter.count

plain, _ = similarity("none")
for options, count in (({}, 4 * 24), ({"frame_shift": {"scale": True}}, 8 * 24)):
    found, trained = similarity("frame_shift", **options)
    torch.testing.assert_close(found, plain, rtol=0, atol=2e-6)
    assert trained == count
try:
    similarity("frame_shift", frame_shift={"scales": True})
except UserError as error:
    print(error)
"""
DATASET = """
from pathlib import Path
from rap.data import datasets, registry
from rap.params import load

assert "toy" in datasets.names()
params = load(Path("params.yaml"))
manifest = registry.prepare(params)
print(*manifest.videos.video_id, *manifest.videos.path, *manifest.videos.split)
print(*manifest.captions.caption)
print(*manifest.notes)
print(*registry.departures(params))
"""


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """`outside(code)` runs Python on a copy of the package that has a file of a recipe, and gives what it prints."""
    shutil.copytree(tiny.ROOT / "src/rap", tmp_path / "package/rap", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    path = os.pathsep.join([str(tmp_path / "package"), str(tiny.ROOT / "tests/helpers")])

    def run(file: str, *command: str) -> list[str]:
        (tmp_path / "package" / file.removeprefix("src/")).write_text(FILES[file])
        result = subprocess.run(
            [sys.executable, *command], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout.splitlines()

    return run


@pytest.mark.slow
def test_the_adapter_is_listed_validates_its_options_and_starts_as_an_identity(outside):
    listed, refused = outside("src/rap/adapters/frame_shift.py", "-c", ADAPTER)
    about = "A vector for each frame position, added to the frame embeddings"
    assert listed == f"frame_shift ['frame_shift', 'merge'] {about}"
    assert re.search(r"frame_shift\W+scales: unknown key; did you mean 'scale'\?", refused)


@pytest.mark.slow
def test_the_tests_of_all_methods_pass_for_the_adapter(outside):
    """All but the number of parameters, which its author adds to COUNTS."""
    tests = str(tiny.ROOT / "tests/adapters/test_methods.py")
    options = ("-p", "no:cacheprovider", "-p", "no:xdist", f"--rootdir={tiny.ROOT}")
    *_, last = outside(
        "src/rap/adapters/frame_shift.py", "-m", "pytest", tests, *options, "-k", "frame_shift and not parameter_count"
    )
    assert re.match(r"\d+ passed", last), last


def test_the_row_of_the_adapter_is_a_variant():
    (row,) = (block["variants"] for block in SETTINGS if "variants" in block)
    values = yaml.safe_load((tiny.ROOT / "params.yaml").read_text())
    variant = parse(Params, values | {"variants": values["variants"] | row}, "params.yaml").variants["frame_shift"]
    assert variant.adapter == "frame_shift" and variant.options == {"frame_shift": {"scale": True}}


def test_the_dataset_makes_a_manifest_from_its_annotations(outside):
    (settings,) = (block for block in SETTINGS if "dataset" in block)
    values = yaml.safe_load((tiny.ROOT / "params.yaml").read_text())
    for section, keys in settings.items():
        values[section] |= keys
    Path("params.yaml").write_text(yaml.safe_dump(values))
    Path("data/toy/annotations").mkdir(parents=True)
    Path("data/toy/videos").mkdir()
    Path("data/toy/videos/a.webm").touch()
    rows = [
        ("a", "a ball rolls", "train"),
        ("b", "a cat sleeps", "test"),
        ("a", "it  rolls", "train"),
        ("b", "", "test"),
    ]
    rows = [dict(zip(("video", "caption", "split"), row, strict=True)) for row in rows]
    Path("data/toy/annotations/captions.json").write_text(json.dumps(rows))
    assert outside("src/rap/data/datasets/toy.py", "-c", DATASET) == [
        "a b a.webm b.mp4 train test",
        "a ball rolls it rolls a cat sleeps",
        "1 captions are empty: left out",
        "",
    ]


@pytest.mark.slow
def test_a_backbone_is_a_name_and_a_tag_or_a_file(tmp_path, monkeypatch):
    import open_clip
    import torch
    from safetensors.torch import save_file

    monkeypatch.chdir(tmp_path)
    tagged, local = (block["backbone"] for block in SETTINGS if "backbone" in block)
    config = models.open_clip_config(tagged["name"], tagged["pretrained"])
    assert config["model"]["quick_gelu"] and open_clip.get_pretrained_cfg(tagged["name"], tagged["pretrained"])
    torch.manual_seed(0)
    Path(local["weights"]).parent.mkdir()
    save_file(open_clip.create_model(local["name"]).state_dict(), local["weights"])
    values = yaml.safe_load((tiny.ROOT / "params.yaml").read_text())
    Path("params.yaml").write_text(yaml.safe_dump(values | {"backbone": local}))
    command = [sys.executable, "-m", "rap", "backbone"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"{local['name']} with GELU from {local['weights']}, 149.62 M parameters" in printed
