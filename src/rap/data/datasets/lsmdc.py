"""LSMDC: short clips of movies with one sentence each; the public test of the challenge has 1,000 clips.

Rohrbach et al., "Movie Description" (IJCV 2017), with the files of the challenge of 2016. They are tab-separated tables
without a header: clip, start and end aligned, start and end extracted, sentence. The clips are named MOVIE/CLIP.avi;
they are found in any folder.
"""

import csv
from io import StringIO
from pathlib import Path

import pandas as pd

from rap.data.benchmark import assemble, read_text
from rap.data.manifest import Manifest
from rap.data.registry import DatasetInfo, annotations
from rap.errors import UserError
from rap.params import Params

DATASET = DatasetInfo(frames=12, max_words=32)
FILES = {
    "train": "LSMDC16_annos_training.csv",
    "val": "LSMDC16_annos_val.csv",
    "test": "LSMDC16_challenge_1000_publictect.csv",
}
COLUMNS = ("clip", "start_aligned", "end_aligned", "start_extracted", "end_extracted", "sentence")


def prepare(params: Params, videos: Path) -> Manifest:
    """Read the clips and the sentence of each from the three files of the challenge."""
    folder = annotations(params)
    splits: dict[str, list[str]] = {}
    captions: dict[str, list[str]] = {}
    for split, name in FILES.items():
        rows = _rows(folder / name, params)
        splits[split] = rows["clip"].tolist()
        captions |= {clip: [sentence] for clip, sentence in zip(rows["clip"], rows["sentence"], strict=True)}
    return assemble(splits, captions, videos, files={clip: f"{clip}.avi" for clip in captions})


def _rows(file: Path, params: Params) -> pd.DataFrame:
    """The clips and sentences of a file; quotes are ordinary characters."""
    text = read_text(file, params.dataset)
    try:
        rows = pd.read_csv(
            StringIO(text), sep="\t", header=None, dtype=str, keep_default_na=False, quoting=csv.QUOTE_NONE
        )
    except ValueError:
        raise UserError(f"{file}: cannot be read as a table; download it again") from None
    if rows.shape[1] != len(COLUMNS):
        raise UserError(f"{file}: {rows.shape[1]} columns in place of {len(COLUMNS)}; download it again")
    return rows.set_axis(COLUMNS, axis=1)
