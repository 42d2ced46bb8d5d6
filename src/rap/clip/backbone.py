"""The backbone stage: converts a CLIP of open_clip, by name and tag or from a local file, into two files.

weights.safetensors uses open_clip's parameter names; those of a plain ViT's text tower have the prefix `text.`.
config.json describes the towers, the preprocessing of frames and the tokenizer, and holds the digests of the weights
and of their source file. A plain ViT (rap.clip.plain) needs open_clip later only for its BPE tokenizer. Other
transformers can be cut too (rap.clip.families). Any other model is used whole (rap.clip.whole).
"""

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import load_file, save
from torch.overrides import TorchFunctionMode

from rap import paths
from rap.clip import families, weights, whole
from rap.clip.plain import Plain
from rap.clip.torchscript import is_torchscript
from rap.clip.towers import Clip
from rap.errors import UserError
from rap.files import atomic, digest, digest_file, read_json, write_json
from rap.params import Backbone, hint
from rap.provenance import Record

if TYPE_CHECKING:
    from rap.jobs import Job

DEMO = "demo-vit"
CLIPS: dict[str, type] = {"plain": Plain, families.KIND: families.Family, whole.KIND: whole.Whole}
VISION_KEYS = {"image_size", "layers", "width", "patch_size", "head_width", "mlp_ratio", "norm_kwargs"}
RANDOM = {"uniform_", "normal_", "trunc_normal_", "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_"}
RANDOM |= {"xavier_normal_", "orthogonal_"}
UNUSUAL = {"multimodal_cfg", "custom_text"}
TEXT_KEYS = {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio", "norm_kwargs"}


def run(job: "Job") -> str:
    """Write data/backbones/NAME/weights.safetensors, config.json and their record.

    Raises UserError if the model is unknown, or if its weights are missing or belong to another model.
    """
    wanted = job.params.backbone
    folder = paths.backbone(wanted.name)
    job.reads_external()
    config = None if wanted.name == DEMO else open_clip_config(wanted.name, wanted.pretrained)
    file = source_file(wanted)
    state = weights.read(file)
    config = config or read_json(file.with_suffix(".json"))
    if is_torchscript(file) and not config["model"].get("quick_gelu"):
        raise UserError(
            f"{file}: a TorchScript archive of OpenAI, trained with QuickGELU, which {wanted.name} does not use; "
            "set backbone.pretrained: openai in addition to backbone.weights"
        )
    clip = build(config, state, str(file))
    with atomic(folder.weights) as path:
        path.write_bytes(save({name: tensor.contiguous() for name, tensor in clip.weights.state_dict().items()}))
    config["digest"] = digest_file(folder.weights)
    config["source"] = {"file": file.name, "digest": digest_file(file)}
    write_json(folder.config, config)
    files = {file.name: digest_file(file) for file in folder.files}
    job.result(digest(files), files).write(folder.record)
    count = sum(tensor.numel() for tensor in clip.weights.state_dict().values())
    gelu = "QuickGELU" if config["model"].get("quick_gelu") else "GELU"
    return (
        f"{folder}: {wanted.name} with {gelu} from {file}, {count / 1e6:.2f} M parameters, "
        f"digest {config['digest'][:12]}"
    )


def source_file(wanted: Backbone) -> Path:
    """The weights file named in params.yaml: a local file, or the file of open_clip's tag."""
    if wanted.weights:
        return Path(wanted.weights)
    if wanted.pretrained and wanted.name != DEMO:
        return weights.find(wanted.name, wanted.pretrained)
    raise UserError(
        f"backbone: {wanted.name} has no weights; set backbone.weights to a file or backbone.pretrained to a tag"
    )


def load(folder: str | Path) -> tuple[Clip, dict]:
    """Load the frozen backbone of a folder, in float32, and its config. Raises UserError if missing or damaged."""
    folder = paths.BackboneFolder(folder)
    config = _read(folder, folder.config.name, folder.weights.name)
    return build(config, load_file(folder.weights), str(folder)), config


def read_config(folder: str | Path) -> dict:
    """Read config.json of a backbone's folder. Raises UserError if it is missing or damaged."""
    folder = paths.BackboneFolder(folder)
    return _read(folder, folder.config.name)


def _read(folder: paths.BackboneFolder, *files: str) -> dict:
    """config.json, after a check of `files`."""
    try:
        record = Record.read(folder.record)
    except FileNotFoundError:
        raise UserError(f"{folder.record}: missing; run `rap backbone` first") from None
    if damaged := record.damaged(folder, files):
        raise UserError(f"{folder / damaged[0]}: missing or damaged; run `rap backbone` again")
    return read_json(folder.config)


def build(config: dict, state: dict, source: str) -> Clip:
    """Build a frozen Clip with the weights `state` (open_clip names). Raises UserError if they do not fit the model."""
    with Unfilled():
        clip: Clip = CLIPS[config.get("kind", "plain")](config)
    if config.get("kind"):
        state = whole.converted(clip.weights, state)
    else:
        state = {_our_name(name): tensor for name, tensor in state.items()}
        state.pop("text.attn_mask", None)
    own = clip.weights.state_dict()
    wrong = [name for name in own if name not in state or state[name].shape != own[name].shape]
    wrong += [name for name in state if name not in own]
    if wrong:
        name = wrong[0]
        have, need = (str(tuple(s[name].shape)) if name in s else "nothing" for s in (state, own))
        raise UserError(
            f"{source}: not the weights of {config['name']}: {name} has {have} where the model has {need}; "
            "set backbone.name to the model of this file"
        )
    clip.weights.load_state_dict({name: tensor.to(own[name].dtype) for name, tensor in state.items()})
    return clip.freeze()


class Unfilled(TorchFunctionMode):
    """Skips random initialisation: the loaded file overwrites it."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function.__name__ in RANDOM:
            return args[0] if args else (kwargs or {})["tensor"]
        return function(*args, **(kwargs or {}))


def _our_name(name: str) -> str:
    return name if name.startswith(("visual.", "text.", "logit_")) else f"text.{name}"


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
    near = difflib.get_close_matches(name, filter(has_blocks, open_clip.list_models()), n=2, cutoff=0)
    why = f"{name} is used whole and has no blocks to change; near models that have are {' and '.join(near)}"
    return config | {"kind": whole.KIND, "whole": why, "tokenizer": {"kind": "open_clip", "name": name}}


def is_plain(model: dict) -> bool:
    """Whether a model of open_clip, given by its config, is a plain ViT (rap.clip.plain)."""
    strange = (set(model["vision_cfg"]) - VISION_KEYS) | (set(model["text_cfg"]) - TEXT_KEYS) | (set(model) & UNUSUAL)
    return not strange and isinstance(model["vision_cfg"]["layers"], int)


def has_blocks(name: str) -> bool:
    """Whether the towers of open_clip's model `name` can be cut at any block."""
    import open_clip

    model = open_clip.get_model_config(name)
    return is_plain(model) or families.can_be_cut(model)
