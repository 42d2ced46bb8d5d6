"""`rap dataset init`: list a folder's videos in a CSV that the user then fills with captions."""

import csv
from io import StringIO
from pathlib import Path

from rap.data.videos import SUFFIXES, video_files
from rap.errors import UserError
from rap.files import write_text
from rap.params import Params


def run(params: Params, folder: str) -> str:
    """Write FOLDER.csv beside the folder: a row for each video at any depth, in split test, without a caption.

    Raises UserError if the folder has no videos, or if the CSV exists: it may contain captions.
    """
    videos = Path(folder)
    target = videos.parent / f"{videos.resolve().name}.csv"
    if not videos.is_dir():
        raise UserError(f"{videos}: not a folder; name the folder of your videos")
    if target.exists():
        raise UserError(f"{target}: exists, and may contain captions; use it, or move it away")
    found = sorted(path for path in video_files(videos) if (videos / path).is_file())
    if not found:
        raise UserError(f"{videos}: no video in it; known suffixes are {', '.join(sorted(SUFFIXES))}")
    text = StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerows([("path", "caption", "split"), *((path.as_posix(), "", "test") for path in found)])
    write_text(target, text.getvalue())
    done = params.dataset.annotations == str(target) and params.dataset.videos == str(videos)
    return f"{target}: {len(found)} videos without captions" + (
        "" if done else f"; in params.yaml, set dataset.annotations to {target} and dataset.videos to {videos}"
    )
