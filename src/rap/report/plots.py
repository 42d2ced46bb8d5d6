"""The figure of a table: recall against trainable parameters, twin accuracy, and differences from the baseline.

A variant has the same colour and marker in all panels. The row labels of the second panel are the legend.
"""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rap.report.statistics import LEVEL, MARGIN

COLOURS = ("#4C6A92", "#D9822B", "#3A9D7A", "#B8476B", "#7B61B0", "#8C6D46", "#2BA3C4", "#6F8F2F", "#555B66", "#C9A227")
MARKERS = "osD^vPX*hp"
INK, PALE, FAINT = "#22262E", "#6B717D", "#D9DCE2"
TITLES = {"t2v_R@1": "Text to video R@1 (%)", "v2t_R@1": "Video to text R@1 (%)", "twin_all": "Twin accuracy (%)"}
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


class Spread(NamedTuple):
    """Distances below and above a mean, each float64 [2, 1] as `Axes.errorbar` takes them."""

    interval: np.ndarray  # over queries and seeds; drawn thin
    deviation: np.ndarray  # over seeds; drawn thick


def style(**changes: Any) -> AbstractContextManager[None]:
    """STYLE and `changes` on matplotlib's defaults, so that a matplotlibrc file does not change a figure."""
    settings: dict[Any, Any] = {**matplotlib.rcParamsDefault, **STYLE, **changes}
    return matplotlib.rc_context(settings)


def table(rows: pd.DataFrame, title: str, baseline: str) -> Figure:
    """Draw text-to-video R@1 against trainable parameters, twin accuracy, and their differences from the baseline.

    `rows` come from `rap.report.table.uncertain`; `baseline` is a variant among them. Thick bars are ± one sample
    standard deviation over seeds, thin bars the interval. Without twins, video-to-text R@1 replaces twin accuracy;
    without intervals, there are no differences.
    """
    means = [str(name).removesuffix("_mean") for name in rows if str(name).endswith("_mean")]
    kinds = [name for name in means if name.startswith("twin_") and name != "twin_all"]
    second = "twin_all" if "twin_all" in means else "v2t_R@1"
    compared = [metric for metric in ("t2v_R@1", second) if f"{metric}_diff" in rows]
    widths = [1.6, 1.0, *[0.2 * len(kinds)] * bool(kinds), *[0.6] * len(compared)]
    with style():
        size = (3.3 * sum(widths) + 2.2, 1.9 + 0.4 * max(len(rows), 5))
        figure = Figure(figsize=size, layout="constrained")
        panels = iter(figure.subplots(1, len(widths), width_ratios=widths))
        figure.suptitle(title, x=0.012, ha="left", fontsize=13.5, fontweight="bold")
        figure.supxlabel(_about(rows, bool(compared)), x=0.988, ha="right", fontsize=8, color=PALE)
        _recall(next(panels), rows, baseline)
        _dots(next(panels), rows, second, TITLES[second], chance=50 if second == "twin_all" else None)
        if kinds:
            _grid(next(panels), rows, kinds)
        for metric, axes in zip(compared, panels, strict=True):
            _differences(axes, rows, metric)
        figure.draw_without_rendering()
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a PNG without metadata, so that the same figure gives the same bytes."""
    figure.savefig(path, format="png", dpi=150, metadata={"Software": None})


def _recall(axes: Axes, rows: pd.DataFrame, baseline: str) -> None:
    """One point per variant. The x axis is linear below the smallest decade in use, so that it can show 0."""
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
        _point(axes, (row["parameters"], row["t2v_R@1_mean"]), place, y=_spread(row, "t2v_R@1"))
    axes.grid(color=FAINT, linewidth=0.6)
    axes.set_xlabel("Trainable parameters")
    axes.set_title(TITLES["t2v_R@1"])
    label = rows.loc[rows.variant == baseline, "label"].iloc[0]
    axes.annotate(
        f"baseline: {label}", (1, level), (-2, 3), axes.get_yaxis_transform(), "offset points",
        ha="right", fontsize=8, color=PALE, zorder=5, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
    )  # fmt: skip


def _dots(axes: Axes, rows: pd.DataFrame, metric: str, title: str, chance: float | None = None) -> None:
    """One row per variant, with its label and its mean; `chance` draws a vertical line."""
    for place, row in enumerate(rows.to_dict("records")):
        mean = row[f"{metric}_mean"]
        _point(axes, (mean, place), place, x=_spread(row, metric))
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
    """Twin accuracy by kind of caption. The colour shows the distance from chance, 50 %."""
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


def _differences(axes: Axes, rows: pd.DataFrame, metric: str) -> None:
    """One row per variant: its difference from the baseline with its interval; the margin of "level" is shaded."""
    axes.axvspan(-MARGIN, MARGIN, color=FAINT, alpha=0.6, linewidth=0, zorder=0)
    axes.axvline(0, color=INK, linewidth=1, linestyle="--", zorder=1)
    for place, row in enumerate(rows.to_dict("records")):
        mean, low, high = (row[f"{metric}_{part}"] for part in ("diff", "diff_low", "diff_high"))
        if not np.isnan(mean):
            _point(axes, (mean, place), place, x=Spread(np.array([[mean - low], [high - mean]]), np.zeros((2, 1))))
    axes.set_yticks([])
    axes.set_ylim(len(rows) - 0.4, -0.9)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("points from the baseline")
    axes.set_title(TITLES[metric].removesuffix(" (%)"))


def _point(axes: Axes, at: tuple[float, float], place: int, x: Spread | None = None, y: Spread | None = None) -> None:
    """The marker of row `place` at the point `at`, with error bars along `x` or `y`."""
    colour, lap = COLOURS[place % len(COLOURS)], place // len(COLOURS)
    marker = MARKERS[(place + lap) % len(MARKERS)]
    for name, width, cap, alpha, layer in (("interval", 1, 2.5, 0.75, 2), ("deviation", 3, 0.0, None, 3)):
        axes.errorbar(
            *at, xerr=getattr(x, name, None), yerr=getattr(y, name, None), fmt="none", ecolor=colour,
            elinewidth=width, capsize=cap, alpha=alpha, zorder=layer,
        )  # fmt: skip
    axes.plot(*at, marker, color=colour, markersize=7, markeredgecolor="white", markeredgewidth=0.6, zorder=4)


def _spread(row: dict, metric: str) -> Spread:
    """The error bars of a row; zeros where the table has no interval or one seed."""
    mean, std = row[f"{metric}_mean"], row[f"{metric}_std"]
    low, high = row.get(f"{metric}_low", mean), row.get(f"{metric}_high", mean)
    interval = np.array([[max(mean - low, 0)], [max(high - mean, 0)]])
    return Spread(interval, np.nan_to_num(np.array([[std], [std]])))


def _about(rows: pd.DataFrame, compared: bool) -> str:
    """The meaning of the bars and the shade, for the foot of the figure."""
    several = rows.seeds.iloc[0] > 1
    thick = "thick bars: ± one standard deviation over seeds; " if several else ""
    shade = f"; shaded: the margin of ± {MARGIN:g} points" if compared else ""
    return f"{thick}thin bars: {LEVEL} % interval over queries{' and seeds' if several else ''}{shade}"


def _short(count: float) -> str:
    """A count with a unit prefix: 1000 -> 1k, 1000000 -> 1M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:g}{letter}"
    return f"{count:g}"
