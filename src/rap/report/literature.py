"""Published figures beside ours, for the same dataset. literature.csv holds the figures and their sources."""

from importlib import resources

import numpy as np
import pandas as pd

MEASURES = ("R@1", "R@5", "R@10", "MnR")
DIRECTIONS = {"t2v": "text to video", "v2t": "video to text"}


def read() -> pd.DataFrame:
    """One row per method, dataset and direction. A measure that no source reports is NaN."""
    with resources.files("rap.report").joinpath("literature.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file)


def compared(rows: pd.DataFrame) -> pd.DataFrame | None:
    """The published figures for the dataset of a table's `rows`, each with our figure and the difference ours - theirs.

    Our figure is from the first row with the same adapter; without such a row the cells stay empty. Returns None if
    literature.csv has no figure for the dataset.
    """
    known = read()
    known = known[known.dataset == rows.dataset.iloc[0]]
    if known.empty:
        return None
    ours = rows.drop_duplicates("adapter").set_index("adapter")
    found = pd.DataFrame(
        {
            "Method": known.method,
            "Backbone": known.backbone,
            "Direction": known.direction.map(DIRECTIONS),
            **{name: known[name].map(_figure) for name in MEASURES},
            "Source": known.source,
            "Ours": [ours.label.get(adapter, "") for adapter in known.adapter],
            "Our backbone": [ours.backbone.get(adapter, "") for adapter in known.adapter],
        }
    )
    for name in MEASURES:
        mine = [
            ours[f"{direction}_{name}_mean"].get(adapter, np.nan)
            for adapter, direction in zip(known.adapter, known.direction, strict=True)
        ]
        found[f"Ours {name} (difference)"] = [
            "" if np.isnan(figure) else f"{figure:.1f}" + ("" if np.isnan(theirs) else f" ({figure - theirs:+.1f})")
            for figure, theirs in zip(mine, known[name], strict=True)
        ]
    return found


def _figure(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.1f}"
