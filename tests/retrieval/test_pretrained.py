"""Adapters travel: one file and the backbone give what the run gave; anything else is refused in one line."""

import json
import re
import shutil

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from rap import paths
from rap.adapters import METHODS
from rap.clip.towers import INPUT
from rap.errors import UserError
from rap.features.cache import Batch
from rap.files import write_json
from rap.params import Variant
from rap.retrieval import pretrained as portable
from rap.training import stage as training
from rap.training.run import Experiment

FILE = "adapter.safetensors"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A project with one variant per method, trained, as the present folder."""
    folder = tmp_path_factory.mktemp("project")
    variants = {name: Variant(adapter=name) for name in METHODS}
    variants["text_query"] = Variant(adapter="asa", asa={"blocks": [1], "query": "text"})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        settings = tiny.project(folder).model_copy(update={"variants": variants})
        tiny.cache(settings)
        yield settings


def travelled(settings, variant, place):
    """The adapter of a run, trained where it is needed, away from its folder."""
    training.run(settings, variant, 0)
    return shutil.copy(tiny.run_folder(variant, 0) / FILE, place / "mine.safetensors")


@pytest.mark.parametrize("method", METHODS)
def test_a_file_and_the_backbone_give_what_the_run_gives(home, tmp_path, method):
    model = portable.load(travelled(home, method, tmp_path), paths.backbone(home.backbone.name))
    run = Experiment(home, method, 0)
    run.adapter.load_state_dict(load_file(tiny.run_folder(method, 0) / FILE))
    captions = run.split("test").captions
    ids = captions.caption_id.tolist()
    text = Batch(torch.stack([run.text.batch([id]).x[0] for id in ids]), run.text.batch(ids).length, run.text.position)
    with torch.no_grad():
        assert torch.allclose(model.texts(captions.caption.tolist()), run.model.eval().text(text), atol=1e-6)
        frames = torch.randint(0, 256, (2, 4, 32, 32, 3), dtype=torch.uint8)
        clips = Batch(frames, torch.tensor([4, 4]), INPUT)
        assert torch.equal(model.model.video(clips), run.model.video(clips))


def test_a_text_conditioned_method_travels_but_has_no_embedding_of_a_video(home, tmp_path):
    model = portable.load(travelled(home, "text_query", tmp_path), paths.backbone(home.backbone.name))
    assert model.texts(["a red ball"]).shape == (1, 16)
    with pytest.raises(UserError, match="text_query: it has no embedding of a video without a text"):
        model.videos(["clip.mp4"])


def test_another_backbone_is_refused(home, tmp_path):
    file = travelled(home, "rap", tmp_path)
    other = shutil.copytree(paths.backbone(home.backbone.name), tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    write_json(other / "config.json", config | {"digest": "0123456789abcdef", "name": "else"})
    with pytest.raises(
        UserError, match=r"mine.safetensors: trained on demo-vit with weights \w{12}, not on .*\(else, 0"
    ):
        portable.load(file, other)


def spoil(file, **changes):
    """The same weights under a header with other entries."""
    about = portable.read_header(file)
    save_file(load_file(file), file, metadata={"rap": json.dumps(about | changes)})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"adapter": "rapp"}, "no method 'rapp' here; did you mean 'rap'?"),
        ({"format": 9}, "an adapter of format 9, written by rap 0.1.0; this one reads format 1"),
        ({"options": {"lorm": {"rank": 3}}}, "its weights are not those of the rap that its header describes"),
        ({"options": {"lorm": {"rnk": 3}}}, "lorm: rnk: unknown key; did you mean 'rank'?"),
        ({"frames": {"count": 0}}, "frames: count: "),
    ],
)
def test_what_does_not_fit_is_one_line(home, tmp_path, changes, said):
    file = travelled(home, "rap", tmp_path)
    spoil(file, **changes)
    with pytest.raises(UserError, match=f"mine.safetensors: {re.escape(said)}") as error:
        portable.load(file, paths.backbone(home.backbone.name))
    assert "\n" not in str(error.value)


def test_what_is_no_adapter_is_one_line(home, tmp_path):
    file = tmp_path / "mine.safetensors"
    with pytest.raises(UserError, match="not there"):
        portable.load(file, paths.backbone(home.backbone.name))
    file.write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match="no adapter of rap"):
        portable.load(file, paths.backbone(home.backbone.name))
    with pytest.raises(UserError, match="no adapter of rap"):
        portable.load(paths.backbone(home.backbone.name) / "weights.safetensors", paths.backbone(home.backbone.name))
    whole = travelled(home, "rap", tmp_path)
    file.write_bytes(tmp_path.joinpath(whole).read_bytes()[:-100])
    with pytest.raises(UserError, match="no adapter of rap"):
        portable.load(file, paths.backbone(home.backbone.name))
