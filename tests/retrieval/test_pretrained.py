"""Adapters travel: one file and the backbone give what the run gave; anything else is refused in one line."""

import json
import re
import shutil
from pathlib import Path

import do
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from sealed import damage

from rap import paths
from rap.adapters import registry
from rap.clip.towers import INPUT
from rap.errors import UserError
from rap.features.cache import Batch
from rap.files import digest_file, write_json
from rap.params import Variant
from rap.retrieval import adapter_file
from rap.retrieval.corpus import open_corpus
from rap.retrieval.model import new_model
from rap.retrieval.pretrained import from_pretrained
from rap.shards import untracked

FILE = "adapter.safetensors"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A project with one variant per method, trained, as the present folder."""
    folder = tmp_path_factory.mktemp("project")
    variants = {name: Variant(adapter=name) for name in registry.names()}
    variants["text_query"] = Variant(
        adapter="asa", asa={"blocks": [1], "form": "attention", "query": "text", "top_k": 2}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        settings = tiny.project(folder).model_copy(update={"variants": variants, "run": tuple(variants)})
        tiny.cache(settings)
        yield settings


def travelled(settings, variant, place):
    """The adapter of a run, trained where it is needed, away from its folder."""
    do.train(settings, variant, 0)
    return shutil.copy(paths.run(variant, 0) / FILE, place / "mine.safetensors")


@pytest.mark.parametrize("method", registry.names())
def test_a_file_and_the_backbone_give_what_the_run_gives(home, tmp_path, method):
    model = from_pretrained(travelled(home, method, tmp_path), paths.backbone(home.backbone.name))
    trained, _ = new_model(home, method, 0, torch.device("cpu"))
    trained.adapter.load_state_dict(load_file(paths.run(method, 0) / FILE))
    corpus = open_corpus(home, trained)
    captions = corpus.split("test").captions
    text = corpus.text.batch(captions.caption_id.tolist())
    with torch.no_grad():
        assert torch.allclose(model.texts(captions.caption.tolist()), trained.eval().text(text), atol=1e-6)
        frames = torch.randint(0, 256, (2, 4, 32, 32, 3), dtype=torch.uint8)
        clips = Batch(frames, torch.tensor([4, 4]), INPUT)
        assert torch.equal(model.model.video(clips), trained.video(clips))


def test_padding_of_a_query_is_not_computed(home, tmp_path, monkeypatch):
    model, seen = from_pretrained(travelled(home, "lorm", tmp_path), paths.backbone(home.backbone.name)), []
    text = model.model.text
    monkeypatch.setattr(model.model, "text", lambda batch: seen.append(batch.x.shape[1]) or text(batch))
    model.texts(["a red ball"])
    assert seen == [5]  # start, three words, end


def test_a_text_conditioned_method_travels_but_has_no_embedding_of_a_video(home, tmp_path):
    model = from_pretrained(travelled(home, "text_query", tmp_path), paths.backbone(home.backbone.name))
    assert model.texts(["a red ball"]).shape == (1, 16)
    with pytest.raises(UserError, match="text_query: it has no embedding of a video without a text"):
        model.videos(["clip.mp4"])


def test_another_backbone_is_refused(home, tmp_path):
    file = travelled(home, "rap", tmp_path)
    other = shutil.copytree(paths.backbone(home.backbone.name), tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    damage(other / "weights.safetensors")
    changed = digest_file(other / "weights.safetensors")
    write_json(other / "config.json", config | {"digest": changed, "name": "else"})
    files = {name: digest_file(other / name) for name in ("config.json", "weights.safetensors")}
    untracked("", files).write(other / "backbone.json")
    with pytest.raises(UserError, match=r"mine.safetensors: trained on demo-vit \w{12}, not on .*\(else, "):
        from_pretrained(file, other)


def test_the_same_weights_with_another_activation_are_refused(home, tmp_path):
    file = travelled(home, "rap", tmp_path)
    other = shutil.copytree(paths.backbone(home.backbone.name), tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    quick = not config["model"].get("quick_gelu", False)
    write_json(other / "config.json", config | {"model": config["model"] | {"quick_gelu": quick}})
    files = {name: digest_file(other / name) for name in ("config.json", "weights.safetensors")}
    untracked("", files).write(other / "backbone.json")
    with pytest.raises(UserError, match=r"mine.safetensors: trained on demo-vit \w{12}, not on "):
        from_pretrained(file, other)


def test_a_damaged_file_is_refused(home, tmp_path):
    file = travelled(home, "rap", tmp_path)
    size = Path(file).stat().st_size
    for offset in (size - 60, size // 2):  # in the weights, and in the header
        damage(file, offset)
        with pytest.raises(UserError, match=r"mine.safetensors: (damaged|not an adapter)"):
            from_pretrained(file, paths.backbone(home.backbone.name))
        damage(file, offset)
    from_pretrained(file, paths.backbone(home.backbone.name))


def spoil(file, **changes):
    """The same weights under a header with other entries."""
    header, weights = adapter_file.read(file)
    about = header.model_dump(mode="json") | changes
    about["checksum"] = adapter_file._checksum(about, weights)
    save_file(weights, file, metadata={"rap": json.dumps(about)})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"adapter": "rapp"}, "there is no method 'rapp'; did you mean 'rap'?"),
        ({"format": 9}, "an adapter of format 9, written by rap 0.1.0; this version reads 3"),
        ({"options": {"lorm": {"rank": 3}}}, "its weights do not fit the rap that its header describes"),
        ({"options": {"lorm": {"rnk": 3}}}, "lorm: rnk: unknown key; did you mean 'rank'?"),
        ({"frames": {"count": 0}}, "header: frames.count: "),
        ({"options": {"lorm": {"rank": 10**9}}}, "lorm: rank: input should be less than or equal to 4096"),
        ({"options": "lorm"}, "header: options: input should be a valid dictionary"),
        ({"max_words": 10**9}, "header: max_words: input should be less than or equal to 4096"),
        ({"adapter": "../../evil"}, "header: adapter: string should match pattern"),
        (
            {"trained": {"variant": "../x", "seed": 0, "dataset": "demo"}},
            "header: trained.variant: string should match",
        ),
        ({"more": 1}, "header: more: unknown key"),
    ],
)
def test_what_does_not_fit_is_one_line(home, tmp_path, changes, said):
    file = travelled(home, "rap", tmp_path)
    spoil(file, **changes)
    with pytest.raises(UserError, match=f"mine.safetensors: {re.escape(said)}") as error:
        from_pretrained(file, paths.backbone(home.backbone.name))
    assert "\n" not in str(error.value)


def test_what_is_no_adapter_is_one_line(home, tmp_path):
    file = tmp_path / "mine.safetensors"
    with pytest.raises(UserError, match="not there"):
        from_pretrained(file, paths.backbone(home.backbone.name))
    file.write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match="not an adapter of rap"):
        from_pretrained(file, paths.backbone(home.backbone.name))
    with pytest.raises(UserError, match="not an adapter of rap"):
        from_pretrained(paths.backbone(home.backbone.name) / "weights.safetensors", paths.backbone(home.backbone.name))
    deep = '{"format": ' + "[" * 100_000
    save_file({}, file, metadata={"rap": deep})
    with pytest.raises(UserError, match="not an adapter of rap"):
        from_pretrained(file, paths.backbone(home.backbone.name))
    whole = travelled(home, "rap", tmp_path)
    file.write_bytes(tmp_path.joinpath(whole).read_bytes()[:-100])
    with pytest.raises(UserError, match="not an adapter of rap"):
        from_pretrained(file, paths.backbone(home.backbone.name))
