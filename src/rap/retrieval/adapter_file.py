"""A trained adapter as one safetensors file: its weights and, in a header, everything needed to build it again.

The file does not contain the backbone: the header holds its digest, and other backbones are rejected.
The header holds a checksum of itself and the weights, because the file is shared without a record.
"""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from rap.adapters import registry
from rap.adapters.base import Adapter
from rap.clip.backbone import identity
from rap.clip.towers import Clip
from rap.errors import UserError
from rap.files import atomic, digest
from rap.params import Count, Name, Params, Sampling, Section, hint, parse

FORMAT = 3  # of the header


class Backbone(Section):
    name: Name
    digest: str  # rap.clip.backbone.identity


class Trained(Section):
    variant: Name
    seed: int
    dataset: Name


class Header(Section):
    """Limits for untrusted files. The options of the method are checked when it is built."""

    format: int
    rap: str
    adapter: Name
    options: dict[Name, dict[str, Any]]
    frames: Sampling
    max_words: Count
    backbone: Backbone
    trained: Trained


def header(params: Params, variant: str, seed: int, config: dict) -> Header:
    """The construction, inputs and origin of a variant's adapter. `config`: the backbone's."""
    options = registry.options(params, variant)
    return Header(
        format=FORMAT,
        rap=version("rap-retrieval"),
        adapter=params.variant(variant).adapter,
        options={name: group.model_dump(mode="json") for name, group in options.items()},
        frames=params.frames.sampling,
        max_words=params.features.max_words,
        backbone=Backbone(name=config["name"], digest=identity(config)),
        trained=Trained(variant=variant, seed=seed, dataset=params.dataset.name),
    )


def save_pretrained(adapter: Adapter, header: Header, path: Path) -> None:
    """Write an adapter with its header. Equal adapters are equal bytes: the metadata has one key, since safetensors
    writes several in any order."""
    weights = {name: tensor.contiguous() for name, tensor in adapter.state_dict().items()}
    about = header.model_dump(mode="json")
    text = json.dumps(about | {"checksum": _checksum(about, weights)}, sort_keys=True)
    with atomic(path) as temporary:
        temporary.write_bytes(save(weights, metadata={"rap": text}))


def read(file: str | Path) -> tuple[Header, dict[str, Tensor]]:
    """The header and the weights. Raises UserError if the file is absent, damaged, or not an adapter of this format."""
    try:
        with safe_open(str(file), "pt") as opened:
            about = json.loads((opened.metadata() or {})["rap"])
            weights = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
        number, right = about["format"], about.pop("checksum", "") == _checksum(about, weights)
    except FileNotFoundError:
        raise UserError(f"{file}: not there; `rap train` writes adapter.safetensors under results/runs/") from None
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RecursionError):
        raise UserError(f"{file}: not an adapter of rap; name an adapter.safetensors that `rap train` wrote") from None
    if number != FORMAT:
        raise UserError(
            f"{file}: an adapter of format {number}, written by rap {about.get('rap')}; this version reads {FORMAT}"
        )
    if not right:
        raise UserError(f"{file}: damaged: its checksum is wrong; copy it again, or run `rap train` again")
    return parse(Header, about, f"{file}: header"), weights


def build(file: str | Path, header: Header, weights: dict[str, Tensor], clip: Clip) -> Adapter:
    """The adapter that a header describes, with its weights, for a backbone."""
    name = header.adapter
    if name not in registry.names():
        raise UserError(f"{file}: there is no method {name!r}{hint(name, registry.names())}")
    method = registry.method(name)
    groups = method.groups.items()
    chosen = {key: parse(group, header.options.get(key, {}), f"{file}: {key}") for key, group in groups}
    adapter = method.build(clip, header.frames.count, **chosen)
    try:
        adapter.load_state_dict(weights)
    except RuntimeError:
        raise UserError(f"{file}: its weights do not fit the {name} that its header describes") from None
    return adapter


def _checksum(about: dict, weights: dict[str, Tensor]) -> str:
    """SHA-256 of the header and of every tensor's name, type, shape and bytes."""
    sums: list[Any] = [about]
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        content = hashlib.sha256(tensor.flatten().view(torch.uint8).numpy().data).hexdigest() if tensor.numel() else ""
        sums.append([name, str(tensor.dtype), list(tensor.shape), content])
    return digest(sums)
