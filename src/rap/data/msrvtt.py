"""MSR-VTT with the 1k-A split (JSFusion): 20 captions a training video, 1,000 test videos with one query each.

Xu et al., "MSR-VTT: A Large Video Description Dataset for Bridging Video and Language" (CVPR 2016); the split of Yu et
al., "A Joint Sequence Fusion Model for Video Question Answering and Retrieval" (ECCV 2018).
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from rap.data.benchmark import assemble, carve, read_csv, read_json
from rap.data.manifest import Manifest
from rap.params import Params


@dataclass(frozen=True)
class Sentence:
    video_id: str
    caption: str


@dataclass(frozen=True)
class Release:
    """What is read of MSRVTT_data.json."""

    sentences: list[Sentence]


def prepare(params: Params, videos: Path) -> Manifest:
    """MSRVTT_data.json has the training captions, MSRVTT_train.9k.csv or .7k.csv the training videos, and
    MSRVTT_JSFUSION_test.csv the test: its sentence is the query of a video, not the 20 captions of the JSON file."""
    dataset, folder = params.dataset, Path(params.dataset.annotations)
    test = read_csv(folder / "MSRVTT_JSFUSION_test.csv", dataset, "video_id", "sentence")
    train = read_csv(folder / f"MSRVTT_train.{dataset.msrvtt.train}.csv", dataset, "video_id").video_id
    queries, captions = defaultdict(list), defaultdict(list)
    for row in test.itertuples():
        queries[row.video_id].append(row.sentence)
    for sentence in read_json(folder / "MSRVTT_data.json", dataset, Release).sentences:
        captions[sentence.video_id].append(sentence.caption)
    splits = {**carve(train, dataset.validation), "test": test.video_id}
    return assemble(splits, {**captions, **queries}, videos)
