"""The evaluate stage, and its ranks alone, compared with sorting a matrix in memory; and scoring of text-video pairs.

    python benchmarks/evaluation.py

Ours is the evaluate stage of zero-shot CLIP, from caches of noise to similarity.npy, ranks.parquet and figures.json,
and its ranks alone from a mapped file. The baseline keeps the whole matrix in memory, sorts every row, and finds the
position of the right item; for several captions per video it pads them to a block, as CLIP4Clip does. It writes
nothing. Each measurement runs in its own process, whose own memory is recorded.

Pairs: RAP with `asa.query: text` in the last block encodes a clip for every text. A block of pairs is compared with
encoding one text at a time from the cached tokens. Three minutes on two cores.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
import typer
from lib import ceilings, ours, projects, report, turns
from lib.projects import Size
from torch import Tensor

from rap.data.manifest import Manifest
from rap.features.cache import Batch
from rap.params import Params
from rap.retrieval import metrics

SIZES = ((1_000, 1_000), (27_000, 5_000))  # captions, videos
VARIANT = "zero_shot_0"
CONDITIONED = {
    "adapter": "rap", "lorm": {"blocks": [-1], "text": "none"},
    "asa": {"blocks": [-1], "form": "attention", "query": "text", "top_k": 4},
}  # fmt: skip
BLOCKS = {"demo-vit": (8, 32, 32), "ViT-B-32": (12, 16, 16)}  # frames, clips, texts
WIDTH = 512  # of the joint space of a ViT-B
MATRIX = (
    "what | seconds | floor, s | baseline, s | ratio | own memory, MB | baseline, MB | the matrix, MB",
    "{what} | {ours[seconds]:.2f} | {floor:.2f} | {theirs[seconds]:.2f} | {ratio:.1f} | {ours[megabytes]:,.0f} | "
    "{theirs[megabytes]:,.0f} | {MB:,.0f}",
)
PAIRS = (
    "backbone | pairs in a block | pairs per second | floor | one text at a time | ratio",
    "{name}, {frames} frames | {pairs:,} | {together:,.0f} | {floor:,.0f} | {alone:,.0f} | {ratio:.1f}",
)


def main(
    captions: int | None = None,
    videos: int = 5_000,
    backbones: str = ",".join(BLOCKS),
    repeats: int = 3,
    threads: int = 2,
) -> None:
    """`captions` by `videos` replaces the two default sizes."""
    out, cpu = report.Report("evaluation"), torch.device("cpu")
    torch.set_num_threads(threads)
    rate = ceilings.rate([(WIDTH, videos)], torch.float32, cpu, repeats)
    top = ceilings.Ceilings({"float32": rate}, ceilings.bandwidth(cpu, repeats))
    sizes = [(captions, videos)] if captions else SIZES
    matrices = [row for size in sizes for row in matrix(*size, top, repeats)]
    pairs = [blocks(name, *BLOCKS[name], repeats) for name in backbones.split(",")]
    out.write(
        {"ceilings": top.figures(), "matrices": matrices, "pairs": pairs},
        f"Captions x videos, medians of {repeats} turns. {top.sentence()}",
        report.table(matrices, MATRIX),
        "Where the text takes part, pairs per second:",
        report.table(pairs, PAIRS),
    )


def matrix(captions: int, videos: int, top: ceilings.Ceilings, repeats: int) -> list[dict]:
    """Costs of the stage and of its ranks, and of their counterparts; floors: the product, and reading the matrix."""
    size = Size(trained=2, tested=videos, queries=captions, width=WIDTH)
    with projects.workplace():
        settings = projects.make_small(size)
        ours.train(settings, VARIANT)
        ours.evaluate(settings, VARIANT)
        ways = {way.__name__: partial(way, size) for way in (stage, in_memory, ranks, sorting)}
        costs = {name: vars(cost) for name, cost in turns.costs(ways, repeats).items()}
    nbytes = 4 * captions * videos
    floors = {"stage": top.floor(2 * WIDTH * captions * videos, nbytes), "ranks": top.floor(0, nbytes)}
    return [
        {
            "what": f"{captions:,} x {videos:,}, {what}",
            "ours": costs[mine],
            "theirs": costs[other],
            "ratio": costs[other]["seconds"] / costs[mine]["seconds"],
            "floor": floors[mine],
            "MB": nbytes / 1e6,
        }
        for what, mine, other in (("the stage", "stage", "in_memory"), ("its ranks", "ranks", "sorting"))
    ]


def stage(size: Size) -> Callable[[], object]:
    return partial(ours.evaluate, projects.small(size), VARIANT)


def in_memory(size: Size) -> Callable[[], object]:
    """The baseline from the same caches."""
    settings = projects.small(size)
    torch.set_num_threads(settings.runtime.threads)

    def work() -> tuple[np.ndarray, np.ndarray]:
        split = ours.read_manifest(settings).split("test")
        clips = unit(whole_cache(settings, "video-all", split.videos.video_id)).mean(1)
        texts = unit(whole_cache(settings, "text-all", split.captions.caption_id))
        return sorted_ranks((texts @ unit(clips).T).numpy(), owners(split))

    return work


def whole_cache(settings: Params, name: str, ids: list[str]) -> Tensor:
    found = ours.rows_by_id(settings, name)
    return torch.from_numpy(np.stack([found[id] for id in ids])).float()


def owners(split: Manifest) -> np.ndarray:
    """The column of each caption's video."""
    return split.captions.video_id.map({id: n for n, id in enumerate(split.videos.video_id)}).to_numpy(int)


