"""The picture of a table: what recall costs in trainable parameters, and who sees the direction of time."""

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = ("#4C6A92", "#D9822B", "#3A9D7A", "#B8476B", "#7B61B0", "#8C6D46", "#2BA3C4", "#6F8F2F", "#555B66", "#C9A227")
MARKERS = "osD^vPX*hp"
INK, FAINT = "#22262E", "#D9DCE2"
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.edgecolor": "#9AA0AB",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": INK,
    "ytick.color": INK,
}


def table(rows: pd.DataFrame, title: str, baseline: str) -> Figure:
    """`rows` of `rap.tables.aggregate`: text-to-video R@1 against trainable parameters, beside twin accuracy.

    Bars are ± one sample standard deviation over the seeds. Without twins, video-to-text R@1 takes their place.
    """
    kinds = [n.removesuffix("_mean") for n in rows if n.startswith("twin_") and n.endswith("_mean")]
    kinds = [name for name in kinds if name != "twin_all"]
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **STYLE}):
        figure = Figure(figsize=(13.2, 1.9 + 0.4 * max(len(rows), 5)), layout="constrained")
        widths = [1.35, 1.0, 0.2 * len(kinds)] if kinds else [1.35, 1.0]
        recall, dots, *grid = figure.subplots(1, len(widths), width_ratios=widths)
        figure.suptitle(title, x=0.012, ha="left", fontsize=13.5, fontweight="bold")
        _recall(recall, rows, baseline)
        if "twin_all_mean" in rows:
            _dots(dots, rows, "twin_all", "Twin accuracy (%)", chance=50)
        else:
            _dots(dots, rows, "v2t_R@1", "Video to text R@1 (%)")
        if grid:
            _grid(grid[0], rows, kinds)
        figure.draw_without_rendering()
    return figure


def save(figure: Figure, path: Path) -> None:
    """PNG without metadata: the same picture is the same bytes."""
    figure.savefig(path, format="png", dpi=150, metadata={"Software": None})


def _recall(axes: Axes, rows: pd.DataFrame, baseline: str) -> None:
    """One point per variant; an axis that is linear up to the smallest power of ten in use shows 0 as well."""
    positive = rows.parameters[rows.parameters > 0]
    low = 10 ** np.floor(np.log10(positive.min())) if len(positive) else 1.0
    decades = int(np.ceil(np.log10(max(rows.parameters.max(), 10 * low) / low)))
    axes.set_xscale("symlog", linthresh=low, linscale=0.5)
    ticks = [0, *(low * 10**power for power in range(decades + 1))]
    axes.set_xticks(ticks, [_short(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlim(-0.35 * low, low * 10**decades * 1.15)
    level = rows.loc[rows.variant == baseline, "t2v_R@1_mean"].iloc[0]
    axes.axhline(level, color="#9AA0AB", linewidth=1, linestyle=(0, (1, 2)), zorder=1)
    for place, row in enumerate(rows.to_dict("records")):
        _point(
            axes, row["parameters"], row["t2v_R@1_mean"], place, yerr=_spread(row["t2v_R@1_std"]), label=row["label"]
        )
    axes.grid(color=FAINT, linewidth=0.6)
    axes.set_xlabel("Trainable parameters")
    axes.set_title("Text to video R@1 (%)")
    axes.legend(loc="best", fontsize=8.5, frameon=True, framealpha=0.9, edgecolor=FAINT, handletextpad=0.3)
    label = rows.loc[rows.variant == baseline, "label"].iloc[0]
    axes.annotate(
        f"baseline: {label}", (1, level), (-2, 3), axes.get_yaxis_transform(), "offset points",
        ha="right", fontsize=8, color="#6B717D",
    )  # fmt: skip


def _dots(axes: Axes, rows: pd.DataFrame, metric: str, title: str, chance: float | None = None) -> None:
    for place, row in enumerate(rows.to_dict("records")):
        mean = row[f"{metric}_mean"]
        _point(axes, mean, place, place, xerr=_spread(row[f"{metric}_std"]))
        label = axes.annotate(f"{mean:.1f}", (mean, place), (0, 7), textcoords="offset points", ha="center", fontsize=8)
        label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.8})
    if chance is not None:
        axes.axvline(chance, color=INK, linewidth=1, linestyle="--", zorder=1)
        axes.annotate(
            f"chance {chance:g} %", (chance, 1), (4, -2), axes.get_xaxis_transform(), "offset points",
            fontsize=8, va="top",
        )  # fmt: skip
        axes.set_xlim(min(chance - 5, axes.get_xlim()[0]), max(chance + 10, axes.get_xlim()[1]))
    axes.set_yticks(range(len(rows)), rows.label)
    axes.set_ylim(len(rows) - 0.4, -0.9)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    axes.set_title(title)


def _grid(axes: Axes, rows: pd.DataFrame, kinds: list[str]) -> None:
    """Twin accuracy by kind of caption, coloured by its distance from chance."""
    values = rows[[f"{kind}_mean" for kind in kinds]].to_numpy(float)
    axes.imshow(values, cmap="PuOr_r", vmin=0, vmax=100, aspect="auto", alpha=0.75)
    for (row, column), value in np.ndenumerate(values):
        axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=8.5)
    axes.set_xticks(range(len(kinds)), [kind.removeprefix("twin_") for kind in kinds])
    axes.set_yticks([])
    axes.set_ylim(len(rows) - 0.4, -0.9)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("Twin accuracy by kind (%)")


def _point(axes: Axes, x: float, y: float, place: int, **options) -> None:
    colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
    axes.errorbar(x, y, fmt=marker, color=colour, markersize=7, capsize=3, elinewidth=1.3, zorder=3, **options)


def _spread(std: float) -> float | None:
    return None if np.isnan(std) else std


def _short(count: float) -> str:
    """1000 -> 1k, 1000000 -> 1M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:g}{letter}"
    return f"{count:g}"
