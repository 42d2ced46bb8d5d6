"""Code shared by the public benchmarks: read and check official files, find videos by name, count irregular rows.

The rules for irregular rows are the same for all benchmarks; docs/datasets.md lists them.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from io import StringIO
from os.path import splitext
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd
from pydantic import TypeAdapter, ValidationError

from rap.data.manifest import Manifest, one_line
from rap.data.videos import SUFFIXES, video_files
from rap.errors import UserError
from rap.params import Dataset

PRECEDENCE = ("test", "val", "train")  # a video in several splits stays in the first: no test video is trained on
KNOWN = (*SUFFIXES, ".", "")  # file names in DiDeMo may end with a dot, or have no suffix


def read_text(file: Path, dataset: Dataset) -> str:
    """An official file, in UTF-8 with or without a byte order mark. Raises UserError if it cannot be read."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        raise absent(file.parent, file.name, dataset) from None
    except UnicodeDecodeError:
        raise UserError(f"{file}: not UTF-8; download it again") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from None


def absent(folder: Path, name: str, dataset: Dataset) -> UserError:
    """The error for an official file that does not exist."""
    return UserError(
        f"dataset.annotations: {folder} has no {name}; set it to the folder of {dataset.name}'s official files "
        f"(docs/datasets.md lists them; `rap dataset use {dataset.name}` sets the usual folder)"
    )


def read_json(file: Path, dataset: Dataset, type_: Any) -> Any:
    """A JSON file as an object of `type_`, without other keys. Raises UserError with the file and the place."""
    return checked(file, TypeAdapter(type_).validate_json, read_text(file, dataset))


def checked(file: Path, validate: Callable[[Any], Any], value: Any) -> Any:
    """`validate(value)`. Turns pydantic's error into a UserError of one line, with the file and the place."""
    try:
        return validate(value)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, problem["loc"]))
        raise UserError(
            f"{file}: {place or 'whole file'}: {problem['msg']}; download the official file again"
        ) from None


def read_csv(file: Path, dataset: Dataset, *columns: str) -> pd.DataFrame:
    """The given columns of a CSV file, all cells as text."""
    try:
        table = pd.read_csv(StringIO(read_text(file, dataset)), dtype=str, keep_default_na=False)
    except ValueError as error:  # ParserError and EmptyDataError are ValueErrors
        raise UserError(f"{file}: cannot be read as a table: {one_line(str(error))}") from None
    if missing := [name for name in columns if name not in table]:
        raise UserError(f"{file}: no column {missing[0]!r}; download the official file again")
    return table[list(columns)]


def carve(videos: Iterable[str], size: int) -> dict[str, list[str]]:
    """Split training videos into train and val: val gets the `size` videos whose ids have the smallest SHA-256.

    The choice depends only on the ids, not on their order, and a larger `size` keeps the videos of a smaller one.
    """
    videos = list(dict.fromkeys(videos))
    if 0 < len(videos) <= size:
        raise UserError(f"dataset.validation: {size} leaves none of {len(videos)} videos to train on; lower it")
    chosen = set(sorted(videos, key=lambda id: hashlib.sha256(id.encode()).digest())[:size])
    return {
        "train": [id for id in videos if id not in chosen],
        "val": [id for id in videos if id in chosen],
    }


HELD_OUT = "training videos are held out as val (dataset.validation)"


def assemble(
    splits: Mapping[str, Iterable[str]],
    captions: Mapping[str, list[str]],
    videos: Path,
    files: Mapping[str, str] | None = None,
    end: float | None = None,
    spellings: Callable[[str], Iterable[str]] = lambda id: (),
    remarks: Mapping[str, int] = MappingProxyType({}),
) -> Manifest:
    """The manifest of a benchmark, with notes on irregular rows in its annotations.

    `splits`: video ids of train, val and test. `captions`: captions by video id, in the official order, which numbers
    them. `files`: official file names, used for videos that are not found; default ID.mp4. `end`: the second at which
    every clip ends. `spellings`: other names, without the suffix, that the file of a video may have. `remarks`:
    further notes, "videos are …", with their counts. Raises UserError if `videos` is not a folder, or an id is not a
    plain file name.
    """
    if not videos.is_dir():
        raise UserError(f"dataset.videos: {videos} is not a folder; create it and put the videos there, or set it")
    ids = {split: list(dict.fromkeys(splits[split])) for split in splits}
    stems, names = by_stem(videos), list(dict.fromkeys(plain(id) for members in ids.values() for id in members))
    spelt = {id: next((name for name in (id, *spellings(id)) if name in stems), id) for id in names}
    present = {id: stems[name] for id, name in spelt.items() if name in stems}
    home = {id: split for split in reversed(PRECEDENCE) for id in ids.get(split, ())}
    texts = {id: [one_line(text) for text in captions.get(id, ())] for id in home}
    clips, rows = [], []
    for split, members in ids.items():
        for id in members:
            if home[id] != split or not any(texts[id]):
                continue
            path = present.get(id, [plain((files or {}).get(id, f"{id}.mp4"))])[0]
            clips.append({"video_id": id, "path": path, "split": split, "end": end, "status": "ok"})
            numbered = enumerate(texts[id])
            rows += [{"caption_id": f"{id}#{n}", "video_id": id, "caption": text} for n, text in numbered if text]
    if not clips:
        raise UserError("dataset.annotations: no video with a caption; download the official files again")
    odd = notes(ids, home, texts, captions, present)
    other = [present[id][0] for id, name in spelt.items() if name != id]
    if other:
        odd.append(f"{len(other)} videos were found under another name than the official one, such as {other[0]}")
    odd += [f"{count} {what}" for what, count in remarks.items() if count]
    return Manifest.build(clips, rows, odd)


def notes(ids: dict, home: dict, texts: dict, captions: Mapping[str, list[str]], present: dict) -> list[str]:
    """One sentence for each kind of irregular row that occurs."""
    unlisted = [id for id in captions if id not in home]
    kept = [[text for text in some if text] for some in texts.values()]
    counts = {
        "videos are in several splits: kept in test, or else in val": sum(map(len, ids.values())) - len(home),
        "videos have no caption: left out": sum(not some for some in kept),
        "captions are empty: left out": sum(map(len, texts.values())) - sum(map(len, kept)),
        "captions repeat another of their video: kept, as in the protocol": sum(
            len(some) - len(set(some)) for some in kept
        ),
        f"captions belong to {len(unlisted)} videos in no split: left out": sum(len(captions[id]) for id in unlisted),
        "videos have several files: the first by suffix is used (mp4, mkv, webm, …)": sum(
            len(present.get(id, ())) > 1 for id in home
        ),
    }
    return [f"{count} {what}" for what, count in counts.items() if count]


def by_stem(folder: Path) -> dict[str, list[str]]:
    """Paths of the videos under a folder, relative to it, by file name without suffix; the preferred suffix first."""
    found: dict[str, list[tuple[int, str]]] = {}
    for path in video_files(folder, KNOWN):
        stem, suffix = splitext(path.name)
        found.setdefault(stem, []).append((KNOWN.index(suffix.lower()), path.as_posix()))
    return {stem: [path for _, path in sorted(files)] for stem, files in found.items()}


def plain(name: str) -> str:
    """The name, if it is a plain file name. Raises UserError if it leads out of the folder."""
    if "/" in name or "\0" in name or name in ("", ".", ".."):
        raise UserError(f"dataset.annotations: {name!r} is not a video's name; download the official files again")
    return name
