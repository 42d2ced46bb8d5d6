"""The table stage: finished runs become one row per variant, as CSV, Markdown and a picture, and a file of costs.

The table and its picture are deterministic. Wall times and memory are not, so no engine tracks their file.
"""

from typing import TYPE_CHECKING

import pandas as pd

from rap import paths
from rap.data import registry
from rap.errors import UserError
from rap.files import atomic, digest, digest_file, write_text
from rap.params import Params, Table
from rap.report import plots, statistics, tracking
from rap.report.markdown import TESTED, markdown
from rap.report.runs import DIRECTIONS, MEASURES, rows_of
from rap.retrieval import metrics

if TYPE_CHECKING:
    from rap.jobs import Job

TEST_SET = ("split", "test_set", "videos", "videos_total", "queries", "weights")  # the same for all rows of a table


def run(job: "Job", table: str) -> str:
    """Write results/TABLE.csv, .md, .png and the record .json, and results/costsN.csv of a table named tableN.

    CSV: one row per variant in the table's order; each metric as METRIC_mean and METRIC_std (sample standard deviation
    over the seeds, empty with one seed), in percent where it is a share; for some also an interval over queries and
    seeds, METRIC_low and METRIC_high, the difference from the baseline with its interval, METRIC_diff,
    METRIC_diff_low and METRIC_diff_high, and METRIC_p of its test. Raises UserError if a run is missing, stale or
    damaged, or if two runs were not evaluated on the same test set.
    """
    params, layout = job.params, job.params.tables[table]
    chosen = [(variant, seed) for variant in layout.variants for seed in params.seeds]
    runs = pd.concat([rows_of(params, variant, seed, job.reads) for variant, seed in chosen])
    _refuse_unequal(runs)
    rows = uncertain(aggregate(runs), params, layout)
    made = paths.table(table)
    write_text(made.csv, rows.to_csv(index=False, float_format="%.4f", lineterminator="\n"))
    digests = _digests(runs, job)
    write_text(made.md, markdown(rows, layout, digests, registry.held_out(params)))
    with atomic(made.png) as path:
        plots.save(plots.table(rows, layout.title, layout.baseline), path)
    write_text(made.costs, _costs(runs).to_csv(index=False, float_format="%.3f", lineterminator="\n"))
    files = {file.name: digest_file(file) for file in made.files}
    job.result(digest(files), files, **digests).write(made.record)
    tracking.log(params, [paths.run(variant, seed) for variant, seed in chosen])
    return f"{made.csv}, .md, .png and {made.costs}: {len(layout.variants)} variants x {len(params.seeds)} seeds"


def aggregate(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per variant and re-ranking, in order of appearance: its facts, then mean and std of every metric."""
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
    figures: dict[str, pd.Series] = {}
    for metric in _metrics(runs):
        figures |= {f"{metric}_mean": groups[metric].mean(), f"{metric}_std": groups[metric].std(ddof=1)}
    return rows.assign(**figures).reset_index()[["variant", *facts, "seeds", *figures]]


def uncertain(rows: pd.DataFrame, params: Params, layout: Table) -> pd.DataFrame:
    """Add intervals, and differences from the baseline with their tests (rap.report.statistics), in percent.

    A metric whose queries form fewer than two clusters gets none.
    """
    queries = {row.variant: _queries(params, row.variant, row.post) for row in rows.itertuples()}
    rows = rows.set_index("variant")
    for metric in TESTED:
        scores = {name: tables[metric] for name, tables in queries.items() if metric in tables}
        if scores and scores[layout.baseline].index.unique("cluster").size > 1:
            rows = rows.join(_compared(scores, layout.baseline).add_prefix(f"{metric}_"))
    return rows.reset_index()


def _compared(scores: dict[str, pd.DataFrame], baseline: str) -> pd.DataFrame:
    """One row per variant: its interval, its difference from the baseline with an interval, and the p of that.

    `scores`: by variant, the tables of `_queries`. The p-values are corrected for the number of differences.
    """
    arrays = {name: table.to_numpy().T for name, table in scores.items()}
    clusters = scores[baseline].index.get_level_values("cluster")
    found = pd.DataFrame(columns=["low", "high", "diff", "diff_low", "diff_high", "p"], index=list(scores), dtype=float)
    for name, array in arrays.items():
        low, high = statistics.estimate(array, clusters).interval
        found.loc[name, ["low", "high"]] = max(low, 0.0), min(high, 100.0)
        if name != baseline:
            apart = statistics.estimate(array, clusters, arrays[baseline])
            found.loc[name, ["diff", "diff_low", "diff_high", "p"]] = apart.mean, *apart.interval, apart.p
    tested = found.p.notna()
    found.loc[tested, "p"] = statistics.holm(found.p[tested].tolist())
    return found


def _queries(params: Params, name: str, post: str) -> dict[str, pd.DataFrame]:
    """By metric, the score of each query in percent: a row for each query id and its cluster, a column for each seed.

    Queries are in the order of their ids, which is the same for all rows of a table.
    """
    folders = {seed: paths.run(name.removesuffix(f"+{post}"), seed) for seed in params.seeds}
    ranks = pd.concat([pd.read_parquet(folder.ranks).assign(seed=s) for s, folder in folders.items()])
    ranks = ranks[ranks.post == post]
    above, ties = ranks.above.to_numpy(), ranks.ties.to_numpy()
    ranks = ranks.assign(score=100 * metrics.Ranks(above, above, ties).within(1))
    chosen = {f"{direction}_R@1": ranks[ranks.direction == direction] for direction in DIRECTIONS}
    twins = ranks.dropna(subset="twin")
    if len(twins):
        chosen["twin_all"] = twins.assign(score=100 * twins.twin)
    return {
        metric: found.pivot(index=["id", "cluster"], columns="seed", values="score") for metric, found in chosen.items()
    }


def _digests(runs: pd.DataFrame, job: "Job") -> dict[str, str]:
    """Digests of the table's inputs. If one of them changes, the table is stale, and `rap verify` reports it.

    `code`: the table stage; `runs`: the content of all runs, that is adapters, settings and figures. The records of the
    runs cover the code that trained and evaluated them.
    """
    first = runs.iloc[0]
    return {"code": job.code, "runs": digest(job.read), "test set": first.test_set, "weights": first.weights}


def _metrics(runs: pd.DataFrame) -> list[str]:
    """Names of the metrics of runs: both directions, then twins, over all kinds first, then R@1 by kind."""
    kinds, twins = (sorted(name for name in runs if name.startswith(part)) for part in ("kind_", "twin_"))
    directions = [f"{direction}_{measure}" for direction in DIRECTIONS for measure in MEASURES]
    return directions + sorted(twins, key=lambda name: name != "twin_all") + kinds


def _refuse_unequal(runs: pd.DataFrame) -> None:
    """Raises UserError unless all rows have the same test videos, queries and weights."""
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
