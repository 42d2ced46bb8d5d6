"""The evaluate stage: a trained adapter on the test split, in both directions, with the rank of every query."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from rap import paths
from rap.clip.backbone import identity
from rap.errors import UserError
from rap.evaluation import rerank
from rap.files import allocate, atomic, digest, digest_file, write_json
from rap.retrieval import adapter_file, metrics, twins
from rap.retrieval.corpus import Corpus, Split, open_corpus, records
from rap.retrieval.model import Retriever, new_model
from rap.retrieval.scoring import DIGITS, blocks
from rap.runtime import distributed
from rap.runtime.device import setup

if TYPE_CHECKING:
    from pathlib import Path

    from rap.jobs import Job

SPLIT = "test"
WRITTEN = 1 << 24  # cosines per write
HEADLINES = (
    "t2v.R@1",
    "t2v.R@5",
    "t2v.R@10",
    "t2v.MnR",
    "v2t.R@1",
    "twin.all",
)  # of all figures: for `dvc metrics show`


def run(job: "Job", variant: str, seed: int) -> str:
    """Write figures.json, metrics.json, ranks.parquet, similarity.npy and the record evaluation.json of one run.

    figures.json holds every figure, metrics.json the few HEADLINES.

    similarity.npy: cosines, float32 [captions, videos], to DIGITS digits, rows and columns in the manifest's order. It
    is written a few columns at a time, so the matrix is never in memory as a whole. `evaluation.post` adds figures and
    ranks.
    """
    params, folder = job.params, paths.run(variant, seed)
    device = setup(params.runtime)
    model, config = new_model(params, variant, seed, device)
    job.reads(folder.record, folder.adapter.name)
    job.reads(paths.backbone(params.backbone.name).record)
    for record in records(params, model):
        job.reads(record)
    corpus = open_corpus(params, model)
    load_weights(model, folder.adapter, config)
    split = corpus.split(SPLIT)
    if distributed.is_main():
        folder.evaluation.unlink(missing_ok=True)
    similarity = fill(model, corpus, split, folder.similarity, params.features.batch)
    banks = {name: rerank.bank(name, model, corpus, split, params) for name in params.evaluation.post}
    if not distributed.is_main():
        return ""
    figures, ranks = assess(similarity, similarity, split, corpus.manifest.videos)
    figures["post"], tables = {}, [ranks.assign(post="")]
    for name, bank in banks.items():
        scores = rerank.apply(name, float(model.clip.logit_scale.exp()), similarity, bank)
        figures["post"][name], ranks = assess(*scores, split, corpus.manifest.videos)
        tables.append(ranks.assign(post=name))
    with atomic(folder.ranks) as path:
        pd.concat(tables, ignore_index=True).to_parquet(path, index=False)
    write_json(folder.figures, figures)
    write_json(folder.metrics, headlines(figures))
    test_set = digest([split.videos, split.captions[["caption_id", "caption"]].to_dict("list")])
    files = {file.name: digest_file(file) for file in folder.evaluated}
    result = job.result(digest(files), files, variant=variant, seed=seed, split=SPLIT, test_set=test_set)
    result.write(folder.evaluation)
    twin = f", twin accuracy {figures['twin']['all']:.1f} %" if "twin" in figures else ""
    return (
        f"{folder}: {len(split.videos)} of {split.total} videos, {len(split.captions)} queries, "
        f"t2v R@1 {figures['t2v']['R@1']:.1f} %{twin}"
    )


def load_weights(model: Retriever, file: "Path", config: dict) -> None:
    """Load an adapter file into a model. Raises UserError if it is absent, damaged, or of another backbone or form."""
    header, weights = adapter_file.read(file)
    if header.backbone.digest != identity(config):
        raise UserError(f"{file}: trained on another backbone; run `rap train` again")
    try:
        model.adapter.load_state_dict(weights)
    except RuntimeError:
        raise UserError(f"{file}: its weights do not fit the variant in params.yaml; run `rap train` again") from None


def fill(model: Retriever, corpus: Corpus, split: Split, file: "Path", batch: int) -> np.ndarray:
    """Write the similarity matrix of a split to `file`, some columns at a time, and map it into memory.

    With several processes, the main process writes; the others get an empty matrix.
    """
    captions = split.captions.caption_id.tolist()
    found = blocks(model, corpus.video, corpus.text, split.videos, captions, batch)
    if not distributed.is_main():
        return np.concatenate([block[:0] for block in found], axis=1)
    with atomic(file) as path:
        shape, column = (len(captions), len(split.videos)), 0
        matrix = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        allocate(path, path.stat().st_size)
        for columns in wider(found, max(1, WRITTEN // len(captions))):
            matrix[:, column : column + columns.shape[1]] = columns.round(DIGITS)
            column += columns.shape[1]
        matrix.flush()
    return np.load(file, mmap_mode="r")


def wider(blocks: Iterable[np.ndarray], columns: int) -> Iterator[np.ndarray]:
    """The same matrix in blocks of at least `columns` columns, except the last: each block is a pass over the file."""
    held = []
    for block in blocks:
        held.append(block)
        if sum(part.shape[1] for part in held) >= columns:
            yield np.concatenate(held, axis=1)
            held = []
    if held:
        yield np.concatenate(held, axis=1)


def assess(to_video: np.ndarray, to_text: np.ndarray, split: Split, videos: pd.DataFrame) -> tuple[dict, pd.DataFrame]:
    """The figures of figures.json, and the rank of every query.

    `to_video` and `to_text`: scores [captions, videos] with captions and with videos as queries; one matrix, unless
    they are post-processed. `videos`: the manifest's.
    """
    owner = split.owner
    kind = split.captions.kind.to_numpy(object)
    t2v, v2t = metrics.text_to_video(to_video, owner), metrics.video_to_text(to_text, owner)
    figures = {
        "videos": len(split.videos),
        "videos_total": split.total,
        "queries": len(owner),
        "t2v": metrics.summary(t2v),
        "v2t": metrics.summary(v2t),
        "by_kind": {name: metrics.summary(t2v.only(kind == name)) for name in sorted(set(kind) - {""})},
    }
    twin_of = videos.set_index("video_id").twin
    partner = twins.partners(split.videos, [twin_of[id] for id in split.videos])
    wins = twins.wins(to_video, owner, partner)
    accuracy, pairs = twins.accuracy(wins, kind)
    if accuracy:
        figures |= {"twin": accuracy, "twin_pairs": pairs}
    cluster = np.array([min(id, twin_of[id] or id) for id in split.videos], dtype=object)  # a clip and its reversal
    captions = {"id": split.captions.caption_id.to_numpy(object), "cluster": cluster[owner], "kind": kind, "twin": wins}
    clips = {"id": np.array(split.videos, dtype=object), "cluster": cluster}
    return figures, pd.concat([table("t2v", captions, t2v), table("v2t", clips, v2t)], ignore_index=True)


def headlines(figures: dict) -> dict[str, float]:
    """The HEADLINES among the figures, by name; a test set without twins has no twin accuracy."""
    names = [name.split(".") for name in HEADLINES]
    return {f"{part}_{name}": figures[part][name] for part, name in names if part in figures}


def table(direction: str, queries: dict[str, np.ndarray], ranks: metrics.Ranks) -> pd.DataFrame:
    """One row per query: direction, id, cluster of dependent queries, kind, twin of captions, above, ties, expected."""
    facts = pd.DataFrame(queries, columns=["id", "cluster", "kind", "twin"]).iloc[ranks.query].reset_index(drop=True)
    facts.insert(0, "direction", direction)
    return facts.assign(kind=facts.kind.fillna(""), above=ranks.above, ties=ranks.ties, expected=ranks.expected)
