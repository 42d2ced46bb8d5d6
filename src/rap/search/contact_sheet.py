"""A contact sheet: the frames of the videos that a search found, best first, one strip each."""

import math
from typing import NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from rap import paths
from rap.errors import UserError
from rap.files import atomic
from rap.params import Params
from rap.report.plots import INK, PALE, STYLE
from rap.shards import Shard

LEAST, MOST = 4, 8  # frames that the sheet is wide, frames of a strip, evenly chosen
SIDE, GAP, HEAD = 1.25, 0.04, 0.55  # inches: a frame, between frames, above the strips
LARGE, SMALL = 8, 11  # characters to an inch, of the query and of the names


def sheet(params: Params, query: str, videos: pd.DataFrame, cosines: np.ndarray) -> Figure:
    """`videos`: rows of the manifest, best first, and their `cosines` with the query. Reads their cached frames."""
    strips = [_strip(params, id) for id in videos.video_id]
    width = max(LEAST, *map(len, strips)) * (SIDE + GAP) + 0.3
    height = HEAD + len(strips) * (SIDE + 0.42)
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **STYLE, "text.parse_math": False}):
        figure = Figure(figsize=(width, height), facecolor="white")
        title = f"“{_fit(query, LARGE * width)}”"
        figure.text(0.15 / width, 1 - 0.3 / height, title, fontsize=14, fontweight="bold", color=INK, va="center")
        for row, (strip, video) in enumerate(zip(strips, videos.itertuples(), strict=True)):
            top = height - HEAD - row * (SIDE + 0.42)
            caption = f"{row + 1}    {_fit(video.path + span(video), SMALL * (width - 1.5))}"
            figure.text(0.15 / width, (top - 0.13) / height, caption, fontsize=9.5, color=INK, va="center")
            figure.text(
                1 - 0.15 / width, (top - 0.13) / height, f"{cosines[row]:.3f}", fontsize=9.5, color=PALE, va="center",
                ha="right",
            )  # fmt: skip
            for column, frame in enumerate(strip):
                left = (0.15 + column * (SIDE + GAP)) / width
                axes = figure.add_axes((left, (top - 0.26 - SIDE) / height, SIDE / width, SIDE / height))
                axes.imshow(frame, interpolation="bilinear")
                axes.set_axis_off()
    return figure


def save(figure: Figure, file: str) -> None:
    try:
        with atomic(file) as path:
            figure.savefig(path, format="png", dpi=110, metadata={"Software": None})
    except OSError as error:
        raise UserError(
            f"--picture: {file} cannot be written ({error.strerror}); name a file in another folder"
        ) from None


def span(video: NamedTuple) -> str:
    """` 3.0–7.5 s`, or nothing for a whole video."""
    if math.isnan(video.start) and math.isnan(video.end):
        return ""
    start = 0.0 if math.isnan(video.start) else video.start
    return f"  {start:.1f}–" + ("end" if math.isnan(video.end) else f"{video.end:.1f} s")


def _fit(text: str, most: float) -> str:
    """A text that is too long loses its middle."""
    half = int(most) // 2
    return text if len(text) <= most else f"{text[:half]}…{text[-half:]}"


def _strip(params: Params, video: str) -> np.ndarray:
    """At most MOST frames of a video, uint8 [n, size, size, 3]."""
    for number in params.shards:
        shard = Shard.read(paths.frames(params.dataset.name, number))
        found = np.flatnonzero(shard.index.id == video)
        if len(found):
            valid = int(shard.index.length.iloc[found[0]])
            chosen = np.linspace(0, valid - 1, min(MOST, valid)).round().astype(int)
            return shard.rows(found)[0][chosen]
    raise AssertionError(f"{video} has features and no frames")
