"""MSVD: 1,200 training, 100 validation and 670 test clips with about 40 captions each; every test caption is a query.

Chen and Dolan, "Collecting Highly Parallel Data for Paraphrase Evaluation" (ACL 2011).
"""

import re
from pathlib import Path

from pydantic import TypeAdapter

from rap.data.benchmark import absent, assemble, checked, read_json, read_text
from rap.data.manifest import SPLITS, Manifest
from rap.data.plainpickle import load
from rap.data.registry import DatasetInfo, annotations
from rap.params import Dataset, Params

DATASET = DatasetInfo(frames=12, max_words=32, name_pattern=re.compile(r"(?P<id>.+)_(?P<start>\d+)_(?P<end>\d+)"))
JSON, PICKLE = "captions_msvd.json", "raw-captions.pkl"
Captions = dict[str, list[str | list[str]]]  # video id to captions; a caption is a sentence or a list of words


def prepare(params: Params, videos: Path) -> Manifest:
    """Read train_list.txt, val_list.txt and test_list.txt, with one video per line, and the captions."""
    dataset, folder = params.dataset, annotations(params)
    splits = {}
    for name in SPLITS:
        lines = map(str.strip, read_text(folder / f"{name}_list.txt", dataset).splitlines())
        splits[name] = [line for line in lines if line]
    captions = {
        id: [text if isinstance(text, str) else " ".join(text) for text in some]
        for id, some in read_captions(folder, dataset).items()
    }
    return assemble(splits, captions, videos)


def read_captions(folder: Path, dataset: Dataset) -> Captions:
    """Read captions_msvd.json, or, if it is absent, raw-captions.pkl, without executing anything in it."""
    if (folder / JSON).exists():
        return read_json(folder / JSON, dataset, Captions)
    if not (folder / PICKLE).exists():
        raise absent(folder, f"{JSON} or {PICKLE}", dataset)
    return checked(folder / PICKLE, TypeAdapter(Captions).validate_python, load(folder / PICKLE))
