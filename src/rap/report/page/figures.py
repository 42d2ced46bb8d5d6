"""The figures of the page, as SVG. On the page, lines and text have the colours of the reader's theme."""

import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rap import paths
from rap.files import digest, write_text
from rap.params import Params
from rap.report.plots import COLOURS, FAINT, INK, MARKERS, PALE, style

THEMED = {INK: "currentColor", PALE: "var(--pale)", FAINT: "var(--line)", "#9AA0AB": "var(--pale)", "#ffffff": "none"}
SEEDED = {"svg.fonttype": "none", "svg.hashsalt": "rap"}  # text stays text; the same figure is the same bytes


def text_of(figure: Figure) -> str:
    """A figure as SVG, without the date."""
    with style(**SEEDED):
        held = io.StringIO()
        figure.savefig(held, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return held.getvalue()


def save(figure: Figure, path: Path) -> None:
    write_text(path, text_of(figure))


def inline(figure: Figure, name: str) -> Markup:
    """A figure as an element of a page: without a fixed size, with the page's colours and a name for screen readers.

    Ids of several figures on a page would clash, so each id gets the name of its figure.
    """
    svg = text_of(figure)
    svg = re.sub(r' id="image[0-9a-f]+"', "", svg[svg.index("<svg") :])  # equal pictures have equal ids
    own = f"f{digest(svg)[:8]}"
    svg = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{own}-", svg)
    svg = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', f'role="img" aria-label="{escape(name)}"', svg, count=1)
    for colour, themed in THEMED.items():
        svg = re.sub(re.escape(colour), themed, svg, flags=re.IGNORECASE)
    return Markup(svg)


def against_parameters(rows: pd.DataFrame) -> Figure:
    """Text to video R@1 over trainable parameters, with intervals."""
    return _scatter(rows, rows.parameters.to_numpy(float), "Trainable parameters")


def against_time(rows: pd.DataFrame, seconds: pd.Series) -> Figure:
    """Text to video R@1 over the seconds of a training, with intervals."""
    return _scatter(rows, rows.variant.map(seconds).fillna(0).to_numpy(float), "Seconds of training, mean over seeds")


def _scatter(rows: pd.DataFrame, x: np.ndarray, label: str) -> Figure:
    with style():
        figure = Figure(figsize=(7.2, 4.2), layout="constrained")
        axes = figure.subplots()
        low = 10 ** np.floor(np.log10(x[x > 0].min())) if (x > 0).any() else 1.0
        axes.set_xscale("symlog", linthresh=low, linscale=0.4)
        for place, (row, at) in enumerate(zip(rows.to_dict("records"), x, strict=True)):
            mean = row["t2v_R@1_mean"]
            bounds = (row.get("t2v_R@1_low", mean), row.get("t2v_R@1_high", mean))
            spread = np.nan_to_num([[mean - bounds[0]], [bounds[1] - mean]])
            axes.errorbar(at, mean, yerr=spread, color=_colour(place), linewidth=1.2, capsize=2.5)
            axes.plot(at, mean, _marker(place), color=_colour(place), markersize=7, label=row["label"])
        axes.set_xlim(left=-0.2 * low)
        axes.set_xlabel(label)
        axes.set_ylabel("R@1, text to video (%)")
        axes.grid(color=FAINT, linewidth=0.6)
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def losses(params: Params) -> Figure | None:
    """The loss of every training over its steps, a moving mean over a twentieth of them."""
    with style():
        figure = Figure(figsize=(7.2, 3.8), layout="constrained")
        axes = figure.subplots()
        drawn = [_loss(axes, params, variant, place) for place, variant in enumerate(params.run)]
        if not any(drawn):
            return None
        axes.set_xlabel("Step")
        axes.set_ylabel("Loss")
        axes.grid(color=FAINT, linewidth=0.6)
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _loss(axes: Axes, params: Params, variant: str, place: int) -> bool:
    curves = [pd.read_csv(paths.run(variant, seed).history) for seed in params.seeds]
    label = params.variant(variant).label or variant
    for number, curve in enumerate(curves):
        if len(curve):
            smooth = curve.loss.rolling(max(1, len(curve) // 20), min_periods=1).mean()
            axes.plot(curve.step, smooth, color=_colour(place), linewidth=1.1, label=None if number else label)
    return bool(len(curves[0]))


def by_kind(rows: pd.DataFrame) -> Figure | None:
    """Twin accuracy by kind of caption, one panel for each kind, with the chance of 50 %."""
    found = (re.fullmatch(r"twin_(?!all_)(.+)_mean", str(name)) for name in rows)
    kinds = [match[1] for match in found if match]
    if not kinds:
        return None
    with style():
        columns = 5
        lines = -(-len(kinds) // columns)
        figure = Figure(figsize=(9.6, (0.24 * len(rows) + 0.7) * lines + 0.4), layout="constrained")
        panels = figure.subplots(lines, columns, squeeze=False, sharey=True)
        for axes in panels.flat[len(kinds) :]:
            axes.set_visible(False)
        for axes, kind in zip(panels.flat, kinds, strict=False):
            means, deviations = rows[f"twin_{kind}_mean"], rows[f"twin_{kind}_std"].fillna(0)
            axes.axvline(50, color=INK, linewidth=0.8, linestyle="--")
            for place, (mean, deviation) in enumerate(zip(means, deviations, strict=True)):
                axes.errorbar(mean, place, xerr=deviation, color=_colour(place), linewidth=2)
                axes.plot(mean, place, _marker(place), color=_colour(place), markersize=5)
            axes.set_title(kind)
            axes.set_xlim(-3, 103)
            axes.set_xticks([0, 50, 100])
            axes.set_yticks(range(len(rows)), rows.label, fontsize=7.5)
            axes.set_ylim(len(rows) - 0.5, -0.5)
            axes.grid(axis="y", color=FAINT, linewidth=0.6)
    return figure


def _colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]


def _marker(place: int) -> str:
    return MARKERS[(place + place // len(COLOURS)) % len(MARKERS)]
