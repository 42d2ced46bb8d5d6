"""The evaluate stage: a trained adapter against the test split, both directions, every query's rank kept."""

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
from safetensors.torch import load_file

from rap.errors import UserError
from rap.evaluation import rerank as postprocess
from rap.files import atomic, digest, read_json, write_json
from rap.params import Params
from rap.retrieval import metrics, twins
from rap.retrieval.scoring import blocks
from rap.runtime import distributed
from rap.training.run import Experiment, Split

SPLIT = "test"
WRITTEN = 1 << 24  # cosines that are written at once
DIGITS = 5  # of a cosine: sums of the same terms in another order differ in the seventh, and must come out as ties


def run(params: Params, variant: str, seed: int) -> str:
    """Write metrics.json, ranks.parquet and similarity.npy of one run; `evaluation.post` adds to the first two.

    similarity.npy: cosines, float32 [captions, videos], to DIGITS digits, rows and columns in the manifest's order. The
    file is the matrix: no more than a few columns or rows of it are in memory at once.
    """
    experiment = Experiment(params, variant, seed)
    load_adapter(experiment)
    split = experiment.split(SPLIT)
    similarity = fill(experiment, split)
    banks = {name: postprocess.bank(name, experiment, split) for name in params.evaluation.post}
    if not distributed.is_main():
        return ""
    captions = split.captions.caption_id.tolist()
    figures, ranks = assess(similarity, similarity, split, experiment.manifest.videos)
    figures["post"], tables = {}, [ranks.assign(post="")]
    for name, bank in banks.items():
        scores = postprocess.apply(name, experiment, similarity, bank)
        figures["post"][name], ranks = assess(*scores, split, experiment.manifest.videos)
        tables.append(ranks.assign(post=name))
    with atomic(experiment.folder / "ranks.parquet") as path:
        pd.concat(tables, ignore_index=True).to_parquet(path, index=False)
    about = {"variant": variant, "seed": seed, "split": SPLIT, "digests": experiment.digests}
    about["test_set"] = digest([split.videos, split.captions[["caption_id", "caption"]].to_dict("list")])
    write_json(experiment.folder / "metrics.json", {**about, **figures})
    twin = f", twin accuracy {figures['twin']['all']:.1f} %" if "twin" in figures else ""
    return (
        f"{experiment.folder}: {len(split.videos)} of {split.total} videos, {len(captions)} queries, "
        f"t2v R@1 {figures['t2v']['R@1']:.1f} %{twin}"
    )


def fill(experiment: Experiment, split: Split) -> np.ndarray:
    """Write similarity.npy, some columns at a time; the matrix, memory-mapped. The first process writes."""
    captions = split.captions.caption_id.tolist()
    opened = (experiment.model, experiment.video, experiment.text)
    found = blocks(*opened, split.videos, captions, experiment.params.features.batch)
    if not distributed.is_main():
        return np.concatenate([block[:0] for block in found], axis=1)
    file = experiment.folder / "similarity.npy"
    with atomic(file) as path:
        shape, column = (len(captions), len(split.videos)), 0
        matrix = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        for columns in wider(found, max(1, WRITTEN // len(captions))):
            matrix[:, column : column + columns.shape[1]] = columns.round(DIGITS)
            column += columns.shape[1]
        matrix.flush()
    return np.load(file, mmap_mode="r")


def wider(blocks: Iterable[np.ndarray], columns: int) -> Iterator[np.ndarray]:
    """The same matrix in blocks of at least so many columns, but for the last: each is a pass over the whole file."""
    held = []
    for block in blocks:
        held.append(block)
        if sum(part.shape[1] for part in held) >= columns:
            yield np.concatenate(held, axis=1)
            held = []
    if held:
        yield np.concatenate(held, axis=1)


def load_adapter(experiment: Experiment) -> None:
    """The trained weights of a run. Raises UserError if they are absent, or not what params.yaml asks for."""
    path = experiment.folder / "adapter.safetensors"
    again = f"run `rap train --variant {experiment.variant} --seed {experiment.seed}`"
    if not path.exists() or not (experiment.folder / "run.json").exists():
        raise UserError(f"{path}: no finished training here; {again}")
    if read_json(experiment.folder / "run.json")["digests"] != experiment.digests:
        raise UserError(f"{path}: trained with other parameters, data, weights or code than the present ones; {again}")
    experiment.adapter.load_state_dict(load_file(path, device=str(experiment.device)))


def assess(to_video: np.ndarray, to_text: np.ndarray, split: Split, videos: pd.DataFrame) -> tuple[dict, pd.DataFrame]:
    """The figures of metrics.json and the rank of every query.

    `to_video` and `to_text`: scores [captions, videos] for captions and for videos as queries, the same matrix unless
    they are post-processed. `videos`: the manifest's.
    """
    columns = {id: column for column, id in enumerate(split.videos)}
    owner = split.captions.video_id.map(columns).to_numpy(int)
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


def table(direction: str, queries: dict[str, np.ndarray], ranks: metrics.Ranks) -> pd.DataFrame:
    """One row per query: direction, id, unit of dependent queries, kind, twin (of captions), above, ties, expected."""
    facts = pd.DataFrame(queries, columns=["id", "cluster", "kind", "twin"]).iloc[ranks.query].reset_index(drop=True)
    facts.insert(0, "direction", direction)
    return facts.assign(kind=facts.kind.fillna(""), above=ranks.above, ties=ranks.ties, expected=ranks.expected)
