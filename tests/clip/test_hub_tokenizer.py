"""Tokenizers that live on a hub: through open_clip's road, with a small one made on the spot. Needs the extra `hub`."""

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest

from rap.clip.tokenizer import tokenize
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
