"""The models of open_clip: the config of each, whether its towers can be cut, its size and its cost.

Sizes and costs are in models.csv, which workflow/scripts/backbones.py writes.
"""

from importlib.resources import files
from typing import TYPE_CHECKING

from rap.clip import families, whole
from rap.errors import UserError
from rap.params import hint

if TYPE_CHECKING:
    import pandas as pd

VISION_KEYS = {"image_size", "layers", "width", "patch_size", "head_width", "mlp_ratio", "norm_kwargs"}
UNUSUAL = {"multimodal_cfg", "custom_text"}
TEXT_KEYS = {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio", "norm_kwargs"}


def known() -> "pd.DataFrame":
    """models.csv: one row per model. `blocks` and `tokens` are empty for a model that is used whole."""
    import pandas as pd

    return pd.read_csv(str(files("rap.clip") / "models.csv"), dtype={"blocks": "Int64", "tokens": "Int64"})


def open_clip_config(name: str, pretrained: str | None) -> dict:
    """The config.json of open_clip's model `name`, without digests. Raises UserError if there is none.

    Without a tag, the preprocessing is that of the model's first tag.
    """
    import open_clip

    model = open_clip.get_model_config(name)
    if model is None:
        raise UserError(f"backbone.name: open_clip has no model {name!r}{hint(name, open_clip.list_models())}")
    tag = open_clip.get_pretrained_cfg(name, pretrained) if pretrained else {}
    model["quick_gelu"] = model.get("quick_gelu", False) or tag.get("quick_gelu", False)
    tags = open_clip.list_pretrained_tags_by_model(name)
    tag = tag or (open_clip.get_pretrained_cfg(name, tags[0]) if tags else {})
    preprocess = {
        "size": model["vision_cfg"].get("image_size", 224),
        "mean": list(tag.get("mean") or open_clip.OPENAI_DATASET_MEAN),
        "std": list(tag.get("std") or open_clip.OPENAI_DATASET_STD),
        "interpolation": tag.get("interpolation") or "bicubic",
        "resize_mode": tag.get("resize_mode") or "shortest",
    }
    config = {"name": name, "model": model, "preprocess": preprocess}
    if is_plain(model):
        return config | {"tokenizer": {"kind": "bpe"}}
    if families.can_be_cut(model):
        return config | {"kind": families.KIND, "tokenizer": families.tokenizer(name, model["text_cfg"])}
    why = f"{name} is used whole and has no blocks to change; near models that have are {' and '.join(near(name))}"
    return config | {"kind": whole.KIND, "whole": why, "tokenizer": {"kind": "open_clip", "name": name}}


def near(name: str) -> list[str]:
    """The two models with blocks and published weights whose cost per frame is nearest to that of `name`."""
    models = known().set_index("name")
    found = models[(models.level == "blocks") & models.tags.notna()]
    cost = models.frame.get(name, found.frame.median())  # a config of the user's own is not in the list
    return list((found.frame / cost).map(lambda ratio: max(ratio, 1 / ratio)).nsmallest(2).index)


def is_plain(model: dict) -> bool:
    """Whether a model of open_clip, given by its config, is a plain ViT (rap.clip.plain)."""
    strange = (set(model["vision_cfg"]) - VISION_KEYS) | (set(model["text_cfg"]) - TEXT_KEYS) | (set(model) & UNUSUAL)
    return not strange and isinstance(model["vision_cfg"]["layers"], int)
