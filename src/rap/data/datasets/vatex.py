"""VATEX: clips of ten seconds with ten English captions each; all captions of the 1,500 test clips are queries.

Wang et al., "VaTeX: A Large-Scale, High-Quality Multilingual Dataset for Video-and-Language Research" (ICCV 2019). The
split of published retrieval results is that of HGR (Chen et al., CVPR 2020): 25,991 training clips, and the official
validation clips in two halves. The files may be named ID_START_END.mp4, as in the annotations, or ID.mp4.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from rap.data.benchmark import assemble, read_json, read_text
from rap.data.manifest import SPLITS, Manifest
from rap.data.registry import DatasetInfo, annotations
from rap.params import Params

SPAN = re.compile(r"(?P<id>.+)_(?P<start>\d{6})_(?P<end>\d{6})")
DATASET = DatasetInfo(frames=12, max_words=32, name_pattern=SPAN)
FILES = ("vatex_training_v1.0.json", "vatex_validation_v1.0.json")


@dataclass(frozen=True)
class Video:
    """The part of an entry that is read."""

    videoID: str
    enCap: list[str]


def prepare(params: Params, videos: Path) -> Manifest:
    """Read train_list.txt, val_list.txt and test_list.txt, with one clip per line, and the English captions."""
    dataset, folder = params.dataset, annotations(params)
    captions = {
        video.videoID: video.enCap for name in FILES for video in read_json(folder / name, dataset, list[Video])
    }
    lists = {split: read_text(folder / f"{split}_list.txt", dataset).splitlines() for split in SPLITS}
    splits = {split: [line.strip() for line in lines if line.strip()] for split, lines in lists.items()}
    return assemble(splits, captions, videos, spellings=lambda id: [SPAN.sub(r"\g<id>", id)])
