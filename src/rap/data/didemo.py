"""DiDeMo: personal videos of which annotators saw the first 30 seconds; one paragraph a video is its query.

Hendricks et al., "Localizing Moments in Video with Natural Language" (ICCV 2017). The descriptions of a video's
moments are joined, in the order of the file, as the peers do.
"""

from collections import defaultdict
from dataclasses import dataclass
from os.path import splitext
from pathlib import Path

from rap.data.benchmark import assemble, read_json
from rap.data.manifest import SPLITS, Manifest
from rap.params import Params

SEEN = 30.0  # seconds: six segments of five seconds, from the beginning


@dataclass(frozen=True)
class Moment:
    """One description, and the file name of its video."""

    video: str
    description: str


def prepare(params: Params, videos: Path) -> Manifest:
    """train_data.json, val_data.json and test_data.json list moments.

    Some videos stand there under two names that differ in the suffix alone, such as .mov and .mp4: they are one video.
    """
    splits, files, descriptions = defaultdict(list), {}, defaultdict(list)
    for name in SPLITS:
        file = Path(params.dataset.annotations) / f"{name}_data.json"
        for moment in read_json(file, params.dataset, list[Moment]):
            id = splitext(moment.video)[0]
            splits[name].append(id)
            files.setdefault(id, moment.video)
            descriptions[id].append(moment.description)
    paragraphs = {id: [" ".join(some)] for id, some in descriptions.items()}
    return assemble(splits, paragraphs, videos, files, SEEN)
