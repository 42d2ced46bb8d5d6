"""The tokenizer: captions to the token ids that the backbone's text tower was trained on."""

import re
from functools import cache

import numpy as np


def tokenize(captions: list[str], tokenizer: dict, words: int) -> tuple[np.ndarray, np.ndarray]:
    """Token ids [captions, words] int32, zero-padded, and token counts [captions] int64, including start and end.

    `tokenizer` is the entry `tokenizer` of the backbone's config. {"kind": "bpe"} is CLIP's tokenizer. {"kind":
    "words", "words": [...]} numbers the listed words; the list starts with <pad>, ends with <end>, and contains
    <unknown> and <start>. Captions that are too long are truncated before the end token, as in CLIP.
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
    """CLIP's BPE tokenizer, cached because loading its vocabulary takes longer than tokenizing a batch."""
    from open_clip import SimpleTokenizer

    return SimpleTokenizer()


def _words(captions: list[str], tokenizer: dict) -> list[list[int]]:
    number = {word: id for id, word in enumerate(tokenizer["words"])}
    unknown, start, end = (number[word] for word in ("<unknown>", "<start>", "<end>"))
    split = (re.findall(r"[a-z0-9]+", caption.lower()) for caption in captions)
    return [[start, *(number.get(word, unknown) for word in words), end] for words in split]