def ranks(size: Size) -> Callable[[], object]:
    similarity, owner = evaluated(size)
    return lambda: (metrics.text_to_video(similarity, owner), metrics.video_to_text(similarity, owner))


def sorting(size: Size) -> Callable[[], object]:
    similarity, owner = evaluated(size)
    return lambda: sorted_ranks(np.array(similarity), owner)


def evaluated(size: Size) -> tuple[np.ndarray, np.ndarray]:
    """The similarity matrix that the stage wrote, memory-mapped, and the owners of its rows."""
    settings = projects.small(size)
    split = ours.read_manifest(settings).split("test")
    return np.load(ours.run_folder(settings, VARIANT).similarity, mmap_mode="r"), owners(split)


def sorted_ranks(similarity: np.ndarray, owner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of both directions by sorting, int [captions] and [videos]; a video has the rank of its best caption."""
    text_to_video = np.argmax(np.argsort(-similarity, axis=1) == owner[:, None], axis=1) + 1
    counts = np.bincount(owner, minlength=similarity.shape[1])
    block = np.full((len(counts), counts.max(), len(counts)), -np.inf, np.float32)
    for video in range(len(counts)):
        block[video, : counts[video]] = similarity[owner == video]
    best = block.max(axis=1).T
    video_to_text = np.argmax(np.argsort(-best, axis=1) == np.arange(len(best))[:, None], axis=1) + 1
    return text_to_video, video_to_text


@torch.no_grad()
def blocks(name: str, frames: int, clips: int, texts: int, repeats: int) -> dict:
    """Pairs per second of a text-conditioned last block on clips of noise, with both methods, and at the ceiling."""
    found = projects.values(name, [], frames)
    found["variants"]["conditioned"] = CONDITIONED
    model = ours.model(projects.random_clip(projects.config(name)), projects.load(found), "conditioned")
    tower = model.clip.visual
    noise = torch.randn(clips, frames, tower.grid**2 + 1, tower.width)
    batch, queries = (
        Batch(noise, torch.full((clips,), frames), tower.layers - 1),
        unit(torch.randn(texts, model.clip.embed_dim)),
    )
    ways = {
        "together": lambda: model.pairs(batch, queries),
        "alone": lambda: [model.pairs(batch, query[None]) for query in queries],
    }
    taken, pairs = turns.take(ways, repeats, name), clips * texts
    rate = ceilings.rate(ceilings.shapes(tower), torch.float32, torch.device("cpu"), repeats)
    return {
        "name": name,
        "frames": frames,
        "pairs": pairs,
        **{way: pairs / turns.median(taken, way) for way in ways},
        "floor": pairs * rate / ours.counted(ways["together"]),
        "ratio": turns.ratio(taken, "alone", "together"),
    }


def unit(x: Tensor) -> Tensor:
    return F.normalize(x, dim=-1)


if __name__ == "__main__":
    typer.run(main)
