"""Video files under a folder, recognised by their suffix."""

import os
from collections.abc import Iterator
from os.path import splitext
from pathlib import Path

# In order of preference, if a video has several files.
SUFFIXES: tuple[str, ...] = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".mpg", ".mpeg", ".3gp", ".3g2", ".wmv")
SUFFIXES += (".mts", ".m2ts", ".ts", ".flv", ".ogv")


def video_files(folder: Path, suffixes: tuple[str, ...] = SUFFIXES) -> Iterator[Path]:
    """Paths relative to the folder, at any depth, without hidden ones; links to folders are not followed.

    macOS puts a hidden file `._NAME` beside every file on a foreign file system.
    """
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            if splitext(name)[1].lower() in suffixes and not name.startswith("."):
                yield (Path(where) / name).relative_to(folder)
