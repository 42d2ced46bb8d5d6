"""A run is a variant trained with one seed: its model before training, and the facts of the finished training."""

from typing import Any, Literal

import torch

from rap import paths
from rap.adapters import registry
from rap.clip import backbone
from rap.errors import UserError
from rap.params import Params, Section
from rap.provenance import Record
from rap.retrieval.model import Retriever


class Run(Section):
    """The facts of a finished training, kept in its record run.json; every reader of a run uses this class."""

    variant: str
    seed: int
    dataset: str
    adapter: str
    options: dict[str, dict[str, Any]]  # with defaults filled in
    frames: dict[str, Any]
    train: dict[str, Any]
    caches: dict[str, str]  # by tower
    backbone: str
    weights: str  # digest of the backbone's weights
    parameters: int  # trainable
    selected: Literal["last", "val", "test"]
    selected_epoch: int
    epochs: int
    steps: int
    videos: int
    pairs: int


def read_run(folder: paths.RunFolder) -> tuple[Run, Record]:
    """The facts and the record of a finished training. Raises UserError if there is none, or it is damaged."""
    try:
        record = Record.read(folder.record)
    except FileNotFoundError:
        raise UserError(f"{folder.record}: not there; run `rap train` first") from None
    return Run(**record.facts), record


def new_model(params: Params, variant: str, seed: int, device: torch.device) -> tuple[Retriever, dict]:
    """The backbone with a variant's adapter, initialised from the seed, on a device; and the backbone's config."""
    clip, config = backbone.load(paths.backbone(params.backbone.name))
    torch.manual_seed(seed)
    return Retriever(clip, registry.build(clip, params, variant)).to(device), config
