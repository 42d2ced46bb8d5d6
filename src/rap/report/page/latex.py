"""A table as LaTeX, for the package booktabs: means with deviations and intervals, and differences from the baseline.

The best mean is bold. The notes below the table say what the columns and the figures are. The heads are short, so
that a table can be scaled to the width of a page.
"""

import re
from collections.abc import Iterable

import pandas as pd

from rap.params import Table
from rap.report import statistics
from rap.report.markdown import TESTED, difference, interval, not_trained_on
from rap.report.page.tables import LOWER_IS_BETTER

SPECIAL = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}  # fmt: skip
HEADS = {
    "t2v_R@1": "R@1",
    "t2v_R@5": "R@5",
    "t2v_R@10": "R@10",
    "t2v_MnR": "MnR",
    "v2t_R@1": "V2T R@1",
    "twin_all": "Twins",
}
ABOUT = "R@K (%) and mean rank (MnR): text to video; V2T: video to text; Twins: twin accuracy (%)."
COMPARED = ("t2v_R@1", "twin_all")  # metrics with a column of differences


def table(rows: pd.DataFrame, layout: Table, held_out: int = 0) -> str:
    """A tabular with one row per variant. `held_out`: see `rap.report.markdown`."""
    metrics = [metric for metric in HEADS if f"{metric}_mean" in rows]
    compared = [metric for metric in COMPARED if f"{metric}_diff" in rows]
    heads = ["Method", "Trainable", *(HEADS[metric] for metric in metrics)]
    heads += [rf"$\Delta$ {HEADS[metric]}" for metric in compared]
    lines = [f"% {layout.title}", r"% \resizebox{\textwidth}{!}{\input{...}} scales it to the page (graphicx)"]
    lines += [rf"\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}", r"\toprule", _line(heads), r"\midrule"]
    for row in rows.to_dict("records"):
        cells = [escape(row["label"]), f"{row['parameters']:,}", *(_cell(rows, row, metric) for metric in metrics)]
        lines.append(_line([*cells, *(_difference(row, metric, layout.baseline) for metric in compared)]))
    notes = [ABOUT, *_about(rows, layout), *not_trained_on(held_out)]
    below = [_line([rf"\multicolumn{{{len(heads)}}}{{l}}{{\footnotesize {escape(note)}}}"]) for note in notes]
    return "\n".join([*lines, r"\bottomrule", *below, r"\end{tabular}", ""])


def escape(text: str) -> str:
    """Text with every special character of LaTeX escaped."""
    return re.sub(r"[\\~^&%$#_{}]", lambda found: SPECIAL[found[0]], text)


def _line(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _about(rows: pd.DataFrame, layout: Table) -> list[str]:
    """What the intervals and differences are, if the table has any."""
    if not any(f"{metric}_low" in rows for metric in TESTED):
        return []
    baseline = rows.set_index("variant").label[layout.baseline]
    several = rows.seeds.iloc[0] > 1
    drawn = "queries and seeds" if several else "queries; one seed"
    return [
        f"[low, high]: {statistics.LEVEL} % interval over {drawn}. Last columns: difference from {baseline}, "
        "paired by query.",
        *([f"Level: the whole interval is within {statistics.MARGIN:g} points of zero."] if several else []),
    ]


def _cell(rows: pd.DataFrame, row: dict, metric: str) -> str:
    mean, std, column = row[f"{metric}_mean"], row[f"{metric}_std"], rows[f"{metric}_mean"].round(1)
    text = f"{mean:.1f}"
    best = column.min() if metric in LOWER_IS_BETTER else column.max()
    text = rf"\textbf{{{text}}}" if round(mean, 1) == best else text
    text = text if pd.isna(std) else rf"{text} $\pm$ {std:.1f}"
    return f"{text} {interval(row, metric)}" if f"{metric}_low" in row else text


def _difference(row: dict, metric: str, baseline: str) -> str:
    """The difference as in the Markdown, its signs as those of formulas."""
    if row["variant"] == baseline:
        return "baseline"
    return re.sub(r"[+-]", r"$\g<0>$", difference(row, metric))
