"""The report stage: results/report.html, one file that needs no network, its figures as SVG and its tables as LaTeX."""

from importlib import resources
from typing import TYPE_CHECKING

import jinja2
import pandas as pd
import yaml

from rap import paths
from rap.data.manifest import Manifest
from rap.data.registry import held_out
from rap.files import digest, digest_file, write_text
from rap.params import Params
from rap.provenance import Record
from rap.report import dataset
from rap.report.page import figures, gallery, latex, looks, tables
from rap.report.runs import read_costs

if TYPE_CHECKING:
    from rap.jobs import Job

ABOUT = {
    "accuracy": "R@1 against trainable parameters",
    "time": "R@1 against the time of a training",
    "losses": "The loss of every training",
    "twins": "Twin accuracy by kind of caption",
    "modulation": "LoRM's scale and shift of each frame and block",
    "attention": "The patches that ASA changes most, and its offsets",
}


def run(job: "Job") -> str:
    """Write results/report.html, its record, results/figures/NAME.svg and results/latex/TABLE.tex.

    The page holds every table of the default run with its intervals; accuracy against parameters and training time;
    losses; twin accuracy by kind; the trained LoRM and ASA; queries with their hits; the state of the data; and the
    record of each table. Times of training vary, so only the page shows them. Raises UserError if a table, a run or the
    frames are missing, stale or damaged.
    """
    params = job.params
    named = job.tables
    records = {name: job.reads(paths.table(name).record, whole=True) for name in named}
    for variant in params.run:
        for seed in params.seeds:
            job.reads(paths.run(variant, seed).record, whole=True)
            job.reads(paths.run(variant, seed).evaluation, whole=True)
    for shard in params.shards:
        job.reads(paths.frames(params.dataset.name, shard).record)
    rows = {name: pd.read_csv(paths.table(name).csv, keep_default_na=False, na_values=[""]) for name in named}
    drawn, layouts = _draw(params, rows), params.tables
    found = gallery.examples(params, gallery.chosen_variant(params))
    val = held_out(params)
    values = {
        "dataset": params.dataset.name,
        "facts": _facts(rows[named[0]]),
        "tables": [tables.view(name, rows[name], layouts[name], val) for name in named],
        "figures": {name: figures.inline(figure, ABOUT[name]) for name, figure in drawn.items()},
        "time": figures.inline(figures.against_time(rows[named[0]], _seconds(params)), ABOUT["time"]),
        "gallery": found,
        "health": _health(params),
        "records": _records(records),
        "params": yaml.safe_dump(job.about.settings(params, {}), sort_keys=False, allow_unicode=True),
    }
    write_text(paths.REPORT, _template().render(values))
    for name, figure in drawn.items():
        figures.save(figure, paths.figure(name))
    for name in named:
        write_text(paths.latex(name), latex.table(rows[name], layouts[name], val))
    written = [paths.REPORT, *map(paths.figure, drawn), *map(paths.latex, named)]
    files = {str(file.relative_to(paths.RESULTS)): digest_file(file) for file in written}
    job.result(digest(files), files).write(paths.REPORT_RECORD)
    size = paths.REPORT.stat().st_size / 1e6
    return f"{paths.REPORT}: {len(named)} tables, {len(drawn) + 1} figures, {len(found)} queries, {size:.1f} MB"


def _template() -> jinja2.Template:
    text = resources.files("rap.report.page").joinpath("report.html").read_text(encoding="utf-8")
    return jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(text)


def _draw(params: Params, rows: dict[str, pd.DataFrame]) -> dict:
    """The figures by name, without those for which the run has no data."""
    first = next(iter(rows.values()))
    drawn = {
        "accuracy": figures.against_parameters(first),
        "losses": figures.losses(params),
        "twins": figures.by_kind(first),
        "modulation": looks.modulation(params),
        "attention": looks.where_asa_writes(params),
    }
    return {name: figure for name, figure in drawn.items() if figure is not None}


def _seconds(params: Params) -> pd.Series:
    """The mean time of training, in seconds by variant; NaN if unknown."""
    taken = {v: [read_costs(paths.run(v, seed)).get("train_seconds") for seed in params.seeds] for v in params.run}
    return pd.DataFrame(taken).astype(float).mean()


def _facts(rows: pd.DataFrame) -> list[tuple[str, str]]:
    first = rows.iloc[0]
    return [
        ("test videos", f"{first.videos:,} of {first.videos_total:,}"),
        ("queries", f"{first.queries:,}"),
        ("seeds", f"{first.seeds}"),
        ("backbone", first.backbone),
    ]


def _health(params: Params) -> list[dict]:
    manifest = Manifest.read(paths.manifest(params.dataset.name))
    why = dataset.reasons(params, manifest.videos)
    videos = manifest.videos.assign(seconds=dataset.clip_seconds(manifest.videos), why=why)
    return [
        {"title": "Videos by split", "text": dataset.overview(videos, manifest.captions)},
        {"title": "Lengths", "text": dataset.lengths(videos, manifest.captions)},
        {"title": "Failed videos", "text": dataset.failures(videos) or "none"},
        *({"title": "Note", "text": note} for note in manifest.notes),
    ]


def _records(records: dict[str, Record]) -> list[dict]:
    return [
        {"table": name, "digests": {**record.facts, "record": record.provenance.digest}}
        for name, record in records.items()
    ]
