"""The frozen backbone: a folder with the weights and the config of a CLIP, as the backbone stage wrote them.

weights.safetensors uses open_clip's parameter names; those of a plain ViT's text tower have the prefix `text.`.
config.json describes the towers, the preprocessing of frames and the tokenizer, and holds the digests of the weights
and of their source file. A plain ViT (rap.clip.plain) needs open_clip only for its BPE tokenizer. Other transformers
can be cut too (rap.clip.families). Any other model is used whole (rap.clip.whole).
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.overrides import TorchFunctionMode

from rap import paths
from rap.clip import families, whole
from rap.clip.plain import Plain
from rap.clip.towers import Clip
from rap.errors import UserError
from rap.files import digest, read_json
from rap.provenance import Record

DEMO = "demo-vit"
CLIPS: dict[str, type] = {"plain": Plain, families.KIND: families.Family, whole.KIND: whole.Whole}
RANDOM = {"uniform_", "normal_", "trunc_normal_", "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_"}
RANDOM |= {"xavier_normal_", "orthogonal_"}


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
    Record.open(folder.record, "rap backbone", files=files)
    return read_json(folder.config)


def identity(config: dict) -> str:
    """A digest of everything that a backbone computes: weights, architecture, preprocessing and tokenizer.

    Tags of one architecture may share a file of weights and differ in the activation or the normalisation.
    """
    return digest([config.get(key) for key in ("digest", "kind", "model", "preprocess", "tokenizer")])


def build(config: dict, state: dict, source: str) -> Clip:
    """Build a frozen Clip with the weights `state` (open_clip names). Raises UserError if they do not fit the model."""
    with Unfilled():
        clip: Clip = CLIPS[config.get("kind", "plain")](config)
    if config.get("kind"):
        state = whole.converted(clip.weights, state)
    else:
        state = {_our_name(name): tensor for name, tensor in state.items()}
        state.pop("text.attn_mask", None)
        if "logit_bias" in state:  # trained with open_clip's --siglip
            clip.logit_bias = nn.Parameter(torch.zeros(()))
    own = clip.weights.state_dict()
    for name in ("logit_scale", "logit_bias"):  # numbers, which some files hold as lists of one
        if name in state and state[name].numel() == 1:
            state[name] = state[name].reshape(own[name].shape)
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
