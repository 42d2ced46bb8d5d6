"""The source of a backbone's weights: a local file, or open_clip's file for a model and a tag."""

import warnings
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from rap.clip.hub import cached_or_reachable, in_hubs_cache
from rap.clip.torchscript import is_torchscript, read_torchscript
from rap.errors import UserError
from rap.params import hint

ARCHIVES = Path("~/.cache/clip")  # the download cache of open_clip and of OpenAI's package
EXTRAS = ("input_resolution", "context_length", "vocab_size")  # settings that OpenAI's archives store among the weights


def read(path: Path) -> dict[str, Tensor]:
    """Read the weights of a safetensors file, a torch checkpoint or a TorchScript archive without executing its code.

    Raises UserError if the file is missing or has other contents.
    """
    if not path.is_file():
        raise UserError(f"backbone.weights: {path} is missing; put the weights file there or name another file")
    try:
        if path.suffix == ".safetensors":
            return _plain_names(load_file(path))
        if is_torchscript(path):
            return {name: tensor for name, tensor in read_torchscript(path).items() if name not in EXTRAS}
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        return _plain_names(checkpoint.get("state_dict", checkpoint))
    except Exception as error:  # each library raises its own types on an invalid file
        raise UserError(f"backbone.weights: {path} cannot be read as weights: {_short(error)}") from None


def _plain_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefix of torch's parallel modules."""
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def find(name: str, tag: str) -> Path:
    """The file of open_clip's `name` and `tag`, from a cache or from the hub. Raises UserError if neither has it."""
    import open_clip
    from open_clip.pretrained import download_pretrained, download_pretrained_from_url

    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag not in tags:
        raise UserError(f"backbone.pretrained: {name} has no tag {tag!r}{hint(tag, tags)}")
    known = open_clip.get_pretrained_cfg(name, tag)
    archive = Path(known.get("url") or "").name
    try:
        if archive and (ARCHIVES.expanduser() / archive).is_file():
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)  # do not overwrite a file with another digest
                return Path(download_pretrained_from_url(known["url"]))
        if known.get("hf_hub"):
            cached_or_reachable(known["hf_hub"])
        return Path(download_pretrained(known))
    except Exception as error:  # the hub's client raises many types when the hub is unreachable
        places = [f"https://huggingface.co/{known['hf_hub'].strip('/')}"] if known.get("hf_hub") else []
        places += [known["url"]] if archive else []
        raise UserError(
            f"backbone.pretrained: {name} {tag}: download failed ({_short(error)}); on a machine with a network, "
            f"download the weights from {' or '.join(places)}, and set backbone.weights to the file"
            + (f", or put {archive} into {ARCHIVES}" if archive else "")
        ) from None


def is_cached(name: str, tag: str) -> bool:
    """Whether the weights of open_clip's `name` and `tag` are on this machine."""
    import open_clip

    known = open_clip.get_pretrained_cfg(name, tag)
    archive = Path(known.get("url") or "").name
    on_disk = bool(archive) and (ARCHIVES.expanduser() / archive).is_file()
    return on_disk or bool(known.get("hf_hub") and in_hubs_cache(known["hf_hub"]))


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
