"""A trained adapter as one file that travels: its weights and, in the header, all that it takes to build it again.

    model = portable.load("adapter.safetensors", "data/backbones/ViT-B-32")
    model.texts(["a dog jumps"]) @ model.videos(["clip.mp4"]).T

The backbone does not travel: its digest does, and a file is refused on another backbone.
"""

import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rap import adapters
from rap.adapters import METHODS, Adapter
from rap.clip import backbone
from rap.clip.tokenizer import tokenize
from rap.clip.towers import INPUT, Clip
from rap.errors import UserError
from rap.features.cache import Batch
from rap.files import atomic, digest, digest_file
from rap.frames.decode import Recipe, decode, prepare
from rap.frames.ffmpeg import VideoError
from rap.params import Frames, Params, hint, parse
from rap.retrieval.model import Retriever
from rap.training.run import Experiment, options

FORMAT = 1  # of the header
KEYS = {"format", "rap", "adapter", "options", "frames", "max_words", "backbone", "trained"}


def save(experiment: Experiment, path: Path) -> None:
    """Write the experiment's adapter, as safetensors with a header of its own under `rap` in the metadata."""
    weights = {name: tensor.contiguous() for name, tensor in experiment.adapter.state_dict().items()}
    with atomic(path) as temporary:
        save_file(weights, temporary, metadata={"rap": json.dumps(header(experiment), sort_keys=True)})


def header(experiment: Experiment) -> dict:
    """What the file says of itself: how to build the adapter, what to feed it, what it belongs to and comes from."""
    return _about(experiment.params, experiment.variant, experiment.seed, experiment.config)


def _about(params: Params, variant: str, seed: int, config: dict) -> dict:
    return {
        "format": FORMAT,
        "rap": version("rap-retrieval"),
        "adapter": params.all_variants[variant].adapter,
        "options": options(params, variant),
        "frames": params.frames.model_dump(mode="json"),
        "max_words": params.features.max_words,
        "backbone": {name: config[name] for name in ("name", "digest")},
        "trained": {"variant": variant, "seed": seed, "dataset": params.dataset.name},
    }


@dataclass(frozen=True)
class Portable:
    """A backbone with a trained adapter, for captions and video files as they are.

    `digest` names the adapter: the SHA-256 of its file, or of the header of one that has nothing to train.
    """

    model: Retriever
    digest: str
    header: dict
    tokenizer: dict
    recipe: Recipe

    @torch.no_grad()
    def texts(self, captions: list[str]) -> Tensor:
        """Embeddings of captions, float32 [Q, E], L2-normalised."""
        ids, lengths = tokenize(captions, self.tokenizer, self.header["max_words"])
        return self.model.text(Batch(torch.from_numpy(ids), torch.from_numpy(lengths), INPUT).to(self.device))

    @torch.no_grad()
    def videos(self, files: list[str | Path]) -> Tensor:
        """Embeddings of whole video files, float32 [V, E], L2-normalised: decode, encode, adapt, one after another.

        Raises UserError if a file is no video, or if the method has no embedding of a video without a text.
        """
        return torch.cat([self._video(Path(file)) for file in files])

    def _video(self, file: Path) -> Tensor:
        self.refuse_conditioned()
        try:
            frames = decode(file, self.recipe)
        except VideoError as error:
            raise UserError(f"{file}: {error}") from None
        padded = np.zeros((self.recipe.frames.count, *frames.shape[1:]), np.uint8)
        padded[: len(frames)] = frames
        clip = Batch(torch.from_numpy(padded)[None], torch.tensor([len(frames)]), INPUT)
        return self.model.video(clip.to(self.device))

    @property
    def device(self) -> torch.device:
        return self.model.clip.logit_scale.device

    def to(self, device: torch.device) -> "Portable":
        self.model.to(device)
        return self

    def refuse_conditioned(self) -> None:
        if self.model.conditioned:
            name = self.header["trained"]["variant"]
            raise UserError(f"{name}: it has no embedding of a video without a text; take one with asa.query: frame")


def load(file: str | Path, folder: str | Path) -> Portable:
    """The adapter of a file on the backbone of a folder (written by `rap backbone`).

    Raises UserError if the file is no adapter, of another format, of an unknown method, or of another backbone.
    """
    about = read_header(file)
    clip, config = backbone.load(folder)
    mine, its = config["digest"], about["backbone"]["digest"]
    if mine != its:
        raise UserError(
            f"{file}: trained on {about['backbone']['name']} with weights {its[:12]}, not on {folder} "
            f"({config['name']}, {mine[:12]}); load it on the backbone it was trained on"
        )
    parse(Frames, about["frames"], f"{file}: frames")
    return _assemble(clip, config, build(file, about, clip), digest_file(file), about)


def untrained(params: Params, variant: str) -> Portable:
    """A variant as it is before any training, on the backbone of params.yaml: such as zero-shot CLIP."""
    clip, config = backbone.load(params.backbone_folder)
    about = _about(params, variant, 0, config)
    return _assemble(clip, config, adapters.build(clip, params, variant), digest(about), about)


def _assemble(clip: Clip, config: dict, adapter: Adapter, name: str, about: dict) -> Portable:
    recipe = prepare(Frames(**about["frames"]), config["preprocess"], config["name"])
    return Portable(Retriever(clip, adapter).eval(), name, about, config["tokenizer"], recipe)


def read_header(file: str | Path) -> dict:
    """The header of an adapter file. Raises UserError if it has none that this version reads."""
    try:
        with safe_open(str(file), "pt") as opened:
            about = json.loads((opened.metadata() or {})["rap"])
        number = about["format"]
    except FileNotFoundError:
        raise UserError(f"{file}: not there; `rap train` writes adapter.safetensors under results/") from None
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        raise UserError(f"{file}: no adapter of rap; name an adapter.safetensors that `rap train` wrote") from None
    if number != FORMAT or not set(about) >= KEYS:
        raise UserError(
            f"{file}: an adapter of format {number}, written by rap {about.get('rap')}; this one reads format {FORMAT}"
        )
    return about


def build(file: str | Path, about: dict, clip: Clip) -> Adapter:
    """The adapter that a header describes, with the file's weights, for a backbone."""
    name = about["adapter"]
    if name not in METHODS:
        raise UserError(f"{file}: no method {name!r} here{hint(name, METHODS)}")
    groups = METHODS[name].groups.items()
    chosen = {key: parse(group, about["options"].get(key, {}), f"{file}: {key}") for key, group in groups}
    adapter = METHODS[name].build(clip, about["frames"]["count"], **chosen)
    with safe_open(str(file), "pt") as opened:
        weights = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    try:
        adapter.load_state_dict(weights)
    except RuntimeError:
        raise UserError(f"{file}: its weights are not those of the {name} that its header describes") from None
    return adapter
