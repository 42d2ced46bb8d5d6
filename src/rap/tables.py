"""The table stage: finished runs become one row per variant, as CSV, Markdown and a picture; costs stand apart.

The table and its picture are deterministic; wall times and memory are not, so they have a file of their own.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from tabulate import tabulate

from rap import plots, tracking
from rap.errors import UserError
from rap.experiment import params_digest, run_folder
from rap.files import atomic, read_json, write_text
from rap.params import Params, Table, hint

MEASURES = ("R@1", "R@5", "R@10", "MdR", "MnR")
DIRECTIONS = {"t2v": "Text to video", "v2t": "Video to text"}
LOWER_IS_BETTER = {"MdR", "MnR"}
PROTOCOLS = {
    "last": "last epoch",
    "val": "best epoch on val",
    "test": "best epoch on test (optimistic: the peers' habit)",
}
TEST_SET = ("split", "test_set", "videos", "videos_total", "queries", "weights")  # one table, one value of each


def run(params: Params, table: str) -> str:
    """Write results/TABLE.csv, .md and .png, and results/costsN.csv (of a table named tableN).

    CSV: one row per variant in the table's order; each metric as METRIC_mean and METRIC_std (sample standard deviation
    over the seeds, empty with one seed), in percent where it is a share. Raises UserError if a run is missing, partial
    or made with other parameters, or if two runs were not evaluated on the same test set.
    """
    if table not in params.tables:
        raise UserError(f"params.yaml: tables: there is no {table!r}{hint(table, params.tables)}")
    layout = params.tables[table]
    runs = pd.DataFrame(_read(params, variant, seed) for variant in layout.variants for seed in params.seeds)
    _refuse_unequal(runs)
    rows, results = aggregate(runs), Path("results")
    write_text(results / f"{table}.csv", rows.to_csv(index=False, float_format="%.4f", lineterminator="\n"))
    write_text(results / f"{table}.md", markdown(rows, layout))
    with atomic(results / f"{table}.png") as path:
        plots.save(plots.table(rows, layout.title, layout.baseline), path)
    costs = results / f"costs{table.removeprefix('table')}.csv"
    write_text(costs, _costs(runs).to_csv(index=False, float_format="%.3f", lineterminator="\n"))
    tracking.log(params, [run_folder(params, name, seed) for name in layout.variants for seed in params.seeds])
    return f"{results / table}.csv, .md, .png and {costs}: {len(rows)} variants x {len(params.seeds)} seeds"


def aggregate(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per variant, in order of appearance: what it rests on, then mean and std of every metric over seeds."""
    groups = runs.groupby("variant", sort=False)
    facts = ["label", "dataset", "backbone", "parameters", "videos", "videos_total", "queries", "protocol"]
    rows = groups[facts].first().assign(seeds=groups.size())
    figures = {}
    for metric in _metrics(runs):
        figures |= {f"{metric}_mean": groups[metric].mean(), f"{metric}_std": groups[metric].std(ddof=1)}
    return rows.assign(**figures).reset_index()[["variant", *facts, "seeds", *figures]]


def markdown(rows: pd.DataFrame, layout: Table) -> str:
    """The table to read: a caption that says what it rests on, then retrieval in both directions and twins."""
    parts = [f"# {layout.title}", _caption(rows)]
    facts = {"Method": rows.label, "Trainable": rows.parameters.map("{:,}".format)}
    for direction, name in DIRECTIONS.items():
        parts += [f"## {name}", _section(rows, facts, [f"{direction}_{measure}" for measure in MEASURES])]
        facts = {"Method": rows.label}
    if twins := [metric for metric in _metrics(rows) if metric.startswith("twin_")]:
        about = "Share of captions that prefer their clip over the same scene in reversed time. Chance is 50 %."
        parts += ["## Twin accuracy", f"{about} By kind of caption.", _section(rows, facts, twins)]
    return "\n\n".join(parts) + "\n"


