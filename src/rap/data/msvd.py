"""MSVD: 1,200, 100 and 670 short clips with about 40 captions each; every caption of a test clip is a query.

Chen and Dolan, "Collecting Highly Parallel Data for Paraphrase Evaluation" (ACL 2011).
"""

from pathlib import Path

from pydantic import TypeAdapter

from rap.data.benchmark import absent, assemble, checked, read_json, read_text
from rap.data.manifest import SPLITS, Manifest
from rap.data.plainpickle import load
from rap.params import Dataset, Params

JSON, PICKLE = "captions_msvd.json", "raw-captions.pkl"
Captions = dict[str, list[str | list[str]]]  # by video: each a sentence, or its words


def prepare(params: Params, videos: Path) -> Manifest:
    """train_list.txt, val_list.txt and test_list.txt name the videos, one a line."""
    dataset, folder = params.dataset, Path(params.dataset.annotations)
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
    """captions_msvd.json; or, where that is not, raw-captions.pkl, which is read without executing it."""
    if (folder / JSON).exists():
        return read_json(folder / JSON, dataset, Captions)
    if not (folder / PICKLE).exists():
        raise absent(folder, f"{JSON} or {PICKLE}", dataset)
    return checked(folder / PICKLE, TypeAdapter(Captions).validate_python, load(folder / PICKLE))
