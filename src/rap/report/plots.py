"""The picture of a table: what recall costs in trainable parameters, and who sees the direction of time.

A variant has the same colour and marker in all panels; the list of names beside the dots is the key to them.
"""

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rap.report.statistics import LEVEL

COLOURS = ("#4C6A92", "#D9822B", "#3A9D7A", "#B8476B", "#7B61B0", "#8C6D46", "#2BA3C4", "#6F8F2F", "#555B66", "#C9A227")
MARKERS = "osD^vPX*hp"
INK, PALE, FAINT = "#22262E", "#6B717D", "#D9DCE2"
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
    """`rows` of `rap.report.table.uncertain`: text-to-video R@1 against trainable parameters, beside twin accuracy.

    Thick bars are ± one sample standard deviation over the seeds, thin ones the interval over queries. Without twins,
    video-to-text R@1 takes their place.
    """
    kinds = [n.removesuffix("_mean") for n in rows if n.startswith("twin_") and n.endswith("_mean")]
    kinds = [name for name in kinds if name != "twin_all"]
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **STYLE}):
        figure = Figure(figsize=(13.2, 1.9 + 0.4 * max(len(rows), 5)), layout="constrained")
        widths = [1.35, 1.0, 0.2 * len(kinds)] if kinds else [1.35, 1.0]
        recall, dots, *grid = figure.subplots(1, len(widths), width_ratios=widths)
        figure.suptitle(title, x=0.012, ha="left", fontsize=13.5, fontweight="bold")
        figure.supxlabel(_about(rows), x=0.988, ha="right", fontsize=8, color=PALE)
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
        _point(axes, row["parameters"], row["t2v_R@1_mean"], place, yerr=_spreads(row, "t2v_R@1"))
    axes.grid(color=FAINT, linewidth=0.6)
    axes.set_xlabel("Trainable parameters")
    axes.set_title("Text to video R@1 (%)")
    label = rows.loc[rows.variant == baseline, "label"].iloc[0]
    axes.annotate(
        f"baseline: {label}", (1, level), (-2, 3), axes.get_yaxis_transform(), "offset points",
        ha="right", fontsize=8, color=PALE, zorder=5, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
    )  # fmt: skip


def _dots(axes: Axes, rows: pd.DataFrame, metric: str, title: str, chance: float | None = None) -> None:
    for place, row in enumerate(rows.to_dict("records")):
        mean = row[f"{metric}_mean"]
        _point(axes, mean, place, place, xerr=_spreads(row, metric))
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


def _point(axes: Axes, x: float, y: float, place: int, **spreads: list[np.ndarray]) -> None:
    """A marker of its own for each place, with thin bars for the first of the spreads and thick ones for the second."""
    colour, lap = COLOURS[place % len(COLOURS)], place // len(COLOURS)
    marker = MARKERS[(place + lap) % len(MARKERS)]
    for name, (thin, thick) in spreads.items():
        axes.errorbar(x, y, fmt="none", ecolor=colour, elinewidth=1, capsize=2.5, alpha=0.75, zorder=2, **{name: thin})
        axes.errorbar(x, y, fmt="none", ecolor=colour, elinewidth=3, capsize=0, zorder=3, **{name: thick})
    axes.plot(x, y, marker, color=colour, markersize=7, markeredgecolor="white", markeredgewidth=0.6, zorder=4)


def _spreads(row: dict, metric: str) -> list[np.ndarray]:
    """Below and above a row's mean: the interval over queries, then the deviation over seeds; zeros if unknown."""
    mean, std = row[f"{metric}_mean"], row[f"{metric}_std"]
    low, high = row.get(f"{metric}_low", mean), row.get(f"{metric}_high", mean)
    return [np.array([[max(mean - low, 0)], [max(high - mean, 0)]]), np.nan_to_num(np.array([[std], [std]]))]


def _about(rows: pd.DataFrame) -> str:
    thick = "thick bars: ± one standard deviation over seeds; " if rows.seeds.iloc[0] > 1 else ""
    return f"{thick}thin bars: {LEVEL} % interval over queries"


def _short(count: float) -> str:
    """1000 -> 1k, 1000000 -> 1M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:g}{letter}"
    return f"{count:g}"
