"""Captions to token ids, as the backbone's text tower was trained on them."""

import re
from functools import cache

import numpy as np


def tokenize(captions: list[str], tokenizer: dict, words: int) -> tuple[np.ndarray, np.ndarray]:
    """Token ids [captions, words] int32, zero-padded, and the number of tokens of each, start and end included.

    `tokenizer` is the entry of that name in the backbone's config: {"kind": "bpe"} is CLIP's own; {"kind": "words",
    "words": [...]} numbers the listed words, <pad> first and <end> last, <unknown> and <start> among them.
    A caption that is too long is cut; its last token is then the end token, as in CLIP.
    """
    encode = {"bpe": _bpe, "words": _words}[tokenizer["kind"]]
    ids = np.zeros((len(captions), words), dtype=np.int32)
    lengths = np.zeros(len(captions), dtype=np.int64)
    for row, (start, *body, end) in enumerate(encode(captions, tokenizer)):
        tokens = [start, *body[: words - 2], end]
        ids[row, : len(tokens)], lengths[row] = tokens, len(tokens)
    return ids, lengths


def _bpe(captions: list[str], tokenizer: dict) -> list[list[int]]:
    bpe = _tokenizer()
    return [[bpe.sot_token_id, *bpe.encode(caption), bpe.eot_token_id] for caption in captions]


@cache
def _tokenizer():
    """CLIP's own. Reading its vocabulary takes longer than a batch of captions does."""
    from open_clip import SimpleTokenizer

    return SimpleTokenizer()


def _words(captions: list[str], tokenizer: dict) -> list[list[int]]:
    number = {word: id for id, word in enumerate(tokenizer["words"])}
    unknown, start, end = (number[word] for word in ("<unknown>", "<start>", "<end>"))
    split = (re.findall(r"[a-z0-9]+", caption.lower()) for caption in captions)
    return [[start, *(number.get(word, unknown) for word in words), end] for words in split]
