"""The table stage: finished runs become one row per variant, as CSV, Markdown and a picture; costs stand apart.

The table and its picture are deterministic; wall times and memory are not, so they have a file of their own.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from tabulate import tabulate

from rap.errors import UserError
from rap.evaluation import rerank as postprocess
from rap.files import atomic, read_json, write_text
from rap.params import Params, Table, hint
from rap.report import literature as reported
from rap.report import plots, tracking
from rap.report import statistics as uncertainty
from rap.retrieval import metrics
from rap.training.run import params_digest, run_folder

MEASURES = ("R@1", "R@5", "R@10", "MdR", "MnR")
DIRECTIONS = {"t2v": "Text to video", "v2t": "Video to text"}
TESTED = {"t2v_R@1": "text to video R@1", "v2t_R@1": "video to text R@1", "twin_all": "twin accuracy"}
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
    over the seeds, empty with one seed), in percent where it is a share; of some also an interval over queries,
    METRIC_low and METRIC_high, and METRIC_p of a paired test against the baseline. Raises UserError if a run is
    missing, partial or made with other parameters, or if two runs were not evaluated on the same test set.
    """
    if table not in params.tables:
        raise UserError(f"params.yaml: tables: there is no {table!r}{hint(table, params.tables)}")
    layout = params.tables[table]
    runs = pd.concat([_read(params, variant, seed) for variant in layout.variants for seed in params.seeds])
    _refuse_unequal(runs)
    rows, results = uncertain(aggregate(runs), params, layout), Path("results")
    write_text(results / f"{table}.csv", rows.to_csv(index=False, float_format="%.4f", lineterminator="\n"))
    write_text(results / f"{table}.md", markdown(rows, layout))
    with atomic(results / f"{table}.png") as path:
        plots.save(plots.table(rows, layout.title, layout.baseline), path)
    costs = results / f"costs{table.removeprefix('table')}.csv"
    write_text(costs, _costs(runs).to_csv(index=False, float_format="%.3f", lineterminator="\n"))
    tracking.log(params, [run_folder(params, name, seed) for name in layout.variants for seed in params.seeds])
    return f"{results / table}.csv, .md, .png and {costs}: {len(rows)} variants x {len(params.seeds)} seeds"


