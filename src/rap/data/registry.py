"""The configured dataset: its information, its folder of videos and its manifest.

`rap.data.datasets` describes how to add a dataset.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from rap import paths
from rap.data.datasets import module
from rap.data.manifest import Manifest
from rap.errors import UserError
from rap.params import Params


def own_folder(params: Params) -> Path:
    """data/NAME/videos."""
    return paths.own_videos(params.dataset.name)


def named_folder(params: Params) -> Path:
    """`dataset.videos`, or data/NAME/videos if it is null."""
    return Path(params.dataset.videos) if params.dataset.videos else own_folder(params)


@dataclass(frozen=True)
class DatasetInfo:
    """The facts of a dataset that do not need its annotations."""

    videos: Callable[[Params], Path] = named_folder  # the folder that the paths of the manifest are relative to
    frames: int | None = None  # `frames.count` of published results; None: nothing is published
    max_words: int | None = None  # `features.max_words` of published results
    # Groups of the names of videos: `id` of the video at its site; `start` and `end` of the clip in it, in seconds.
    name_pattern: re.Pattern[str] | None = None
    holds_out: bool = False  # whether validation videos are taken from the training split


def info(name: str) -> DatasetInfo:
    """The information of a dataset; imports its module."""
    return import_module(module(name)).DATASET


def held_out(params: Params) -> int:
    """The number of val videos that published protocols train on."""
    return params.dataset.validation if info(params.dataset.name).holds_out else 0


def prepare(params: Params) -> Manifest:
    """The manifest of the configured dataset; its videos are not inspected yet."""
    return import_module(module(params.dataset.name)).prepare(params, videos_folder(params))


def videos_folder(params: Params) -> Path:
    """The folder that the paths of the manifest are relative to."""
    return info(params.dataset.name).videos(params)


def annotations(params: Params) -> Path:
    """`dataset.annotations`, for a dataset that needs it. Raises UserError if it is null."""
    dataset = params.dataset
    if dataset.annotations is None:
        raise UserError(
            f"dataset.annotations: {dataset.name} needs annotations; set it to their path "
            f"(`rap dataset use {dataset.name}` sets the usual one)"
        )
    return Path(dataset.annotations)


def departures(params: Params) -> list[str]:
    """One sentence for each parameter that differs from the settings of published results."""
    published = info(params.dataset.name)
    values = {
        "frames.count": (params.frames.count, published.frames),
        "features.max_words": (params.features.max_words, published.max_words),
    }
    return [
        f"{key} is {value}; published results on {params.dataset.name} use {usual}"
        for key, (value, usual) in values.items()
        if usual not in (None, value)
    ]
