"""A run: a variant trained with one seed. Its facts and its costs."""

from typing import Any, Literal

from rap import paths
from rap.params import Section
from rap.provenance import Record


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


class Costs(Section):
    """Times and memory of a training, in costs.json; None: unknown.

    They vary, so no record covers them: the file has its own checksum.
    """

    began: float | None = None  # of the process, in seconds since 1970; MLflow shows both
    ended: float | None = None
    train_seconds: float | None = None
    peak_memory_bytes: int | None = None
    cache_bytes: int | None = None
    flops_per_clip: int | None = None
    index_bytes_per_video: int | None = None
    device: str = "unknown"


def read_run(folder: paths.RunFolder) -> tuple[Run, Record]:
    """The facts and the record of a finished training. Raises UserError if there is none, or it is damaged."""
    record = Record.open(folder.record, "rap train")
    return Run(**record.facts), record