def aggregate(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per variant and its post-processing, in order of appearance: what it rests on, then mean and std of every
    metric over seeds."""
    groups = runs.groupby("variant", sort=False)
    facts = [
        "label",
        "adapter",
        "post",
        "dataset",
        "backbone",
        "parameters",
        "videos",
        "videos_total",
        "queries",
        "protocol",
    ]
    rows = groups[facts].first().assign(seeds=groups.size())
    figures = {}
    for metric in _metrics(runs):
        figures |= {f"{metric}_mean": groups[metric].mean(), f"{metric}_std": groups[metric].std(ddof=1)}
    return rows.assign(**figures).reset_index()[["variant", *facts, "seeds", *figures]]


def uncertain(rows: pd.DataFrame, params: Params, layout: Table) -> pd.DataFrame:
    """Intervals over queries and paired tests against the baseline (rap.report.statistics), seeds averaged."""
    queries = {row.variant: _queries(params, row.variant, row.post) for row in rows.itertuples()}
    rows = rows.set_index("variant")
    for metric in TESTED:
        found = {name: per_query[metric] for name, per_query in queries.items() if metric in per_query}
        if not found:
            continue
        base = found[layout.baseline]
        others = [name for name in queries if name != layout.baseline]
        tests = uncertainty.holm(
            [
                uncertainty.permutation_test(found[n].score.to_numpy(), base.score.to_numpy(), base.cluster)
                for n in others
            ]
        )
        for name in queries:
            low, high = uncertainty.interval(found[name].score.to_numpy(), found[name].cluster)
            rows.loc[name, [f"{metric}_low", f"{metric}_high"]] = low, high
        rows[f"{metric}_p"] = pd.Series(dict(zip(others, tests, strict=True)), dtype=float)
    return rows.reset_index()


def _queries(params: Params, name: str, post: str) -> dict[str, pd.DataFrame]:
    """By metric, each query's cluster and its score in percent, the mean over seeds; queries in one order."""
    variant = name.removesuffix(f"+{post}")
    tables = [pd.read_parquet(run_folder(params, variant, seed) / "ranks.parquet") for seed in params.seeds]
    ranks = pd.concat(tables, ignore_index=True).query("post == @post")
    above, ties = ranks.above.to_numpy(), ranks.ties.to_numpy()
    ranks = ranks.assign(score=100 * metrics.Ranks(above, above, ties).within(1))
    chosen = {f"{direction}_R@1": ranks[ranks.direction == direction] for direction in DIRECTIONS}
    twins = ranks.dropna(subset="twin")
    if len(twins):
        chosen["twin_all"] = twins.assign(score=100 * twins.twin)
    return {
        metric: rows.groupby("id", sort=True).agg(cluster=("cluster", "first"), score=("score", "mean"))
        for metric, rows in chosen.items()
    }


def markdown(rows: pd.DataFrame, layout: Table) -> str:
    """The table to read: a caption that says what it rests on, then retrieval in both directions and twins."""
    parts = [f"# {layout.title}", _caption(rows)]
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
    parts += ["## Intervals and tests", _about_tests(rows, layout), _tests(rows, layout)]
    if (papers := reported.beside(rows)) is not None:
        about = "Other people's figures, as their sources give them; the difference is ours less theirs."
        parts += ["## Reported in the literature", about, _tabulate(papers.to_dict("list"))]
    return "\n\n".join(parts) + "\n"


def _about_tests(rows: pd.DataFrame, layout: Table) -> str:
    baseline = rows.set_index("variant").label[layout.baseline]
    return (
        f"[low, high]: {uncertainty.LEVEL} % bootstrap interval over queries, seeds averaged, "
        f"{uncertainty.RESAMPLES:,} resamples; the captions of a video, and a clip and its twin, are drawn together. "
        f"p: paired permutation test against {baseline}, two-sided, corrected for the {len(rows) - 1} comparisons of a "
        "column (Holm). Neither covers the choice of training videos."
    )


def _tests(rows: pd.DataFrame, layout: Table) -> str:
    columns = {"Method": rows.label}
    for metric, name in TESTED.items():
        if f"{metric}_low" in rows:
            bounds = zip(rows[f"{metric}_low"], rows[f"{metric}_high"], strict=True)
            columns[name] = [f"[{low:.1f}, {high:.1f}]" for low, high in bounds]
            columns[f"p, {name}"] = ["" if np.isnan(p) else _p(p) for p in rows[f"{metric}_p"]]
    return _tabulate(columns)


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


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
    lines += [postprocess.ABOUT[name] for name in rows.post.unique() if name]
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
    """`mean ± std` at one decimal; the best mean is bold, and all that print the same, unless all rows do."""
    means = rows[f"{metric}_mean"].round(1)
    best = means.min() if metric.split("_", 1)[1] in LOWER_IS_BETTER else means.max()
    winners = (means == best) & (means.nunique() > 1)
    spread = rows[f"{metric}_std"].map(lambda std: "" if np.isnan(std) else f" ± {std:.1f}")
    shown = [f"**{mean:.1f}**" if bold else f"{mean:.1f}" for mean, bold in zip(means, winners, strict=True)]
    return [mean + std for mean, std in zip(shown, spread, strict=True)]


def _metrics(runs: pd.DataFrame) -> list[str]:
    """Names of the metrics of runs: both directions, then twins, over all kinds first, then R@1 by kind."""
    kinds, twins = (sorted(name for name in runs if name.startswith(part)) for part in ("kind_", "twin_"))
    directions = [f"{direction}_{measure}" for direction in DIRECTIONS for measure in MEASURES]
    return directions + sorted(twins, key=lambda name: name != "twin_all") + kinds


def _read(params: Params, variant: str, seed: int) -> pd.DataFrame:
    """One run as a flat row, and one more for each of `evaluation.post`, named VARIANT+POST.

    Raises UserError if a file is missing or does not belong to the present parameters.
    """
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
    if not (folder / "ranks.parquet").exists():
        raise UserError(f"{folder / 'ranks.parquet'}: not there; {again['evaluate']}")
    about, figures = files["run"], files["metrics"]
    if about["digests"]["params"] != params_digest(params, variant, seed):
        raise UserError(
            f"{folder / 'run.json'}: made with other parameters than those of params.yaml; {again['train']}"
        )
    if figures["digests"] != about["digests"]:
        raise UserError(f"{folder / 'metrics.json'}: not of the present training of this run; {again['evaluate']}")
    if not set(params.evaluation.post) <= set(figures["post"]):
        raise UserError(f"{folder / 'metrics.json'}: evaluated with another evaluation.post; {again['evaluate']}")
    facts = {
        "adapter": about["adapter"],
        "parameters": about["parameters"],
        "protocol": PROTOCOLS[about["selected"]] if about["steps"] else "no training",
        "dataset": about["dataset"],
        "backbone": about["backbone"],
        "weights": about["digests"]["backbone"],
        **{name: figures[name] for name in ("split", "test_set", "videos", "videos_total", "queries")},
        **files["costs"],
    }
    label = params.all_variants[variant].label or variant
    rows = [{"variant": variant, "label": label, "post": "", **facts, **_figures(figures)}]
    for name in params.evaluation.post:
        row = {"variant": f"{variant}+{name}", "label": f"{label} + {postprocess.LABELS[name]}", "post": name}
        rows.append(row | facts | _figures(figures["post"][name]))
    return pd.DataFrame(rows)


def _figures(figures: dict) -> dict[str, float]:
    """Both directions, twins and kinds of caption of metrics.json, flat."""
    return {
        **{f"{d}_{measure}": figures[d][measure] for d in DIRECTIONS for measure in MEASURES},
        **{f"twin_{kind}": share for kind, share in figures.get("twin", {}).items()},
        **{f"kind_{kind}": summary["R@1"] for kind, summary in figures.get("by_kind", {}).items()},
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
    """One row per variant: mean seconds of training, highest peak memory, bytes of its caches, FLOPs and index bytes
    of one clip (rap.training.costs), devices used."""
    rows = (
        runs[runs.post == ""]
        .groupby("variant", sort=False)
        .agg(
            label=("label", "first"),
            parameters=("parameters", "first"),
            seeds=("variant", "size"),
            train_seconds=("train_seconds", "mean"),
            peak_memory_bytes=("peak_memory_bytes", "max"),
            cache_bytes=("cache_bytes", "max"),
            flops_per_clip=("flops_per_clip", "first"),
            index_bytes_per_video=("index_bytes_per_video", "first"),
            device=("device", lambda names: " + ".join(sorted(set(names)))),
        )
    )
    return rows.reset_index()
