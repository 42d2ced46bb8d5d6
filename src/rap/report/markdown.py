"""A table as Markdown: its protocol, both directions, twins, intervals and tests, figures from the literature."""

import numpy as np
import pandas as pd
from tabulate import tabulate

from rap.params import Table
from rap.report import literature, statistics
from rap.report.runs import DIRECTIONS, MEASURES

TESTED = {"t2v_R@1": "Text to video R@1", "v2t_R@1": "Video to text R@1", "twin_all": "Twin accuracy"}
ABOUT = {  # what the rows of rap.evaluation.rerank's methods are
    "dsl": "+ DSL re-weights the scores by all test queries at once: test-set information.",
    "qb_norm": "+ QB-norm re-weights them by a bank of training captions and clips.",
}
SHORT = 12  # digits of a digest
LOWER_IS_BETTER = {"MdR", "MnR"}


def markdown(rows: pd.DataFrame, layout: Table, digests: dict[str, str], held_out: int = 0) -> str:
    """The whole document, from the rows of the CSV and the digests of their inputs, by name.

    `held_out`: the number of val videos that the published protocol trains on.
    """
    parts = [f"# {layout.title}", _caption(rows, held_out)]
    facts = {"Method": rows.label, "Trainable": rows.parameters.map("{:,}".format)}
    for direction, name in DIRECTIONS.items():
        parts += [f"## {name}", _section(rows, facts, [f"{direction}_{measure}" for measure in MEASURES])]
        facts = {"Method": rows.label}
    if twins := _means(rows, "twin_"):
        about = "Share of captions that prefer their clip over the same scene in reversed time. Chance is 50 %."
        parts += ["## Twin accuracy", f"{about} By kind of caption.", _section(rows, facts, twins)]
    if kinds := _means(rows, "kind_"):
        about = "Text to video, by kind of caption; the gallery is the same."
        parts += ["## R@1 by kind of caption", about, _section(rows, facts, kinds)]
    if tested := [metric for metric in TESTED if f"{metric}_low" in rows]:
        parts += ["## Intervals and tests", _about_tests(rows, layout)]
    for metric in tested:
        parts += [f"### {TESTED[metric]}", _tabulate(_tests(rows, layout, metric))]
    if (papers := literature.compared(rows)) is not None:
        about = "Published figures, as their sources report them, and our figure minus theirs."
        parts += ["## Reported in the literature", about, _tabulate(papers.to_dict("list"))]
    named = ", ".join(f"{name} `{digest[:SHORT]}`" for name, digest in digests.items())
    parts.append(f"Made from {named} (SHA-256, {SHORT} digits). `rap verify` checks that the table still matches them.")
    return "\n\n".join(parts) + "\n"


def _about_tests(rows: pd.DataFrame, layout: Table) -> str:
    baseline, comparisons, margin = rows.set_index("variant").label[layout.baseline], len(rows) - 1, statistics.MARGIN
    if rows.seeds.iloc[0] > 1:
        drawn = "test queries and training seeds; the seeds of two methods are independent draws"
        level = f"It is called level only if the whole interval lies within ± {margin:g} points."
    else:
        drawn = "test queries, but not for other seeds: with one seed, their spread is unknown"
        level = "It is never called level: that takes several seeds."
    return (
        f"[low, high]: {statistics.LEVEL} % interval for other {drawn}. The captions of a video, and a clip and its "
        f"twin, form one cluster. Difference: from {baseline}, paired by query, in percent points. {level} p: "
        f"two-sided test of no difference, corrected for the {comparisons} comparisons of a column (Holm); intervals "
        "are not corrected. Nothing here covers the choice of training videos."
    )


def _tests(rows: pd.DataFrame, layout: Table, metric: str) -> dict[str, list[str]]:
    """The columns of a metric: interval, difference from the baseline and p."""
    columns: dict[str, list[str]] = {"Method": rows.label.tolist(), "[low, high]": [], "Difference": [], "p": []}
    for row in rows.to_dict("records"):
        columns["[low, high]"].append(interval(row, metric))
        if row["variant"] == layout.baseline:
            columns["Difference"].append("baseline")
            columns["p"].append("")
            continue
        columns["Difference"].append(difference(row, metric))
        columns["p"].append(p_value(row[f"{metric}_p"], len(rows) - 1))
    return columns


