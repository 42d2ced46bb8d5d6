"""The manifest: the videos and captions of a dataset, their splits, and the status of each video."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, get_type_hints

import pandas as pd

from rap import paths
from rap.errors import UserError
from rap.files import atomic, digest, digest_file
from rap.provenance import Record

SPLITS = ("train", "val", "test")


class Video(NamedTuple):
    """A clip: a row of videos.parquet."""

    video_id: str
    path: str  # relative to the folder of the dataset's videos
    split: str
    digest: str  # SHA-256 of the file; empty if failed
    start: float  # seconds; NaN: from the start of the file
    end: float  # seconds; NaN or beyond the end: to the end of the file
    duration: float  # of the whole file, in seconds; NaN if failed
    twin: str  # the video that shows the same scene in reverse, or empty
    status: str  # ok | failed
    reason: str  # of the failure, in one line; empty if ok


class Caption(NamedTuple):
    """A row of captions.parquet."""

    caption_id: str
    video_id: str
    caption: str
    kind: str  # the kind of event that the caption describes (demo), or empty


DTYPES = {str: "string", float: "float64"}
VIDEO_COLUMNS, CAPTION_COLUMNS = (
    {name: DTYPES[kind] for name, kind in get_type_hints(row).items()} for row in (Video, Caption)
)


@dataclass(frozen=True)
class Manifest:
    """Videos and captions, one row each, in a fixed order; Video and Caption describe the columns.

    Each of `notes` is a sentence on skipped or irregular annotations.
    """

    videos: pd.DataFrame
    captions: pd.DataFrame
    notes: tuple[str, ...] = ()

    @classmethod
    def build(cls, videos: list[dict], captions: list[dict], notes: Iterable[str] = ()) -> "Manifest":
        """A checked manifest from rows. Raises UserError with the first bad row."""
        return cls(_table(videos, VIDEO_COLUMNS), _table(captions, CAPTION_COLUMNS), tuple(notes)).checked()

    @classmethod
    def read(cls, folder: str | Path) -> "Manifest":
        """Raises UserError if the manifest is missing, damaged or of another version."""
        folder = paths.ManifestFolder(folder)
        Record.open(folder.record, "rap download", files=None)
        videos, captions = map(pd.read_parquet, folder.files)
        if [*videos, *captions] != [*VIDEO_COLUMNS, *CAPTION_COLUMNS]:
            raise UserError(f"{folder}: another version wrote this manifest; run `rap download` again")
        return cls(videos, captions, tuple(captions.attrs.pop("notes", ())))

    @staticmethod
    def remove(folder: str | Path) -> None:
        """Remove the manifest, its record first."""
        folder = paths.ManifestFolder(folder)
        for file in (folder.record, *folder.files):
            file.unlink(missing_ok=True)

    def write(self, folder: str | Path, result: Callable[[str, dict[str, str]], Record]) -> None:
        """Both tables as Parquet, and the record that `result` makes from their content and checksums.

        The notes are stored with the captions, in the metadata of pandas (attrs).
        """
        folder = paths.ManifestFolder(folder)
        self.remove(folder)
        captions = self.captions.copy(deep=False)
        captions.attrs["notes"] = list(self.notes)
        for file, table in zip(folder.files, (self.videos, captions), strict=True):
            with atomic(file) as path:
                table.to_parquet(path, index=False)
        files = {file.name: digest_file(file) for file in folder.files}
        result(digest(files), files).write(folder.record)

    def rows(self) -> Iterator[Video]:
        """The videos, one by one."""
        return map(Video._make, self.videos.itertuples(index=False, name=None))

    def split(self, name: str) -> "Manifest":
        """The videos of one split and their captions."""
        videos = self.videos[self.videos.split == name].reset_index(drop=True)
        return Manifest(videos, self._captions_of(videos))

    def shard(self, index: int, count: int) -> "Manifest":
        """Every `count`-th video from `index` on, and their captions."""
        videos = self.videos.iloc[index::count].reset_index(drop=True)
        return Manifest(videos, self._captions_of(videos))

    def _captions_of(self, videos: pd.DataFrame) -> pd.DataFrame:
        return self.captions[self.captions.video_id.isin(videos.video_id)].reset_index(drop=True)

    def checked(self) -> "Manifest":
        """Raises UserError if an id repeats, a split is unknown, or a caption is empty or has no video."""
        videos, captions = self.videos, self.captions
        _refuse(videos[videos.video_id.duplicated()], "video_id", "duplicate id; give each video its own")
        _refuse(videos[~videos.split.isin(SPLITS)], "split", f"unknown split; use one of {', '.join(SPLITS)}")
        _refuse(captions[captions.caption_id.duplicated()], "caption_id", "duplicate id; give each caption its own")
        _refuse(
            captions[captions.caption.str.strip() == ""], "caption_id", "empty caption; write one, or remove the row"
        )
        _refuse(captions[~captions.video_id.isin(videos.video_id)], "caption_id", "its video is not listed")
        return self


def one_line(caption: str) -> str:
    """The text with every run of whitespace replaced by one space, and none at its ends."""
    return " ".join(caption.split())


def _table(rows: list[dict], columns: dict[str, str]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=list(columns))
    texts = [name for name, kind in columns.items() if kind == "string"]
    frame[texts] = frame[texts].astype("string").fillna("")
    return frame.astype(columns)


def _refuse(bad: pd.DataFrame, column: str, why: str) -> None:
    if len(bad):
        raise UserError(f"manifest: {column} {bad[column].iloc[0]!r}: {why} ({len(bad)} rows)")
