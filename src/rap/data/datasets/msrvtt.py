"""MSR-VTT with the 1k-A split (JSFusion): 20 captions for each training video, 1,000 test videos with one query each.

Xu et al., "MSR-VTT: A Large Video Description Dataset for Bridging Video and Language" (CVPR 2016); split: Yu et al.,
"A Joint Sequence Fusion Model for Video Question Answering and Retrieval" (ECCV 2018).
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from rap.data.benchmark import HELD_OUT, assemble, carve, read_csv, read_json
from rap.data.manifest import Manifest
from rap.data.registry import DatasetInfo, annotations
from rap.params import Params

DATASET = DatasetInfo(frames=12, max_words=32, holds_out=True)


@dataclass(frozen=True)
class Sentence:
    video_id: str
    caption: str


@dataclass(frozen=True)
class Release:
    """The part of MSRVTT_data.json that is read."""

    sentences: list[Sentence]


def prepare(params: Params, videos: Path) -> Manifest:
    """Read the training captions from MSRVTT_data.json, the training videos from MSRVTT_train.9k.csv or .7k.csv, and
    the test videos from MSRVTT_JSFUSION_test.csv.

    The query of a test video is its sentence in the CSV; its 20 captions in the JSON file are not used.
    """
    dataset, folder = params.dataset, annotations(params)
    test = read_csv(folder / "MSRVTT_JSFUSION_test.csv", dataset, "video_id", "sentence")
    train = read_csv(folder / f"MSRVTT_train.{dataset.msrvtt.train}.csv", dataset, "video_id").video_id
    queries, captions = defaultdict(list), defaultdict(list)
    for video, sentence in zip(test.video_id, test.sentence, strict=True):
        queries[video].append(sentence)
    for sentence in read_json(folder / "MSRVTT_data.json", dataset, Release).sentences:
        captions[sentence.video_id].append(sentence.caption)
    splits = {**carve(train, dataset.validation), "test": list(test.video_id)}
    return assemble(splits, {**captions, **queries}, videos, remarks={HELD_OUT: len(splits["val"])})
