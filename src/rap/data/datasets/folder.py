"""The dataset `folder`: your own videos, listed in a CSV or Parquet file and used where they are.

Columns: path (relative to the folder of the videos), caption, split; optional start and end, in seconds. Rows with the
same path, start and end are captions of one clip. A caption that repeats another of its clip is left out and counted.
A clip without captions can be searched; training and evaluation do not use it.
"""

import math
from pathlib import Path, PurePosixPath

import pandas as pd

from rap.data.manifest import SPLITS, Manifest, one_line
from rap.data.registry import DatasetInfo, annotations
from rap.errors import UserError
from rap.params import Params

REQUIRED = ("path", "caption", "split")
OPTIONAL = ("start", "end")


def videos_folder(params: Params) -> Path:
    """`dataset.videos`, or the folder of the table if it is null."""
    return Path(params.dataset.videos or annotations(params).parent)


DATASET = DatasetInfo(videos_folder)


def prepare(params: Params, videos: Path) -> Manifest:
    """Check the table row by row. Raises UserError with the file, the row and what to do.

    Rows are numbered as in a spreadsheet: the header is row 1.
    """
    file = annotations(params)
    if not videos.is_dir():
        raise UserError(
            f"dataset.videos: {videos} is not a folder; set it to the folder that the paths in {file} are relative to"
        )
    clips: dict[str, dict] = {}
    captions: dict[tuple[str, str], dict] = {}
    rows = 0
    for number, row in enumerate(read(file).to_dict("records"), start=2):
        try:
            clip = _clip(row, videos)
            known = clips.setdefault(clip["video_id"], clip)
            if known["split"] != clip["split"]:
                raise ValueError(f"{row['path']!r} is already in {known['split']}; a clip belongs to one split")
        except ValueError as error:
            raise UserError(f"{file}: row {number}: {error}") from None
        if caption := one_line(row["caption"]):
            new = {"caption_id": f"row-{number}", "video_id": clip["video_id"], "caption": caption}
            captions.setdefault((clip["video_id"], caption), new)
            rows += 1
    if not clips:
        raise UserError(f"{file}: no rows below the header; add one row per caption")
    repeated = rows - len(captions)
    silent = len(clips) - len({clip for clip, _ in captions})
    notes = [f"{repeated} rows repeat a caption of their clip: left out"] if repeated else []
    notes += [f"{silent} of {len(clips)} clips have no caption: they can only be searched"] if silent else []
    return Manifest.build(list(clips.values()), list(captions.values()), notes)


def read(file: Path) -> pd.DataFrame:
    """The table with REQUIRED and OPTIONAL columns, all cells as text; missing cells are empty."""
    try:
        if file.suffix == ".parquet":
            table = pd.read_parquet(file)
        else:
            table = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig", skip_blank_lines=False)
    except FileNotFoundError:
        raise UserError(f"dataset.annotations: {file} does not exist; set it to your CSV or Parquet file") from None
    except UnicodeDecodeError:
        raise UserError(f"{file}: not UTF-8; save it as UTF-8") from None
    except (OSError, ValueError) as error:  # ParserError, EmptyDataError and ArrowInvalid are ValueErrors
        raise UserError(f"{file}: cannot be read as a table: {one_line(str(error))}") from None
    for name in REQUIRED:
        if name not in table:
            raise UserError(
                f"{file}: no column {name!r}; the columns are {', '.join(REQUIRED)}, and optionally start and end"
            )
    return table.reindex(columns=[*REQUIRED, *OPTIONAL]).astype("string").fillna("")


def _clip(row: dict, videos: Path) -> dict:
    """A row of the manifest's videos. Raises ValueError with the error in the row and its remedy."""
    path = _inside(row["path"], videos)
    if row["split"] not in SPLITS:
        raise ValueError(f"unknown split {row['split']!r}; use one of {', '.join(SPLITS)}")
    start, end = (_seconds(row, name) for name in OPTIONAL)
    if start >= end:
        raise ValueError(f"start {start:g} is not before end {end:g}; give both in seconds of the video")
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
    """The normalised path. Raises ValueError if it leaves the folder: by `..`, as an absolute path, or by a link."""
    path = PurePosixPath(cell)
    if not path.name or "\0" in cell:
        raise ValueError("no path; give the path of the video")
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"path {cell!r} leaves the folder of the videos; make it relative to {videos}")
    if not (videos / path).resolve().is_relative_to(videos.resolve()):
        raise ValueError(f"path {cell!r} is a link out of the folder of the videos; put the video itself into {videos}")
    return str(path)


def _seconds(row: dict, name: str) -> float:
    """The time in a cell, in seconds; NaN if the cell is empty."""
    cell = row[name].strip()
    try:
        value = float(cell) if cell else math.nan
    except ValueError:
        value = -1.0
    if cell and not 0 <= value < math.inf:
        raise ValueError(f"{name} {cell!r} is not a time; give seconds of the video, or leave the cell empty")
    return value
