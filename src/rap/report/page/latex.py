"""A table as LaTeX, for the package booktabs: means with deviations, the best in bold."""

import re

import pandas as pd

from rap.params import Table
from rap.report.page.tables import COLUMNS, LOWER_IS_BETTER

SPECIAL = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}  # fmt: skip


def table(rows: pd.DataFrame, layout: Table) -> str:
    """A tabular with one row per variant."""
    metrics = [metric for metric in COLUMNS if f"{metric}_mean" in rows]
    lines = [f"% {layout.title}", rf"\begin{{tabular}}{{l{'r' * (len(metrics) + 1)}}}", r"\toprule"]
    lines += [
        " & ".join(["Method", "Trainable", *(escape(COLUMNS[metric]) for metric in metrics)]) + r" \\",
        r"\midrule",
    ]
    for row in rows.to_dict("records"):
        cells = [escape(row["label"]), f"{row['parameters']:,}", *(_cell(rows, row, metric) for metric in metrics)]
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def escape(text: str) -> str:
    """Text with every special character of LaTeX escaped."""
    return re.sub(r"[\\~^&%$#_{}]", lambda found: SPECIAL[found[0]], text)


def _cell(rows: pd.DataFrame, row: dict, metric: str) -> str:
    mean, std, column = row[f"{metric}_mean"], row[f"{metric}_std"], rows[f"{metric}_mean"].round(1)
    text = f"{mean:.1f}"
    best = column.min() if metric in LOWER_IS_BETTER else column.max()
    text = rf"\textbf{{{text}}}" if round(mean, 1) == best else text
    return text if pd.isna(std) else rf"{text} $\pm$ {std:.1f}"
