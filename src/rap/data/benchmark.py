"""What the public benchmarks share: official files read and checked, videos found by name, odd rows counted.

The rules for odd rows are the same for all, and docs/datasets.md lists them.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from io import StringIO
from os.path import splitext
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import TypeAdapter, ValidationError

from rap.data.manifest import Manifest, one_line
from rap.errors import UserError
from rap.params import Dataset

PRECEDENCE = ("test", "val", "train")  # a video in several splits stays in the first: no test video is trained on
# Of several files of one name the first in this order is taken. Names of DiDeMo may end with a dot.
SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".mpg", ".mpeg", ".3gp", ".3g2", ".wmv", ".mts", ".m2ts")
SUFFIXES += (".ts", ".flv", ".ogv", ".", "")


def read_text(file: Path, dataset: Dataset) -> str:
    """An official file, in UTF-8 with or without a byte order mark. Raises UserError if it is not there."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        raise absent(file.parent, file.name, dataset) from None
    except UnicodeDecodeError:
        raise UserError(f"{file}: not in UTF-8; fetch it again") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from None


def absent(folder: Path, name: str, dataset: Dataset) -> UserError:
    return UserError(
        f"dataset.annotations: {folder} has no {name}; name the folder of {dataset.name}'s official files "
        f"(docs/datasets.md says which; `rap dataset use {dataset.name}` sets the usual one)"
    )


def read_json(file: Path, dataset: Dataset, type_: Any) -> Any:
    """A JSON file as an object of `type_`; keys that it does not name are ignored. Raises UserError saying where."""
    return checked(file, TypeAdapter(type_).validate_json, read_text(file, dataset))


def checked(file: Path, validate: Callable[[Any], Any], value: Any) -> Any:
    """What `validate` makes of a value; what is wrong in it becomes one line that names the file and the place."""
    try:
        return validate(value)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, problem["loc"]))
        raise UserError(f"{file}: {place or 'all of it'}: {problem['msg']}; fetch the official file again") from None


def read_csv(file: Path, dataset: Dataset, *columns: str) -> pd.DataFrame:
    """Columns of a CSV file, all cells as text."""
    try:
        table = pd.read_csv(StringIO(read_text(file, dataset)), dtype=str, keep_default_na=False)
    except ValueError as error:  # ParserError and EmptyDataError are ValueErrors
        raise UserError(f"{file}: cannot be read as a table: {one_line(str(error))}") from None
    if missing := [name for name in columns if name not in table]:
        raise UserError(f"{file}: no column {missing[0]!r}; fetch the official file again")
    return table[list(columns)]


def carve(videos: Iterable[str], size: int) -> dict[str, list[str]]:
    """Training videos into train and val: val are the `size` videos whose ids have the smallest SHA-256.

    The choice depends on the ids alone, not on their order, and a larger `size` keeps those of a smaller one.
    """
    videos = list(dict.fromkeys(videos))
    if 0 < len(videos) <= size:
        raise UserError(f"dataset.validation: {size} leaves none of {len(videos)} videos to train on; lower it")
    chosen = set(sorted(videos, key=lambda id: hashlib.sha256(id.encode()).digest())[:size])
    return {
        "train": [id for id in videos if id not in chosen],
        "val": [id for id in videos if id in chosen],
    }


def assemble(
    splits: Mapping[str, Iterable[str]],
    captions: Mapping[str, list[str]],
    videos: Path,
    files: Mapping[str, str] | None = None,
    end: float | None = None,
) -> Manifest:
    """The manifest of a benchmark, with notes on what is odd in the annotations.

    `splits`: ids of the videos of train, val and test. `captions`: by video id, in the official order, from which a
    caption has its number. `files`: official file names, of videos that are not found and have another than ID.mp4.
    `end`: seconds after which all clips end. Raises UserError if `videos` is no folder, or a name is no plain name.
    """
    if not videos.is_dir():
        raise UserError(f"dataset.videos: {videos} is no folder; make it, and put the videos there or name theirs")
    ids, present = {split: list(dict.fromkeys(splits[split])) for split in splits}, by_stem(videos)
    home = {id: split for split in reversed(PRECEDENCE) for id in ids.get(split, ())}
    texts = {id: [one_line(text) for text in captions.get(id, ())] for id in home}
    clips, rows = [], []
    for split, members in ids.items():
        for id in members:
            if home[id] != split or not any(texts[id]):
                continue
            path = present.get(plain(id), [plain((files or {}).get(id, f"{id}.mp4"))])[0]
            clips.append({"video_id": id, "path": path, "split": split, "end": end, "status": "ok"})
            numbered = enumerate(texts[id])
            rows += [{"caption_id": f"{id}#{n}", "video_id": id, "caption": text} for n, text in numbered if text]
    if not clips:
        raise UserError("dataset.annotations: no video with a caption; fetch the official files again")
    return Manifest.build(clips, rows, notes(ids, home, texts, captions, present))


def notes(ids: dict, home: dict, texts: dict, captions: Mapping[str, list[str]], present: dict) -> list[str]:
    """In words, what is odd: only what there is any of."""
    unlisted = [id for id in captions if id not in home]
    kept = [[text for text in some if text] for some in texts.values()]
    counts = {
        "videos stand in several splits: taken for test, or else val": sum(map(len, ids.values())) - len(home),
        "videos have no caption: left out": sum(not some for some in kept),
        "captions are empty: left out": sum(map(len, texts.values())) - sum(map(len, kept)),
        "captions repeat another of their video: kept, as the protocol has them": sum(
            len(some) - len(set(some)) for some in kept
        ),
        f"captions are of {len(unlisted)} videos that no split lists: left out": sum(
            len(captions[id]) for id in unlisted
        ),
        "videos have several files: the first by kind is taken (mp4, mkv, webm, …)": sum(
            len(present.get(id, ())) > 1 for id in home
        ),
    }
    return [f"{count} {what}" for what, count in counts.items() if count]


def by_stem(folder: Path) -> dict[str, list[str]]:
    """Paths of the videos in a folder and its sub-folders, relative to it, by their names without the suffix.

    Hidden folders are passed over, and links to folders are not followed.
    """
    found: dict[str, list[tuple[int, str]]] = {}
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            stem, suffix = splitext(name)
            if suffix.lower() in SUFFIXES:
                path = (Path(where) / name).relative_to(folder).as_posix()
                found.setdefault(stem, []).append((SUFFIXES.index(suffix.lower()), path))
    return {stem: [path for _, path in sorted(files)] for stem, files in found.items()}


def plain(name: str) -> str:
    """The name, if it is one of a file. Raises UserError if it would lead elsewhere."""
    if "/" in name or "\0" in name or name in ("", ".", ".."):
        raise UserError(f"dataset.annotations: {name!r} is no name of a video; fetch the official files again")
    return name
