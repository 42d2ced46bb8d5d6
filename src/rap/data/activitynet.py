"""ActivityNet Captions: videos of minutes, whose sentences are joined to one paragraph, the query. val_1 is the test.

Krishna et al., "Dense-Captioning Events in Videos" (ICCV 2017). The sentences are joined in the order of the file, as
the peers do; it is that of their beginnings for nearly all videos.
"""

from dataclasses import dataclass
from pathlib import Path

from rap.data.benchmark import assemble, carve, read_json
from rap.data.manifest import Manifest
from rap.params import Params


@dataclass(frozen=True)
class Video:
    sentences: list[str]


def prepare(params: Params, videos: Path) -> Manifest:
    """train.json and val_1.json: by video id, its sentences."""
    dataset, folder = params.dataset, Path(params.dataset.annotations)
    train, test = (read_json(folder / f"{name}.json", dataset, dict[str, Video]) for name in ("train", "val_1"))
    splits = {**carve(train, dataset.validation), "test": test}
    paragraphs = {id: [" ".join(video.sentences)] for id, video in {**train, **test}.items()}
    return assemble(splits, paragraphs, videos)