def _caption(rows: pd.DataFrame) -> str:
    first = rows.iloc[0]
    protocols = rows[rows.protocol != "no training"].groupby("protocol", sort=False).label.apply(", ".join)
    chosen = [f"{name} ({labels})" if len(protocols) > 1 else name for name, labels in protocols.items()]
    lines = [
        f"Test split of {first.dataset}, backbone {first.backbone}:",
        f"evaluated {first.videos:,} of {first.videos_total:,} videos with {first.queries:,} queries.",
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
    return " ".join(lines)


def _section(rows: pd.DataFrame, facts: dict[str, pd.Series], metrics: list[str]) -> str:
    columns = facts | {metric.split("_", 1)[1]: _cells(rows, metric) for metric in metrics}
    align = ["left", *["right"] * (len(columns) - 1)]
    return tabulate(columns, headers="keys", tablefmt="pipe", disable_numparse=True, colalign=align)


def _cells(rows: pd.DataFrame, metric: str) -> list[str]:
    """`mean ± std` at one decimal; the best mean is bold, and all that print the same, unless all rows do."""
    means = rows[f"{metric}_mean"].round(1)
    best = means.min() if metric.split("_", 1)[1] in LOWER_IS_BETTER else means.max()
    winners = (means == best) & (means.nunique() > 1)
    spread = rows[f"{metric}_std"].map(lambda std: "" if np.isnan(std) else f" ± {std:.1f}")
    shown = [f"**{mean:.1f}**" if bold else f"{mean:.1f}" for mean, bold in zip(means, winners, strict=True)]
    return [mean + std for mean, std in zip(shown, spread, strict=True)]


def _metrics(table: pd.DataFrame) -> list[str]:
    """Names of the metrics among the columns of runs or rows: both directions, then twins, over all kinds first."""
    names = dict.fromkeys(name.removesuffix("_mean") for name in table.columns if not name.endswith("_std"))
    twins = sorted(name for name in names if name.startswith("twin_") and name != "twin_all")
    directions = [f"{direction}_{measure}" for direction in DIRECTIONS for measure in MEASURES]
    return directions + (["twin_all"] if "twin_all" in names else []) + twins


def _read(params: Params, variant: str, seed: int) -> dict:
    """One run as a flat row. Raises UserError if a file is missing or does not belong to the present parameters."""
    again = {stage: f"run `rap {stage} --variant {variant} --seed {seed}`" for stage in ("train", "evaluate")}
    folder, files = run_folder(params, variant, seed), {}
    for name, stage in {"run": "train", "costs": "train", "metrics": "evaluate"}.items():
        path = folder / f"{name}.json"
        try:
            files[name] = read_json(path)
        except FileNotFoundError:
            raise UserError(f"{path}: not there; {again[stage]}") from None
        except ValueError as error:
            raise UserError(f"{path}: not valid JSON ({error}); {again[stage]}") from None
    about, figures = files["run"], files["metrics"]
    if about["digests"]["params"] != params_digest(params, variant, seed):
        raise UserError(
            f"{folder / 'run.json'}: made with other parameters than those of params.yaml; {again['train']}"
        )
    if figures["digests"] != about["digests"]:
        raise UserError(f"{folder / 'metrics.json'}: not of the present training of this run; {again['evaluate']}")
    return {
        "variant": variant,
        "label": params.all_variants[variant].label or variant,
        "parameters": about["parameters"],
        "protocol": PROTOCOLS[about["selected"]] if about["steps"] else "no training",
        "dataset": about["dataset"],
        "backbone": about["backbone"],
        "weights": about["digests"]["backbone"],
        **{name: figures[name] for name in ("split", "test_set", "videos", "videos_total", "queries")},
        **{f"{d}_{measure}": figures[d][measure] for d in DIRECTIONS for measure in MEASURES},
        **{f"twin_{kind}": share for kind, share in figures.get("twin", {}).items()},
        **files["costs"],
    }


def _refuse_unequal(runs: pd.DataFrame) -> None:
    """One table has one test set: the same videos, queries and weights behind every row."""
    for name in TEST_SET:
        other = runs[runs[name] != runs[name].iloc[0]]
        if len(other):
            raise UserError(
                f"results/runs: {runs.variant.iloc[0]} and {other.variant.iloc[0]} differ in {name}: "
                f"{runs[name].iloc[0]} and {other[name].iloc[0]}; one table has one test set: train and evaluate both"
            )


def _costs(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per variant: mean seconds of training, highest peak memory, bytes of its caches, devices used."""
    rows = runs.groupby("variant", sort=False).agg(
        label=("label", "first"),
        parameters=("parameters", "first"),
        seeds=("variant", "size"),
        train_seconds=("train_seconds", "mean"),
        peak_memory_bytes=("peak_memory_bytes", "max"),
        cache_bytes=("cache_bytes", "max"),
        device=("device", lambda names: " + ".join(sorted(set(names)))),
    )
    return rows.reset_index()
