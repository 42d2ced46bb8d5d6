"""`rap dataset init`: a folder's videos as a CSV, for captions to be written into."""

from pathlib import Path

import pandas as pd

from rap.errors import UserError
from rap.files import write_text
from rap.params import Params

SUFFIXES = {".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"}


def run(params: Params, folder: str) -> str:
    """Write FOLDER.csv beside the folder: a row for each video in it, at any depth, in split test, without a caption.

    Raises UserError if the folder has no videos, or the CSV is there: it may hold somebody's captions.
    """
    videos = Path(folder)
    target = videos.parent / f"{videos.resolve().name}.csv"
    if not videos.is_dir():
        raise UserError(f"{videos}: no folder; name the one that holds your videos")
    if target.exists():
        raise UserError(f"{target}: there already, and may hold captions; move it away or go on with it")
    found = sorted(path for path in videos.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise UserError(f"{videos}: no video in it; known are {', '.join(sorted(SUFFIXES))}")
    rows = pd.DataFrame({"path": [path.relative_to(videos).as_posix() for path in found]})
    write_text(target, rows.assign(caption="", split="test").to_csv(index=False, lineterminator="\n"))
    here = params.dataset.annotations == str(target) and params.dataset.videos == str(videos)
    return f"{target}: {len(found)} videos without captions" + (
        "" if here else f"; in params.yaml, set dataset.annotations to {target} and dataset.videos to {videos}"
    )
