"""`rap dataset init`: list a folder's videos, or spans of them, in a CSV that the user then fills with captions."""

import csv
import re
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

from rap.data.videos import SUFFIXES, video_files
from rap.download.shots import shots
from rap.errors import UserError
from rap.files import write_text
from rap.frames.ffmpeg import VideoError
from rap.frames.probe import probe
from rap.params import Params
from rap.paths import DVC
from rap.progress import note, progress

UNITS = {"s": 1, "m": 60, "h": 3600}


def run(params: Params, folder: str, every: str | None = None, by_shots: bool = False) -> str:
    """Write FOLDER.csv beside the folder: a row for each video at any depth, in split test, without a caption.

    With `every`, such as 10s or 1m, a row for each span of that length. With `by_shots`, a row for each shot; shots
    longer than `every` are divided. Raises UserError if the folder has no videos, or if the CSV exists: it may contain
    captions.
    """
    videos = Path(folder)
    target = videos.parent / f"{videos.resolve().name}.csv"
    length = seconds(every) if every else None
    if not videos.is_dir():
        raise UserError(f"{videos}: not a folder; name the folder of your videos")
    if target.exists():
        raise UserError(f"{target}: exists, and may contain captions; use it, or move it away")
    found = sorted(path for path in video_files(videos) if (videos / path).is_file() and _is_one_line(path))
    if not found:
        raise UserError(f"{videos}: no video in it; known suffixes are {', '.join(sorted(SUFFIXES))}")
    in_spans = bool(length) or by_shots
    rows = [
        row
        for path in progress(found, "videos", unit="video", disable=not in_spans)
        for row in (_rows(videos, path, length, by_shots) if in_spans else [(path.as_posix(), "", "test")])
    ]
    text = StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerows([("path", "caption", "split", *(("start", "end") if in_spans else ())), *rows])
    write_text(target, text.getvalue())
    done = params.dataset.annotations == str(target) and params.dataset.videos == str(videos)
    listed = f"{len(found)} videos in {len(rows)} spans" if in_spans else f"{len(found)} videos"
    left = f"; set dataset.annotations to {target} and dataset.videos to {videos} in params.yaml"
    left += ", then `rap graph --write`" if DVC.exists() else ""
    return f"{target}: {listed}, without captions{'' if done else left}"


def _is_one_line(path: Path) -> bool:
    """Whether the name fits into one row of a table; if not, the video is skipped with a note."""
    if str(path).isprintable():
        return True
    note(f"{str(path)!r}: left out: a line break or control character in the name; rename it")
    return False


def seconds(text: str) -> float:
    """The length that "10s", "1.5m" or "10" means. Raises UserError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([smh]?)", text.strip())
    if not found or float(found[1]) == 0:
        raise UserError(f"--every {text}: not a length of time; write one such as 10s, 1m or 0.5h")
    return float(found[1]) * UNITS[found[2] or "s"]


def spans(end: float, length: float) -> list[tuple[float, float]]:
    """Spans of `length` seconds from 0 to `end`. A remainder shorter than half a span is added to the last one."""
    count = max(1, int(end / length + 0.5))
    starts = [number * length for number in range(count)]
    return list(zip(starts, [*starts[1:], end], strict=True))


def _rows(folder: Path, path: Path, length: float | None, by_shots: bool) -> Iterator[tuple]:
    row = (path.as_posix(), "", "test")
    try:
        end = probe(folder / path).end
        parts = shots(folder / path, end) if by_shots else [(0.0, end)]
    except VideoError as error:  # `rap download` counts it as failed
        note(f"{folder / path}: {error}; listed as a whole")
        yield (*row, "", "")
        return
    for begin, stop in parts:
        for start, until in spans(stop - begin, length) if length else [(0.0, stop - begin)]:
            yield (*row, f"{begin + start:.2f}", f"{begin + until:.2f}")
