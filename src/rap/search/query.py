"""`rap search`: the videos of the dataset, ranked by their cosine with a text query."""

import numpy as np
from tabulate import tabulate

from rap import paths
from rap.data.registry import videos_folder
from rap.errors import UserError
from rap.params import Params, hint
from rap.retrieval.pretrained import Pretrained, from_pretrained, untrained
from rap.runtime.device import setup
from rap.search import contact_sheet
from rap.search.index import Index, nearest, refresh

SPLITS = ("all", "train", "val", "test")


def run(
    params: Params,
    query: str,
    variant: str,
    seed: int,
    adapter: str | None,
    split: str,
    top: int,
    picture: str | None,
) -> str:
    """A table of the best videos, and one line on what was searched; `picture` gets their frames.

    Raises UserError if the query is empty, or nothing is trained or cached yet.
    """
    query = " ".join(query.split())
    if not query:
        raise UserError('search: the query is empty; say what the video shows, such as `rap search "a dog jumps"`')
    if split not in SPLITS:
        raise UserError(f"search: no split {split!r}{hint(split, SPLITS)}")
    model = opened(params, variant, seed, adapter).to(setup(params.runtime))
    index, made = refresh(params, model)
    index = index.of(split)
    if index.videos.empty:
        raise UserError(f"search: split {split!r} has no video that could be decoded; leave --split out to search all")
    rows, cosines = nearest(index.embeddings, model.texts([query])[0].cpu().numpy(), top)
    if picture:
        contact_sheet.save(contact_sheet.sheet(params, query, index.videos.iloc[rows], cosines), picture)
    found = {
        "rank": range(1, len(rows) + 1),
        "cosine": [f"{cosine:.3f}" for cosine in cosines],
        "video": _names(params, index, rows),
    }
    new = f", {made} indexed now" if made else ""
    lines = [
        tabulate(
            found, headers=["rank", "cosine", "video"], disable_numparse=True, colalign=("right", "right", "left")
        ),
        f"{len(index.videos)} videos searched by {model.header['trained']['variant']}{new}"
        + (f"; their frames: {picture}" if picture else ""),
    ]
    return "\n\n".join(lines)


def opened(params: Params, variant: str, seed: int, adapter: str | None) -> Pretrained:
    """The model of an adapter file or, without one, of a finished run; zero-shot CLIP needs no run."""
    if adapter:
        return from_pretrained(adapter, paths.backbone(params.backbone.name))
    if variant not in params.all_variants:
        raise UserError(f"params.yaml: variants: there is no {variant!r}{hint(variant, params.all_variants)}")
    if params.all_variants[variant].adapter == "none":
        return untrained(params, variant)
    file = paths.run(variant, seed) / "adapter.safetensors"
    if not file.exists():
        raise UserError(f"{file}: not trained yet; run `rap train --variant {variant} --seed {seed}`, or `dvc repro`")
    return from_pretrained(file, paths.backbone(params.backbone.name))


def _names(params: Params, index: Index, rows: np.ndarray) -> list[str]:
    """Each video's path from here, with its span."""
    folder = videos_folder(params)
    return [f"{folder / video.path}{contact_sheet.span(video)}" for video in index.videos.iloc[rows].itertuples()]
