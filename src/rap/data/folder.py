"""The dataset `folder`: your own videos, listed in a CSV or Parquet file, used where they are.

Columns: path (relative to the folder of the videos), caption, split; optional start and end, in seconds. Rows that
repeat a path (and its start and end) are further captions of the same clip; a caption that a clip has already is
counted and left out. A clip without any caption can be searched, and takes no part in training and evaluation.
"""

import math
from pathlib import Path, PurePosixPath

import pandas as pd

from rap.data.manifest import SPLITS, Manifest, one_line
from rap.errors import UserError
from rap.params import Params

REQUIRED = ("path", "caption", "split")
OPTIONAL = ("start", "end")


def prepare(params: Params, videos: Path) -> Manifest:
    """Check `dataset.annotations` row by row. Raises UserError that names the file, the row and what to do.

    Rows are counted as in a spreadsheet: the header is row 1.
    """
    file = Path(params.dataset.annotations)
    if not videos.is_dir():
        raise UserError(f"dataset.videos: {videos} is no folder; name the one that the paths of {file} are relative to")
    clips: dict[str, dict] = {}
    captions: dict[tuple[str, str], dict] = {}
    rows = 0
    for number, row in enumerate(read(file).to_dict("records"), start=2):
        try:
            clip = _clip(row, videos)
            known = clips.setdefault(clip["video_id"], clip)
            if known["split"] != clip["split"]:
                raise ValueError(f"{row['path']!r} is in {known['split']} already; a clip belongs to one split")
        except ValueError as error:
            raise UserError(f"{file}: row {number}: {error}") from None
        if caption := one_line(row["caption"]):
            new = {"caption_id": f"row-{number}", "video_id": clip["video_id"], "caption": caption}
            captions.setdefault((clip["video_id"], caption), new)
            rows += 1
    if not clips:
        raise UserError(f"{file}: no rows under the header; add one for each caption")
    repeated = rows - len(captions)
    silent = len(clips) - len({clip for clip, _ in captions})
    notes = [f"{repeated} rows repeat a caption of their clip: left out"] if repeated else []
    notes += [f"{silent} of {len(clips)} clips have no caption: they can be searched, no more"] if silent else []
    return Manifest.build(list(clips.values()), list(captions.values()), notes)


def read(file: Path) -> pd.DataFrame:
    """The table with all its cells as text, absent ones empty."""
    try:
        if file.suffix == ".parquet":
            table = pd.read_parquet(file)
        else:
            table = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig", skip_blank_lines=False)
    except FileNotFoundError:
        raise UserError(f"dataset.annotations: {file} is not there; name your CSV or Parquet file") from None
    except UnicodeDecodeError:
        raise UserError(f"{file}: not in UTF-8; save it in that encoding") from None
    except (OSError, ValueError) as error:  # ParserError, EmptyDataError and ArrowInvalid are ValueErrors
        raise UserError(f"{file}: cannot be read as a table: {' '.join(str(error).split())}") from None
    for name in REQUIRED:
        if name not in table:
            raise UserError(f"{file}: no column {name!r}; it needs {', '.join(REQUIRED)}, and may have start and end")
    return table.reindex(columns=[*REQUIRED, *OPTIONAL]).astype("string").fillna("")


def _clip(row: dict, videos: Path) -> dict:
    """A row of the manifest's videos. Raises ValueError saying what is wrong with the cells and what to do."""
    path = _inside(row["path"], videos)
    if row["split"] not in SPLITS:
        raise ValueError(f"unknown split {row['split']!r}; use one of {', '.join(SPLITS)}")
    start, end = (_seconds(row, name) for name in OPTIONAL)
    if start >= end:
        raise ValueError(f"start {start:g} is not before end {end:g}; give seconds into the video")
    span = f"@{row['start']}-{row['end']}" if row["start"] or row["end"] else ""
    return {
        "video_id": f"{path}{span}",
        "path": path,
        "split": row["split"],
        "start": start,
        "end": end,
        "status": "ok",
    }


def _inside(cell: str, videos: Path) -> str:
    """The path in its plainest form. It must not lead out of the folder, by `..`, from the root, or by a link."""
    path = PurePosixPath(cell)
    if not path.name or "\0" in cell:
        raise ValueError("no path; name the video")
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"path {cell!r} leaves the folder of the videos; make it relative to {videos}")
    if not (videos / path).resolve().is_relative_to(videos.resolve()):
        raise ValueError(f"path {cell!r} is a link out of the folder of the videos; put the video itself into {videos}")
    return str(path)


def _seconds(row: dict, name: str) -> float:
    cell = row[name].strip()
    try:
        value = float(cell) if cell else math.nan
    except ValueError:
        value = -1.0
    if cell and not 0 <= value < math.inf:
        raise ValueError(f"{name} {cell!r} is no time; give seconds into the video, or leave it empty")
    return value
