"""open_clip's CLIP model, for training from scratch. All other code uses the towers of `rap.clip.towers`."""

import torch
from open_clip import CLIP
from torch import Tensor

__all__ = ["CLIP", "encode_text", "open_clip_model"]


def open_clip_model(config: dict) -> CLIP:
    """Create a model with random weights; `config` is the entry `model` of a backbone's config."""
    return CLIP(**config)


def encode_text(model: CLIP, ids: Tensor) -> Tensor:
    """Text embeddings [captions, E], not normalised, of token ids [captions, words].

    `model.encode_text` requires `context_length` words; this function accepts fewer, at a lower cost.
    """
    words = ids.shape[1]
    x = model.token_embedding(ids) + model.positional_embedding[:words]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:words, :words]))
    return x[torch.arange(len(ids)), ids.argmax(1)] @ model.text_projection  # the end token has the highest id