def interval(row: dict, metric: str) -> str:
    """[low, high] of the mean of a metric."""
    return f"[{row[f'{metric}_low']:.1f}, {row[f'{metric}_high']:.1f}]"


def difference(row: dict, metric: str) -> str:
    """The difference from the baseline with its interval, and whether the two are level."""
    mean, *bounds = (row[f"{metric}_{part}"] for part in ("diff", "diff_low", "diff_high"))
    level = ", level" if row["seeds"] > 1 and statistics.is_level(*bounds) else ""
    return f"{mean:+.1f} [{bounds[0]:+.1f}, {bounds[1]:+.1f}]{level}"


def p_value(p: float, comparisons: int) -> str:
    """A corrected p at the four decimals of the CSV; the smallest that the tests of a column can give is a bound."""
    smallest = round(statistics.RESOLUTION * comparisons, 4)
    return f"<= {smallest:.4f}" if round(p, 4) <= smallest else f"{p:.4f}"


def not_trained_on(held_out: int) -> list[str]:
    """The sentence on the val videos that the published protocol trains on, if there are any."""
    return [f"Not trained on: {held_out:,} training videos, held out as val (dataset.validation)."] if held_out else []


def _caption(rows: pd.DataFrame, held_out: int) -> str:
    first = rows.iloc[0]
    protocols = rows[rows.protocol != "no training"].groupby("protocol", sort=False).label.apply(", ".join)
    chosen = [f"{name} ({labels})" if len(protocols) > 1 else name for name, labels in protocols.items()]
    lines = [
        f"Test split of {first.dataset}, backbone {first.backbone}:",
        f"evaluated {first.videos:,} of {first.videos_total:,} videos with {first.queries:,} queries.",
        *not_trained_on(held_out),
        f"Checkpoint: {'; '.join(chosen) or 'no training'}.",
        "R@k and twin accuracy in percent; MdR and MnR are ranks, lower is better. The best mean is bold.",
        "Ties get the expected rank: equal scores count as if put in random order.",
    ]
    if first.seeds > 1:
        lines.append(f"Mean ± sample standard deviation over {first.seeds} seeds.")
        if (rows.protocol == "no training").any():
            lines.append("A method without trainable parameters gives the same figures for every seed: ± 0.0.")
    else:
        lines.append("One seed: no standard deviation.")
    lines += [ABOUT[name] for name in rows.post.unique() if name]
    return " ".join(lines)


def _means(rows: pd.DataFrame, part: str) -> list[str]:
    """The metrics of a part of the table, in its order."""
    return [name.removesuffix("_mean") for name in rows if name.startswith(part) and name.endswith("_mean")]


def _section(rows: pd.DataFrame, facts: dict[str, pd.Series], names: list[str]) -> str:
    columns = facts | {name.split("_", 1)[1]: _cells(rows, name) for name in names}
    return _tabulate(columns)


def _tabulate(columns: dict) -> str:
    align = ["left", *["right"] * (len(columns) - 1)]
    return tabulate(columns, headers="keys", tablefmt="pipe", disable_numparse=True, colalign=align)


def _cells(rows: pd.DataFrame, metric: str) -> list[str]:
    """`mean ± std` at one decimal. The best mean and equal prints are bold, unless all rows print the same."""
    means = rows[f"{metric}_mean"].round(1)
    best = means.min() if metric.split("_", 1)[1] in LOWER_IS_BETTER else means.max()
    winners = (means == best) & (means.nunique() > 1)
    spread = rows[f"{metric}_std"].map(lambda std: "" if np.isnan(std) else f" ± {std:.1f}")
    shown = [f"**{mean:.1f}**" if bold else f"{mean:.1f}" for mean, bold in zip(means, winners, strict=True)]
    return [mean + std for mean, std in zip(shown, spread, strict=True)]
