"""The tables of the page: cells with a mean, a deviation and an interval, and the value that a column is sorted by."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from rap.params import Table
from rap.report import statistics
from rap.report.markdown import TESTED, interval, not_trained_on, p_value

COLUMNS = {
    "t2v_R@1": "R@1, text to video",
    "t2v_R@5": "R@5",
    "t2v_R@10": "R@10",
    "t2v_MnR": "mean rank",
    "v2t_R@1": "R@1, video to text",
    "twin_all": "twin accuracy",
}
LOWER_IS_BETTER = {"t2v_MnR"}


@dataclass(frozen=True)
class Cell:
    """The text of a cell, its small print, its sorting value, and whether it is the best."""

    text: str
    small: str = ""
    value: float = 0.0
    best: bool = False


def view(name: str, rows: pd.DataFrame, layout: Table, held_out: int = 0) -> dict:
    """A table as input of the template: title, notes, heads, and rows of cells. `held_out`: see `markdown`."""
    metrics = [metric for metric in COLUMNS if f"{metric}_mean" in rows]
    compared = [metric for metric in TESTED if f"{metric}_diff" in rows]
    body = [
        [
            *_facts(row),
            *(_figure(rows, row, metric) for metric in metrics),
            *(_difference(row, metric, layout.baseline, len(rows) - 1) for metric in compared),
        ]
        for row in rows.to_dict("records")
    ]
    heads = ["method", "trained parameters"] + [COLUMNS[metric] for metric in metrics]
    heads += [f"{TESTED[metric]}: difference" for metric in compared]
    label = rows.set_index("variant").label.get(layout.baseline, layout.baseline)
    titles = {"name": name, "title": layout.title, "baseline": label, "notes": not_trained_on(held_out)}
    return titles | {"heads": heads, "rows": body}


def _facts(row: dict) -> list[Cell]:
    return [Cell(row["label"]), Cell(f"{row['parameters']:,}", value=row["parameters"])]


def _figure(rows: pd.DataFrame, row: dict, metric: str) -> Cell:
    mean, std, column = row[f"{metric}_mean"], row[f"{metric}_std"], rows[f"{metric}_mean"]
    small = [] if np.isnan(std) else [f"± {std:.1f}"]
    if f"{metric}_low" in row:
        small.append(interval(row, metric))
    best = column.min() if metric in LOWER_IS_BETTER else column.max()
    return Cell(f"{mean:.1f}", " ".join(small), mean, round(mean, 1) == round(best, 1))


def _difference(row: dict, metric: str, baseline: str, comparisons: int) -> Cell:
    """The difference from the baseline with a mark: larger, smaller, level, or unknown."""
    mean, low, high, p = (row[f"{metric}_{part}"] for part in ("diff", "diff_low", "diff_high", "p"))
    if row["variant"] == baseline or np.isnan(mean):
        return Cell("baseline")
    level = row["seeds"] > 1 and statistics.is_level(low, high)
    mark = "=" if level else "▲" if low > 0 else "▼" if high < 0 else "?"
    return Cell(f"{mark} {mean:+.1f}", f"[{low:+.1f}, {high:+.1f}] p {p_value(p, comparisons)}", mean)
