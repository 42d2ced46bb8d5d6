"""`rap dataset stats`: usable and failed videos of a dataset, and the lengths of its clips and captions."""

import re
from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from tabulate import tabulate

from rap import paths
from rap.data import registry
from rap.data.manifest import SPLITS, Manifest
from rap.frames import pictures
from rap.params import Params
from rap.report import plots

BINS = 40
SHOWN = 3  # failed videos named per reason


def run(params: Params) -> str:
    """Return tables about the manifest as text, and write data/DATASET/stats/durations.png.

    After a download that failed because too many videos are missing, reports the videos found. Raises UserError if
    there was no download.
    """
    manifest, incomplete = _manifest(params)
    videos = manifest.videos.assign(seconds=clip_seconds(manifest.videos), why=reasons(params, manifest.videos))
    parts = [overview(videos, manifest.captions), lengths(videos, manifest.captions), failures(videos)]
    parts += ["note: too many videos failed for a manifest; see dataset.max_failed in params.yaml"] * incomplete
    parts += [f"note: {note}" for note in (*manifest.notes, *registry.departures(params))]
    if videos.seconds.notna().any():
        picture = paths.durations(params.dataset.name)
        picture.parent.mkdir(parents=True, exist_ok=True)
        plots.save(durations(videos, params.dataset.name), picture)
        parts.append(f"{picture}: durations of the clips")
    return "\n\n".join(filter(None, parts))


def _manifest(params: Params) -> tuple[Manifest, bool]:
    """The manifest, or that of the last download if it was rejected, and whether it was rejected."""
    folder, refused = paths.manifest(params.dataset.name), paths.refused(params.dataset.name)
    incomplete = not folder.record.exists() and refused.record.exists()
    return Manifest.read(refused if incomplete else folder), incomplete


def clip_seconds(videos: pd.DataFrame) -> pd.Series:
    """Seconds of each clip, float64 [videos]: the part of its span inside the file. NaN if the file is missing."""
    return np.maximum(np.minimum(videos.end.fillna(np.inf), videos.duration) - videos.start.fillna(0), 0)


def reasons(params: Params, videos: pd.DataFrame) -> pd.Series:
    """Why each video failed, in the download or, if the frames exist, in decoding. Empty for a usable video."""
    found = {id: reason for id, reason in pictures.reasons(params).items() if reason}
    found |= {id: reason for id, reason in zip(videos.video_id, videos.reason, strict=True) if reason}
    return videos.video_id.map(lambda id: found.get(id, ""))


def overview(videos: pd.DataFrame, captions: pd.DataFrame) -> str:
    """Per split: the number of videos, usable videos, failed videos and captions, and the hours of usable video."""
    rows = []
    for split, part in _parts(videos):
        usable, of = part[part.why == ""], captions.video_id.isin(part.video_id)
        hours = usable.seconds.sum() / 3600
        numbers = (len(part), len(usable), len(part) - len(usable), of.sum())
        rows.append((split, *(f"{number:,}" for number in numbers), f"{hours:.2f}"))
    return _table(rows, "split", "videos", "usable", "failed", "captions", "hours")


def lengths(videos: pd.DataFrame, captions: pd.DataFrame) -> str:
    """Per split: minimum, median, 95th percentile and maximum of clip seconds, captions per video, caption words."""
    rows = []
    for split, part in _parts(videos):
        own = captions[captions.video_id.isin(part.video_id)]
        kinds = {
            "seconds per clip": part.seconds.dropna(),
            "captions per video": part.video_id.map(own.video_id.value_counts()).fillna(0),
            "words per caption": own.caption.map(lambda caption: len(caption.split())),
        }
        for kind, values in kinds.items():
            if len(values):
                spread = values.astype("float64").quantile([0, 0.5, 0.95, 1])
                rows.append((split, kind, *(f"{value:.1f}".removesuffix(".0") for value in spread)))
    return _table(rows, "split", "of", "min", "median", "95 %", "max")


def failures(videos: pd.DataFrame) -> str:
    """The reasons by frequency, each with some of its videos. Reasons that differ only in numbers are grouped."""
    failed = videos[videos.why != ""]
    if failed.empty:
        return ""
    kinds = failed.why.map(lambda why: re.sub(r"\d+(\.\d+)?", "N", why))
    groups = sorted(failed.groupby(kinds).path, key=lambda group: (-len(group[1]), group[0]))
    rows = [
        (len(paths), why, ", ".join(paths[:SHOWN]) + (", …" if len(paths) > SHOWN else "")) for why, paths in groups
    ]
    return tabulate(rows, headers=["failed", "why", "which"], intfmt=",")


def durations(videos: pd.DataFrame, name: str) -> Figure:
    """A histogram of clip durations, stacked by split, with the medians as lines."""
    seconds = {split: part.seconds.dropna() for split, part in _parts(videos) if split != "all"}
    seconds = {split: values for split, values in seconds.items() if len(values)}
    with plots.style():
        figure = Figure(figsize=(7.2, 3.6), layout="constrained")
        axes = figure.subplots()
        colours = plots.COLOURS[: len(seconds)]
        labels = [f"{split} ({len(values):,}, median {values.median():.1f} s)" for split, values in seconds.items()]
        span = (0, max(values.max() for values in seconds.values()))
        axes.hist(list(seconds.values()), BINS, range=span, stacked=True, color=colours, label=labels)
        for values, colour in zip(seconds.values(), colours, strict=True):
            axes.axvline(values.median(), color=colour, linewidth=1.2, linestyle="--")
        axes.set_title(f"Durations of the clips of {name}")
        axes.set_xlabel("Seconds")
        axes.set_ylabel("Clips")
        axes.grid(axis="y", color=plots.FAINT, linewidth=0.6)
        axes.legend(frameon=False)
        figure.draw_without_rendering()
    return figure


def _table(rows: list[tuple[str, ...]], *headers: str) -> str:
    sides = ["left", *["right"] * (len(headers) - 1)]
    return tabulate(rows, headers=headers, colalign=sides, disable_numparse=True)


def _parts(videos: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The splits that have videos, then "all"."""
    for split in SPLITS:
        if (videos.split == split).any():
            yield split, videos[videos.split == split]
    yield "all", videos
