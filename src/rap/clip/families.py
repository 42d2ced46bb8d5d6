"""The models of open_clip, beyond CLIP's ViTs, whose towers can be cut, and the classes that run them.

The modules and their weights are open_clip's own, under its parameter names.
"""

import re
from typing import Any, cast

from torch import nn

from rap.clip.towers import Clip, VideoTower
from rap.clip.variants import VariantText, VariantVideo
from rap.clip.whole import open_clip_model

KIND = "family"  # the entry `kind` of a backbone's config
TIMM_VIT = re.compile(r"vit_\w+_siglip_\d+|vit_base_mci_224|vit_large_patch14_clip_224")
TIMM_EVA = re.compile(r"eva_giant_patch14_224|eva02_\w+_clip_\d+|vit_pe_core_\w+")
VISION = {  # options of open_clip's VisionTransformer
    *("image_size", "layers", "width", "patch_size", "head_width", "mlp_ratio", "norm_kwargs"),
    *("ls_init_value", "no_ln_pre", "final_ln_after_pool", "pool_type", "output_tokens"),
    *("attentional_pool", "attn_pooler_heads", "attn_pooler_queries"),
}
TEXT = {  # options of open_clip's TextTransformer and of its tokenizer
    *("context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio", "norm_kwargs", "act_kwargs"),
    *("embed_cls", "no_causal_mask", "pool_type", "proj_type", "proj_bias", "output_tokens", "eos_id"),
    *("hf_tokenizer_name", "tokenizer_kwargs"),
}


class Family(Clip):
    """The model of a config.json whose kind is `family`, with random weights."""

    def __init__(self, config: dict):
        super().__init__()
        model: Any = open_clip_model(config["name"], config["model"])
        self._model = (model,)  # a tuple, so that weights are registered once
        self.embed_dim = config["model"]["embed_dim"]
        self.visual = video_tower(config["model"]["vision_cfg"], model.visual, config["preprocess"])
        self.text = VariantText(model)
        self.logit_scale = model.logit_scale
        self.logit_bias = cast(nn.Parameter | None, getattr(model, "logit_bias", None))

    @property
    def weights(self) -> nn.Module:
        return self._model[0]


def video_tower(vision: dict, inner: nn.Module, preprocess: dict) -> VideoTower:
    name = vision.get("timm_model_name")
    if name is None:
        return VariantVideo(inner, preprocess)
    if TIMM_EVA.fullmatch(name):
        from rap.clip.timm_eva import EvaVideo

        return EvaVideo(inner, preprocess)
    from rap.clip.timm_vit import TimmVideo

    return TimmVideo(inner, preprocess)


def can_be_cut(model: dict) -> bool:
    """Whether a model of open_clip, given by its config, belongs to a family."""
    vision, text = model["vision_cfg"], model["text_cfg"]
    if set(text) - TEXT:
        return False
    if name := vision.get("timm_model_name"):
        return bool(TIMM_VIT.fullmatch(name) or TIMM_EVA.fullmatch(name))
    return not set(vision) - VISION and isinstance(vision["layers"], int)


def tokenizer(name: str, text: dict) -> dict:
    """The entry `tokenizer` of the backbone's config: see rap.clip.tokenizer."""
    pool, special = text.get("pool_type", "argmax"), {"hf_tokenizer_name", "no_causal_mask", "embed_cls"}
    if pool == "argmax" and not any(text.get(key) for key in special):
        return {"kind": "bpe"}
    return {"kind": "open_clip", "name": name, "end": text["eos_id"] if pool == "eos" else pool}
