"""DiDeMo: personal videos; the descriptions of a video's moments, joined, are one query.

Hendricks et al., "Localizing Moments in Video with Natural Language" (ICCV 2017). The descriptions are joined in the
order of the file, as in published work. The files may be named as in the annotations (NAME.mov, …), NAME.mp4, or
NAME.mov.mp4.
"""

import re
from collections import defaultdict
from dataclasses import dataclass
from os.path import splitext
from pathlib import Path

from rap.data.benchmark import assemble, read_json
from rap.data.manifest import SPLITS, Manifest
from rap.data.registry import DatasetInfo, annotations
from rap.params import Params

DATASET = DatasetInfo(frames=64, max_words=64, name_pattern=re.compile(r"[^_]+_(?P<id>\d+)_.+"))
ANNOTATED = 30.0  # seconds from the start: annotators saw six segments of five seconds


@dataclass(frozen=True)
class Moment:
    """One description and the file name of its video."""

    video: str
    description: str


def prepare(params: Params, videos: Path) -> Manifest:
    """Read train_data.json, val_data.json and test_data.json, which list moments.

    Some videos are listed under two names that differ only in the suffix, such as .mov and .mp4: they are one video.
    """
    files: dict[str, str] = {}
    official: dict[str, list[str]] = defaultdict(list)
    splits, descriptions = defaultdict(list), defaultdict(list)
    for name in SPLITS:
        for moment in read_json(annotations(params) / f"{name}_data.json", params.dataset, list[Moment]):
            id = splitext(moment.video)[0]
            splits[name].append(id)
            files.setdefault(id, moment.video)
            official[id].append(moment.video)
            descriptions[id].append(moment.description)
    paragraphs = {id: [" ".join(some)] for id, some in descriptions.items()}
    return assemble(splits, paragraphs, videos, files, ANNOTATED, spellings=lambda id: official[id])
