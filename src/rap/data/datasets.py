"""The datasets by name. To add one: a module with `prepare`, a line in DATASETS, its name in `rap.params.Dataset`.

`prepare(params, videos) -> Manifest` gives the manifest of the videos in the folder `videos`, which it may fill; it
leaves `digest` empty, because the download stage looks at every file afterwards.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from rap import paths
from rap.data.manifest import Manifest
from rap.params import Params


def _own_folder(params: Params) -> Path:
    return paths.own_videos(params.dataset.name)


def _users_folder(params: Params) -> Path:
    return Path(params.dataset.videos or Path(params.dataset.annotations).parent)


def _named_folder(params: Params) -> Path:
    return Path(params.dataset.videos) if params.dataset.videos else _own_folder(params)


@dataclass(frozen=True)
class Dataset:
    """`frames` and `max_words` are what published figures were made with; None: no such custom."""

    module: str
    videos: Callable[[Params], Path]
    frames: int | None = None
    max_words: int | None = None


DATASETS = {
    "demo": Dataset("rap.demo", _own_folder),
    "folder": Dataset("rap.data.folder", _users_folder),
    "msrvtt": Dataset("rap.data.msrvtt", _named_folder, 12, 32),
    "msvd": Dataset("rap.data.msvd", _named_folder, 12, 32),
    "didemo": Dataset("rap.data.didemo", _named_folder, 64, 64),
    "activitynet": Dataset("rap.data.activitynet", _named_folder, 64, 64),
}


def videos_folder(params: Params) -> Path:
    """The folder that the paths of the manifest are relative to."""
    return DATASETS[params.dataset.name].videos(params)


def prepare(params: Params) -> Manifest:
    """The configured dataset's manifest, its videos in place but not yet looked at."""
    return import_module(DATASETS[params.dataset.name].module).prepare(params, videos_folder(params))


def departures(params: Params) -> list[str]:
    """In words, where the parameters differ from those that a benchmark's published figures were made with."""
    usual = DATASETS[params.dataset.name]
    pairs = {
        "frames.count": (params.frames.count, usual.frames),
        "features.max_words": (params.features.max_words, usual.max_words),
    }
    return [
        f"{key} is {set_} where {params.dataset.name}'s published figures have {custom}"
        for key, (set_, custom) in pairs.items()
        if custom not in (None, set_)
    ]
