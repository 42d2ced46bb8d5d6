"""The tokenizer: captions to the token ids that the backbone's text tower was trained on."""

import re
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
from torch import Tensor

from rap.clip.hub import reachable_or_offline
from rap.errors import UserError, require


def tokenize(captions: list[str], tokenizer: dict, words: int) -> tuple[np.ndarray, np.ndarray]:
    """Token ids [captions, words] int32, zero-padded, and token counts [captions] int64, including start and end.

    `tokenizer` is the entry `tokenizer` of the backbone's config. {"kind": "bpe"} is CLIP's tokenizer. {"kind":
    "words", "words": [...]} numbers the listed words; the list starts with <pad>, ends with <end>, and contains
    <unknown> and <start>. Captions that are too long are truncated before the end token, as in CLIP. {"kind":
    "open_clip", "name": model, "end": end} is the model's own tokenizer, which fixes the number of words and ignores
    `words`. Tokens are counted up to `end`: the `last` place, the highest id (`argmax`), or the first token of that id.
    """
    if tokenizer["kind"] == "open_clip":
        ids = _of_model(tokenizer["name"])(captions).numpy().astype(np.int32)
        return ids, _lengths(ids, tokenizer.get("end", "last"))
    encode = {"bpe": _bpe, "words": _words}[tokenizer["kind"]]
    ids = np.zeros((len(captions), words), dtype=np.int32)
    lengths = np.zeros(len(captions), dtype=np.int64)
    for row, (start, *body, end) in enumerate(encode(captions, tokenizer)):
        tokens = [start, *body[: words - 2], end]
        ids[row, : len(tokens)], lengths[row] = tokens, len(tokens)
    return ids, lengths


def _lengths(ids: np.ndarray, end: str | int) -> np.ndarray:
    if end == "last":
        return np.full(len(ids), ids.shape[1], np.int64)
    return (ids if end == "argmax" else ids == end).argmax(1) + 1


def _bpe(captions: list[str], tokenizer: dict) -> list[list[int]]:
    bpe = _tokenizer()
    return [[bpe.sot_token_id, *bpe.encode(caption), bpe.eot_token_id] for caption in captions]


@cache
def _tokenizer():
    """CLIP's BPE tokenizer, cached because loading its vocabulary takes longer than tokenizing a batch.

    Only open_clip's tokenizer.py is imported: the package imports torchvision and timm, which takes two seconds.
    """
    package = find_spec("open_clip")
    assert package and package.origin, "open_clip is installed"
    file = spec_from_file_location("open_clip_tokenizer", Path(package.origin).with_name("tokenizer.py"))
    assert file and file.loader
    module = module_from_spec(file)
    file.loader.exec_module(module)
    return module.SimpleTokenizer()


@cache
def _of_model(name: str) -> Callable[[list[str]], Tensor]:
    """The model's own tokenizer. Raises UserError if it is on a hub that cannot be reached."""
    import open_clip

    text = open_clip.get_model_config(name)["text_cfg"]
    repository = text.get("hf_tokenizer_name")
    if not repository:
        return open_clip.get_tokenizer(name)
    require("transformers", "hub")
    try:
        with reachable_or_offline():
            return open_clip.get_tokenizer(name)
    except Exception as error:  # transformers raises many types
        raise UserError(
            f"backbone.name: {name}: its tokenizer {repository} cannot be found ({' '.join(str(error).split())[:70]}); "
            f"on a machine with a network, run `hf download {repository} --include '*token*' '*.json' '*.model'`, and "
            "copy the hub's cache (HF_HOME) here"
        ) from None


def _words(captions: list[str], tokenizer: dict) -> list[list[int]]:
    number = {word: id for id, word in enumerate(tokenizer["words"])}
    unknown, start, end = (number[word] for word in ("<unknown>", "<start>", "<end>"))
    split = (re.findall(r"[a-z0-9]+", caption.lower()) for caption in captions)
    return [[start, *(number.get(word, unknown) for word in words), end] for words in split]
