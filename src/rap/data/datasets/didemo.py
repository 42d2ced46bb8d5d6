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

from rap.data.benchmark import assemble, read_json, read_text
from rap.data.manifest import SPLITS, Manifest
from rap.data.registry import DatasetInfo, annotations
from rap.params import Dataset, Params

DATASET = DatasetInfo(frames=64, max_words=64, name_pattern=re.compile(r"[^_]+_(?P<id>\d+)_.+"))
ANNOTATED = 30.0  # seconds from the start: annotators saw six segments of five seconds


@dataclass(frozen=True)
class Moment:
    """One description and the file name of its video."""

    video: str
    description: str


def prepare(params: Params, videos: Path) -> Manifest:
    """Read train_data.json, val_data.json and test_data.json, which list moments.

    Some videos are listed under two names that differ only in the suffix, such as .mov and .mp4: they are one video,
    whose paragraph has the descriptions of both. With `paragraph: listed`, it has only the descriptions of the names in
    train_list.txt, val_list.txt and test_list.txt (of Collaborative Experts), and other videos are left out, as in
    CLIP4Clip.
    """
    dataset, folder, unlisted = params.dataset, annotations(params), 0
    files: dict[str, str] = {}
    official: dict[str, list[str]] = defaultdict(list)
    splits, descriptions = defaultdict(list), defaultdict(list)
    for name in SPLITS:
        listed = _listed(folder, name, dataset) if dataset.didemo.paragraph == "listed" else None
        for moment in read_json(folder / f"{name}_data.json", dataset, list[Moment]):
            if listed is not None and moment.video not in listed:
                unlisted += 1
                continue
            id = splitext(moment.video)[0]
            splits[name].append(id)
            files.setdefault(id, moment.video)
            official[id].append(moment.video)
            descriptions[id].append(moment.description)
    paragraphs = {id: [" ".join(some)] for id, some in descriptions.items()}
    twice = sum(len(set(names)) > 1 for names in official.values())
    remarks = {
        "videos have two names: their paragraph has the descriptions of both (dataset.didemo.paragraph)": twice,
        "descriptions belong to a name in no list: left out (dataset.didemo.paragraph)": unlisted,
    }
    return assemble(splits, paragraphs, videos, files, ANNOTATED, lambda id: official[id], remarks)


def _listed(folder: Path, name: str, dataset: Dataset) -> set[str]:
    """The names of videos in a list, one per line."""
    return {line.strip() for line in read_text(folder / f"{name}_list.txt", dataset).splitlines()}
