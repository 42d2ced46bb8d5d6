"""Finished runs as rows of a data frame: the facts and the figures of each."""

from collections.abc import Callable

import pandas as pd

from rap import paths
from rap.errors import UserError
from rap.files import read_checked, read_json
from rap.params import Params
from rap.provenance import Record
from rap.training.run import Costs, Run

MEASURES = ("R@1", "R@5", "R@10", "MdR", "MnR")
DIRECTIONS = {"t2v": "Text to video", "v2t": "Video to text"}
PROTOCOLS = {
    "last": "last epoch",
    "val": "best epoch on val",
    "test": "best epoch on test (optimistic; as in some papers)",
}
LABELS = {"dsl": "DSL", "qb_norm": "QB-norm"}  # labels of rap.evaluation.rerank's methods


def rows_of(params: Params, variant: str, seed: int, reads: Callable[..., Record]) -> pd.DataFrame:
    """One run as a flat row, and one more for each of `evaluation.post`, named VARIANT+POST.

    `reads` opens a record, verifies files beside it, and rejects stale or damaged ones (rap.jobs.Job.reads).
    """
    folder = paths.run(variant, seed)
    run = Run(**reads(folder.record).facts)
    evaluation = reads(folder.evaluation, folder.figures.name, folder.ranks.name)
    figures = read_json(folder.figures)
    facts = {
        "adapter": run.adapter,
        "parameters": run.parameters,
        "protocol": PROTOCOLS[run.selected] if run.steps else "no training",
        "dataset": run.dataset,
        "backbone": run.backbone,
        "weights": run.weights,
        **{name: evaluation.facts[name] for name in ("split", "test_set")},
        **{name: figures[name] for name in ("videos", "videos_total", "queries")},
        **read_costs(folder),
    }
    label = params.variant(variant).label or variant
    rows = [{"variant": variant, "label": label, "post": "", **facts, **flat(figures)}]
    for name in params.evaluation.post:
        row = {"variant": f"{variant}+{name}", "label": f"{label} + {LABELS[name]}", "post": name}
        rows.append(row | facts | flat(figures["post"][name]))
    return pd.DataFrame(rows)


def read_costs(folder: paths.RunFolder) -> dict:
    """Times and memory of a training, unknown in a checkout, because no engine keeps this file.

    Raises UserError if the file is damaged.
    """
    try:
        return Costs(**read_checked(folder.costs)).model_dump()
    except FileNotFoundError:
        return Costs().model_dump()
    except (ValueError, TypeError):
        raise UserError(f"{folder.costs}: damaged; remove it, and the costs of this training are unknown") from None


def flat(figures: dict) -> dict[str, float]:
    """Both directions, twins and kinds of caption of figures.json, without nesting."""
    return {
        **{f"{d}_{measure}": figures[d][measure] for d in DIRECTIONS for measure in MEASURES},
        **{f"twin_{kind}": share for kind, share in figures.get("twin", {}).items()},
        **{f"kind_{kind}": summary["R@1"] for kind, summary in figures.get("by_kind", {}).items()},
    }
