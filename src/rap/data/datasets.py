"""The datasets by name. To add one: a module with `prepare`, a line in DATASETS, its name in `rap.params.Dataset`.

`prepare(params, videos) -> Manifest` gives the manifest of the videos in the folder `videos`, which it may fill; it
leaves `digest` empty, because the download stage looks at every file afterwards.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from rap.data.manifest import Manifest
from rap.params import Params


def _own_folder(params: Params) -> Path:
    return params.data / "videos"


def _users_folder(params: Params) -> Path:
    return Path(params.dataset.videos or Path(params.dataset.annotations).parent)


@dataclass(frozen=True)
class Dataset:
    module: str
    videos: Callable[[Params], Path]


DATASETS = {
    "demo": Dataset("rap.data.demo", _own_folder),
    "folder": Dataset("rap.data.folder", _users_folder),
}


def videos_folder(params: Params) -> Path:
    """The folder that the paths of the manifest are relative to."""
    return DATASETS[params.dataset.name].videos(params)


def prepare(params: Params) -> Manifest:
    """The configured dataset's manifest, its videos in place but not yet looked at."""
    return import_module(DATASETS[params.dataset.name].module).prepare(params, videos_folder(params))
