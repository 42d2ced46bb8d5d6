"""One run: a variant and a seed, with its model, its caches, its captions and the digests of all that it depends on."""

import inspect
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
import torch

from rap import adapters, retrieval
from rap.clip import backbone, towers
from rap.data.manifest import Manifest
from rap.errors import UserError
from rap.features import cache as caches
from rap.features.cache import Cache, choose
from rap.files import digest, digest_file
from rap.params import Params, hint
from rap.retrieval.model import Retriever
from rap.runtime.device import setup


@dataclass(frozen=True)
class Split:
    """What of a split can be used: `captions` (rows of the manifest) of `videos` (ids), of `total` videos listed."""

    videos: list[str]
    captions: pd.DataFrame
    total: int


class Experiment:
    """Opens what a run reads. The adapter is fresh, initialised from the seed."""

    def __init__(self, params: Params, variant: str, seed: int):
        if variant not in params.all_variants:
            raise UserError(f"params.yaml: variants: there is no {variant!r}{hint(variant, params.all_variants)}")
        self.params, self.variant, self.seed = params, variant, seed
        self.device = setup(params.runtime)
        self.train = params.training(variant)
        self.folder = run_folder(params, variant, seed)
        clip, self.config = backbone.load(params.backbone_folder)
        torch.manual_seed(seed)
        adapter = adapters.build(clip, params, variant)
        self.model = Retriever(clip, adapter).to(self.device)
        self.names = {
            "video": choose(params, "video", clip.visual, adapter.video.first_block),
            "text": choose(params, "text", clip.text, adapter.text.first_block),
        }
        self.video = Cache(params, self.names["video"], clip.visual)
        self.text = Cache(params, self.names["text"], clip.text)
        self.manifest = Manifest.read(params.data / "manifest")

    @property
    def adapter(self) -> adapters.Adapter:
        return self.model.adapter

    def split(self, name: str) -> Split:
        """The videos of a split that were had and decoded, and their captions."""
        part = self.manifest.split(name)
        videos = [id for id in part.videos.video_id if id in self.video]
        captions = part.captions[part.captions.video_id.isin(videos)].reset_index(drop=True)
        if captions.empty:
            raise UserError(f"{self.params.data / 'manifest'}: no usable video with a caption in split {name!r}")
        return Split(videos, captions, len(part.videos))

    @cached_property
    def digests(self) -> dict[str, str]:
        """What the run depends on: its parameters, the cached rows and captions, the weights, the code."""
        rows = {"video": self.video.keys, "text": self.text.keys, "splits": self.manifest.videos.split.tolist()}
        return {
            "params": params_digest(self.params, self.variant, self.seed),
            "data": digest(rows),
            "backbone": self.config["digest"],
            "code": code_digest(),
        }


def run_folder(params: Params, variant: str, seed: int) -> Path:
    """results/runs/VARIANT/seed-S, or results/ablations/… so that DVC sees no input of the default run in them."""
    group = "runs" if variant in params.variants else "ablations"
    return Path("results") / group / variant / f"seed-{seed}"


def options(params: Params, variant: str) -> dict[str, dict]:
    """A variant's option groups, defaults filled in."""
    groups = adapters.options(params, variant)
    return {name: group.model_dump(mode="json") for name, group in groups.items()}


def params_digest(params: Params, variant: str, seed: int) -> str:
    """Digest of the parameters that a run's results depend on, with defaults filled in."""
    return digest(
        {
            "adapter": params.all_variants[variant].adapter,
            "options": options(params, variant),
            "train": params.training(variant).model_dump(mode="json"),
            "runtime": params.runtime.model_dump(mode="json"),
            "seed": seed,
        }
    )


def code_digest() -> str:
    """Digest of the source that turns caches into adapters: towers, adapters, model, training."""
    from rap.training import stage as training

    packages = [Path(inspect.getfile(package)).parent for package in (adapters, retrieval)]
    files = [Path(inspect.getfile(module)) for module in (towers, caches, training)]
    files += [file for package in packages for file in sorted(package.glob("*.py"))]
    return digest({f"{file.parent.name}/{file.name}": digest_file(file) for file in files})
