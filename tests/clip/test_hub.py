"""Tokenizers and text towers that live on a hub: open_clip's road, with small ones made here. Needs the extra `hub`."""

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from rap.clip import backbone
from rap.clip.models import open_clip_config
from rap.clip.tokenizer import tokenize
from rap.clip.towers import INPUT, Context, Tuner
from rap.errors import UserError

transformers = pytest.importorskip("transformers", reason="needs the extra hub: pip install 'rap-retrieval[hub]'")


def register(name: str, tokenizer: str) -> None:
    text = {"context_length": 8, "vocab_size": 8, "width": 16, "heads": 2, "layers": 1, "hf_tokenizer_name": tokenizer}
    vision = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None}
    Path("configs").mkdir(exist_ok=True)
    Path(f"configs/{name}.json").write_text(json.dumps({"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(Path("configs"))


def test_the_tokens_are_those_of_the_models_own_tokenizer(tmp_path, monkeypatch):
    from tokenizers import Tokenizer, models, pre_tokenizers

    monkeypatch.chdir(tmp_path)
    words = {word: id for id, word in enumerate(["<pad>", "<eos>", "<unk>", "a", "dog", "runs"])}
    made = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    ).save_pretrained("small")
    register("rap-hub", str(tmp_path / "small"))
    ids, lengths = tokenize(["a dog runs", "a cat"], {"kind": "open_clip", "name": "rap-hub"}, 3)
    assert np.array_equal(ids, open_clip.get_tokenizer("rap-hub")(["a dog runs", "a cat"]).numpy())
    assert ids.dtype == np.int32 and ids.shape == (2, 8) and lengths.tolist() == [8, 8]
    assert ids[0, :3].tolist() == [3, 4, 5] and ids[1, :2].tolist() == [3, 2]


def test_a_tokenizer_that_is_out_of_reach_is_one_line_that_says_what_to_fetch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    register("rap-far", "nobody/nothing")
    with pytest.raises(
        UserError, match=r"rap-far: its tokenizer nobody/nothing cannot be found .*`hf download"
    ) as error:
        tokenize(["a dog"], {"kind": "open_clip", "name": "rap-far"}, 8)
    assert "\n" not in str(error.value)


TOWERS = {  # the text towers that open_clip takes from the hub, as small as they get
    "roberta": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32},
    "xlm-roberta": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32},
    "mt5": {"d_model": 16, "num_layers": 1, "num_heads": 2, "d_ff": 32, "d_kv": 8},
    "m2m_100": {"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32},
}


@pytest.mark.parametrize("kind", TOWERS)
def test_a_text_tower_of_the_hub_has_open_clips_embeddings(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = transformers.AutoConfig.for_model(kind, vocab_size=64, pad_token_id=1, **TOWERS[kind])
    small.save_pretrained("tower")
    text = {"hf_model_name": str(tmp_path / "tower"), "hf_tokenizer_name": "tower", "hf_proj_type": "linear"}
    pooler = {"hf_pooler_type": "cls_pooler" if kind == "m2m_100" else "mean_pooler"}
    vision = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None}
    Path("configs").mkdir()
    config = {"embed_dim": 16, "custom_text": True, "vision_cfg": vision, "text_cfg": text | pooler}
    Path(f"configs/rap-{kind}.json").write_text(json.dumps(config))
    open_clip.add_model_config(Path("configs"))
    torch.manual_seed(0)
    theirs = open_clip.create_model(f"rap-{kind}", load_weights=False, pretrained_text=False).eval()
    described = open_clip_config(f"rap-{kind}", None)
    assert described["kind"] == "whole"
    ours = backbone.build(described, theirs.state_dict(), kind)
    ids = torch.randint(2, 64, (3, 8))
    context = Context(ours.text, torch.tensor([8, 8, 8]))
    with torch.no_grad():
        want = theirs.encode_text(ids, normalize=False)
        found = ours.text.run(ids.int(), INPUT, ours.text.all, context, Tuner())
    assert torch.equal(found, want)
