"""ActivityNet Captions: long videos; the sentences of a video, joined, are one query. val_1 is the test split.

Krishna et al., "Dense-Captioning Events in Videos" (ICCV 2017). The sentences are joined in the order of the file, as
in published work; in nearly all videos this is the order in which the events begin. The files may be named v_ID.mp4, as
in the annotations, or ID.mp4.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from rap.data.benchmark import HELD_OUT, assemble, carve, read_json
from rap.data.manifest import Manifest
from rap.data.registry import DatasetInfo, annotations
from rap.params import Params

DATASET = DatasetInfo(frames=64, max_words=64, name_pattern=re.compile(r"v_(?P<id>.+)"), holds_out=True)


@dataclass(frozen=True)
class Video:
    sentences: list[str]


def prepare(params: Params, videos: Path) -> Manifest:
    """Read train.json and val_1.json, which map the id of a video to its sentences."""
    folder = annotations(params)
    train, test = (read_json(folder / f"{name}.json", params.dataset, dict[str, Video]) for name in ("train", "val_1"))
    splits = {**carve(train, params.dataset.validation), "test": test}
    paragraphs = {id: [" ".join(video.sentences)] for id, video in {**train, **test}.items()}
    remarks = {HELD_OUT: len(splits["val"])}
    return assemble(splits, paragraphs, videos, spellings=lambda id: [id.removeprefix("v_")], remarks=remarks)
