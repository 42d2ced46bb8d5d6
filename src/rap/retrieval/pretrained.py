"""A backbone with a trained adapter, for captions and video files.

model = from_pretrained("adapter.safetensors", "data/backbones/ViT-B-32")
model.texts(["a dog jumps"]) @ model.videos(["clip.mp4"]).T
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from rap import paths
from rap.adapters import registry
from rap.adapters.base import Adapter
from rap.clip import backbone
from rap.clip.tokenizer import tokenize
from rap.clip.towers import INPUT, Clip
from rap.errors import UserError
from rap.features.cache import Batch
from rap.files import digest, digest_file
from rap.params import Params
from rap.retrieval import adapter_file
from rap.retrieval.adapter_file import Header
from rap.retrieval.model import Retriever

if TYPE_CHECKING:  # video decoders are imported on use: captions do not need them
    from rap.frames.decode import Recipe


@dataclass(frozen=True)
class Pretrained:
    """A model for captions and video files.

    `digest` names the adapter: the SHA-256 of its file or, if nothing is trained, of its header.
    """

    model: Retriever
    digest: str
    header: Header
    tokenizer: dict
    recipe: "Recipe"

    @torch.no_grad()
    def texts(self, captions: list[str]) -> Tensor:
        """Embeddings of captions, float32 [Q, E], L2-normalised."""
        ids, lengths = tokenize(captions, self.tokenizer, self.header.max_words)
        tower = self.model.clip.text
        if tower.words is None and not tower.whole:  # padding changes nothing, and a query is short
            ids = ids[:, : lengths.max()]
        return self.model.text(Batch(torch.from_numpy(ids), torch.from_numpy(lengths), INPUT).to(self.device))

    @torch.no_grad()
    def videos(self, files: list[str | Path]) -> Tensor:
        """Embeddings of whole video files, float32 [V, E], L2-normalised; files are decoded one after another.

        Raises UserError if a file is not a video, or if the method has no embedding of a video without a text.
        """
        return torch.cat([self._video(Path(file)) for file in files])

    def _video(self, file: Path) -> Tensor:
        from rap.frames.decode import decode
        from rap.frames.ffmpeg import VideoError

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

    def to(self, device: torch.device) -> "Pretrained":
        self.model.to(device)
        return self

    def refuse_conditioned(self) -> None:
        """Raises UserError if the method has no embedding of a video without a text."""
        if self.model.conditioned:
            name = self.header.trained.variant
            raise UserError(f"{name}: it has no embedding of a video without a text; use one with asa.query: frame")


def from_pretrained(file: str | Path, folder: str | Path) -> Pretrained:
    """The adapter of a file on the backbone of a folder (written by `rap backbone`).

    Raises UserError if the file is not an adapter, is damaged, or is of another format, method or backbone.
    """
    header, weights = adapter_file.read(file)
    clip, config = backbone.load(folder)
    own, needed = backbone.identity(config), header.backbone.digest
    if own != needed:
        raise UserError(
            f"{file}: trained on {header.backbone.name} {needed[:12]}, not on {folder} "
            f"({config['name']}, {own[:12]}); load it on the backbone it was trained on"
        )
    return _assemble(clip, config, adapter_file.build(file, header, weights, clip), digest_file(file), header)


def untrained(params: Params, variant: str) -> Pretrained:
    """An untrained variant on the backbone of params.yaml, such as zero-shot CLIP."""
    clip, config = backbone.load(paths.backbone(params.backbone.name))
    header = adapter_file.header(params, variant, 0, config)
    name = digest(header.model_dump(mode="json"))
    return _assemble(clip, config, registry.build(clip, params, variant), name, header)


def _assemble(clip: Clip, config: dict, adapter: Adapter, name: str, header: Header) -> Pretrained:
    from rap.frames.decode import prepare

    recipe = prepare(header.frames, config["preprocess"], config["name"])
    return Pretrained(Retriever(clip, adapter).eval(), name, header, config["tokenizer"], recipe)
