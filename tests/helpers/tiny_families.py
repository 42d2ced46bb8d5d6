"""A tiny model of each family of towers, registered with open_clip and timm, with random weights."""

import json
import tempfile
from functools import partial
from pathlib import Path

import open_clip
import torch
from timm.layers import LayerNorm
from timm.models import register_model
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer

from rap.clip import backbone, models
from rap.clip.towers import Clip

E, WORDS = 24, 12  # SigLIP has no projection: its embedding is as wide as its tokens
SIZE = dict(img_size=32, patch_size=8, embed_dim=24, depth=3, num_heads=3)
TEXT = {"context_length": WORDS, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
LAST = TEXT | {"no_causal_mask": True, "pool_type": "last"}
VIT = {"image_size": 32, "patch_size": 8, "width": 24, "layers": 3, "head_width": 8}

PE = dict(attn_type="rope", use_rot_pos_emb=True, ref_feat_shape=(4, 4), rope_grid_indexing="xy")
PE |= dict(use_pre_transformer_norm=True, norm_layer=partial(LayerNorm, eps=1e-5), attn_pool_num_heads=2)


def timm(name: str, pool: str, proj: str | None = None) -> dict:
    return {"image_size": 32, "timm_model_name": name, "timm_pool": pool, "timm_proj": proj}


MODELS = {
    "rap-siglip": (timm("vit_tiny_siglip_32", "map", "none"), LAST | {"proj_bias": True, "hf_tokenizer_name": "tiny"}),
    "rap-mobileclip": (timm("vit_mobile_siglip_32", "token"), TEXT | {"no_causal_mask": True}),
    "rap-eva": (timm("eva02_tiny_clip_32", "token"), TEXT),
    "rap-eva-post": (timm("eva02_post_clip_32", "token"), TEXT),
    "rap-pe": (timm("vit_pe_core_tiny_32", "map"), TEXT),
    "rap-pe-big": (timm("vit_pe_core_big_32", "map"), TEXT),
    "rap-clipa": (
        VIT | {"no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True},
        LAST | {"hf_tokenizer_name": "tiny"},
    ),
    "rap-coca": (
        VIT | {"attentional_pool": True, "attn_pooler_heads": 4, "output_tokens": True},
        TEXT | {"embed_cls": True, "output_tokens": True},
    ),
    "rap-worldwide": (VIT, TEXT | {"pool_type": "eos", "eos_id": 2, "hf_tokenizer_name": "tiny"}),
    "rap-scaled": (VIT | {"ls_init_value": 0.5}, TEXT),
}
BIASED = {"rap-siglip", "rap-pe-big"}  # that have a logit bias


def made(kind: type[Eva | VisionTransformer], options: dict, **shape) -> Eva | VisionTransformer:
    """timm passes where weights would come from; these models have none."""
    wanted = {name: options[name] for name in ("num_classes", "global_pool") if name in options}
    return kind(**SIZE, **shape, **wanted)


@register_model
def vit_tiny_siglip_32(pretrained: bool = False, **options) -> VisionTransformer:
    return made(VisionTransformer, options, qkv_bias=True, class_token=False)


@register_model
def vit_mobile_siglip_32(pretrained: bool = False, **options) -> VisionTransformer:
    """With [CLS], as MobileCLIP; families.py has its models by name, and these names are taken."""
    return made(VisionTransformer, options, pre_norm=True, no_embed_class=True)


@register_model
def eva02_tiny_clip_32(pretrained: bool = False, **options) -> Eva:
    gated = dict(qkv_fused=False, mlp_ratio=8 / 3, swiglu_mlp=True, scale_mlp=True, scale_attn_inner=True)
    return made(Eva, options, **gated, use_rot_pos_emb=True, ref_feat_shape=(4, 4))


@register_model
def eva02_post_clip_32(pretrained: bool = False, **options) -> Eva:
    return made(Eva, options, use_post_norm=True)


@register_model
def vit_pe_core_tiny_32(pretrained: bool = False, **options) -> Eva:
    return made(Eva, options, **PE, rope_grid_offset=1.0)


@register_model
def vit_pe_core_big_32(pretrained: bool = False, **options) -> Eva:
    return made(Eva, options, **PE, class_token=False)


def register() -> None:
    """Make the models known to open_clip."""
    folder = Path(tempfile.mkdtemp())
    for name, (vision, text) in MODELS.items():
        config = {"embed_dim": E, "vision_cfg": vision, "text_cfg": text}
        if "timm_model_name" in vision or "coca" in name:
            config["custom_text"] = True
        if name in BIASED:
            config["init_logit_bias"] = -10.0
        if "coca" in name:
            config["multimodal_cfg"] = TEXT | {"dim_head": 8, "mlp_ratio": 4}
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)


def pair(name: str, layers: int | None = None) -> tuple[torch.nn.Module, Clip, dict]:
    """open_clip's model, every weight of which is random, ours with the same weights, and its config.

    `layers`: of both towers in the config, if not the model's own; a plain ViT is built from the config alone.
    """
    generator = torch.Generator().manual_seed(0)
    theirs = open_clip.create_model(name, load_weights=False).eval()
    for weight in theirs.parameters():
        scale = weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.1
        weight.data = weight.data * (weight.ndim < 2) + scale * torch.randn(weight.shape, generator=generator)
    config = models.open_clip_config(name, None)
    if layers:
        for tower in ("vision_cfg", "text_cfg"):
            config["model"][tower]["layers"] = layers
    return theirs, backbone.build(config, theirs.state_dict(), name), config
