"""Evaluation: similarity and ranks of 1,000 x 1,000 and 27,000 x 5,000, and scoring of pairs where the text takes part.

    python benchmarks/evaluation.py

Ours is the stage itself, `rap.evaluation.stage.run` on zero-shot CLIP, from caches of noise to similarity.npy,
ranks.parquet and metrics.json, and its ranks alone, of a mapped file. The obvious road has the whole matrix in memory,
sorts every row of it, and looks where the right item came out; of many captions a video it makes a padded block, as the
peers do.
It writes nothing. Every turn is a process of its own, whose own memory is watched.

Pairs: RAP with `asa.query: text` in the last block. 1,000 x 1,000 on the demo's backbone, once; and, both backbones, a
block of pairs in turns with the obvious road: a text at a time, from the cached tokens. Three minutes on two cores.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import apart
import ceilings
import numpy as np
import report
import scratch
import synthetic
import torch
import torch.nn.functional as F
import turns
import typer
from scratch import Size
from torch import Tensor
from tqdm import trange

from rap import adapters
from rap.data.manifest import Manifest
from rap.evaluation import stage as evaluation
from rap.features.cache import Batch
from rap.params import Params, Variant
from rap.retrieval import metrics
from rap.retrieval.model import Retriever
from rap.shards import Shard
from rap.training import stage as training
from rap.training.costs import counted
from rap.training.run import run_folder

SIZES = ((1_000, 1_000), (27_000, 5_000))  # captions, videos
VARIANT = "zero_shot_0"
ASKED = Variant(adapter="rap", lorm={"blocks": [-1], "text": "none"}, asa={"blocks": [-1], "query": "text"})
BLOCKS = {"demo-vit": (8, 32, 32), "ViT-B-32": (12, 16, 16)}  # frames, clips, texts
WIDTH = 512  # of the joint space of a ViT-B


def main(
    captions: int | None = None,
    videos: int = 5_000,
    pairs: int = 1_000,
    backbones: str = ",".join(BLOCKS),
    repeats: int = 3,
    threads: int = 2,
    results: Path = report.RESULTS,
) -> None:
    """`captions` by `videos` instead of the usual sizes; `pairs` clips, and as many texts, on the first backbone."""
    torch.set_num_threads(threads)
    results, about = results.resolve(), report.machine()
    cpu, names = torch.device("cpu"), backbones.split(",")
    rate = ceilings.rate([(WIDTH, videos)], torch.float32, cpu, repeats)
    top = ceilings.Ceilings({"float32": rate}, ceilings.bandwidth(cpu, repeats))
    matrices = [matrix(*size, top, repeats) for size in ([(captions, videos)] if captions else SIZES)]
    found = {name: blocks(name, *BLOCKS[name], repeats) for name in names}
    seconds = whole(names[0], BLOCKS[names[0]][0], pairs)
    report.write(
        results,
        "evaluation",
        {
            "machine": about,
            "ceilings": vars(top),
            "matrices": matrices,
            "pairs": found,
            "side": pairs,
            "whole": seconds,
        },
        report.sentence(about),
        f"Captions x videos, medians of {repeats} turns. {ceilings.sentence(top)}",
        report.table([row for one in matrices for row in matrix_rows(one)]),
        "Where the text takes part, pairs a second:",
        report.table([pair_row(name, one) for name, one in found.items()]),
        f"{pairs:,} x {pairs:,} pairs with {names[0]}, once: {seconds:.0f} s, {pairs**2 / seconds:,.0f} a second.",
        doc=report.ROOT / "docs/performance.md",
    )


def matrix(captions: int, videos: int, top: ceilings.Ceilings, repeats: int) -> dict:
    """Costs of both roads, of the stage and of the ranks alone, and floors: the product, and the matrix once."""
    size = Size(trained=2, tested=videos, queries=captions, width=WIDTH)
    with tempfile.TemporaryDirectory() as folder:
        opened(folder, size)
        roads = {"stage": stage, "in memory": in_memory, "ranks": ranks, "sorted": in_memory_ranks}
        costs = apart.take({name: (road, folder, size) for name, road in roads.items()}, repeats)
        os.chdir(synthetic.ROOT)
    nbytes = 4 * captions * videos
    return {
        "captions": captions,
        "videos": videos,
        "matrix_bytes": nbytes,
        "costs": {name: vars(cost) for name, cost in costs.items()},
        "floors": {"stage": top.floor(2 * WIDTH * captions * videos, nbytes), "ranks": top.floor(0, nbytes)},
    }


def opened(folder: str, size: Size) -> Params:
    """A project in which zero-shot CLIP is trained and evaluated."""
    settings = scratch.make(folder, size)
    training.run(settings, VARIANT, 0)
    evaluation.run(settings, VARIANT, 0)
    return settings


def stage(folder: str, size: Size) -> Callable[[], object]:
    return partial(evaluation.run, scratch.enter(folder, size), VARIANT, 0)


def in_memory(folder: str, size: Size) -> Callable[[], object]:
    """The obvious road: everything in memory, from the same caches."""
    settings = scratch.enter(folder, size)
    torch.set_num_threads(settings.runtime.threads)

    def work() -> tuple[np.ndarray, np.ndarray]:
        split = Manifest.read(settings.data / "manifest").split("test")
        clips = F.normalize(whole_cache(settings, "video-all", split.videos.video_id), dim=-1).mean(1)
        texts = F.normalize(whole_cache(settings, "text-all", split.captions.caption_id), dim=-1)
        similarity = texts @ F.normalize(clips, dim=-1).T
        return sorted_ranks(similarity.numpy(), owners(split))

    return work


def whole_cache(settings: Params, name: str, ids: Iterable[str]) -> Tensor:
    shards = [Shard.read(settings.data / "features" / name / f"shard-{number}") for number in settings.shards]
    found = {id: row for shard in shards for id, row in zip(shard.index.id, np.asarray(shard.array), strict=True)}
    return torch.from_numpy(np.stack([found[id] for id in ids])).float()


def owners(split: Manifest) -> np.ndarray:
    """Each caption's column."""
    return split.captions.video_id.map({id: n for n, id in enumerate(split.videos.video_id)}).to_numpy(int)


def ranks(folder: str, size: Size) -> Callable[[], object]:
    similarity, owner = similar(folder, size)
    return lambda: (metrics.text_to_video(similarity, owner), metrics.video_to_text(similarity, owner))


def in_memory_ranks(folder: str, size: Size) -> Callable[[], object]:
    similarity, owner = similar(folder, size)
    return lambda: sorted_ranks(np.array(similarity), owner)


def similar(folder: str, size: Size) -> tuple[np.ndarray, np.ndarray]:
    """What the stage wrote, memory-mapped, and each caption's column."""
    settings = scratch.enter(folder, size)
    split = Manifest.read(settings.data / "manifest").split("test")
    return np.load(run_folder(settings, VARIANT, 0) / "similarity.npy", mmap_mode="r"), owners(split)


def sorted_ranks(similarity: np.ndarray, owner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of both directions, from 1, by sorting: of a video, its best caption among the best of all videos."""
    text_to_video = np.argmax(np.argsort(-similarity, axis=1) == owner[:, None], axis=1) + 1
    counts = np.bincount(owner, minlength=similarity.shape[1])
    block = np.full((len(counts), counts.max(), len(counts)), -np.inf, np.float32)
    for video in range(len(counts)):
        block[video, : counts[video]] = similarity[owner == video]
    best = block.max(axis=1).T
    video_to_text = np.argmax(np.argsort(-best, axis=1) == np.arange(len(best))[:, None], axis=1) + 1
    return text_to_video, video_to_text


def asked(name: str, frames: int) -> tuple[Retriever, Callable[[int], Batch]]:
    """A model with a text-conditioned last block, and clips of noise at its input."""
    settings = synthetic.load(synthetic.values(name, [], frames)).model_copy(update={"variants": {"asked": ASKED}})
    clip = synthetic.random_clip(name)
    tower = clip.visual
    shape = (frames, tower.grid**2 + 1, tower.width)
    model = Retriever(clip, adapters.build(clip, settings, "asked"))
    return model, lambda count: Batch(torch.randn(count, *shape), torch.full((count,), frames), tower.layers - 1)


@torch.no_grad()
def blocks(name: str, frames: int, clips: int, texts: int, repeats: int) -> dict:
    """Seconds of a block of pairs on both roads, and its floor: its products at the rate of the tower's own."""
    model, noise = asked(name, frames)
    batch, queries = noise(clips), unit(texts, model)
    roads = {
        "together": lambda: model.pairs(batch, queries),
        "a text at a time": lambda: [model.pairs(batch, query[None]) for query in queries],
    }
    taken = turns.take(roads, repeats, name)
    rate = ceilings.rate(ceilings.shapes(model.clip.visual), torch.float32, torch.device("cpu"), repeats)
    return {
        "frames": frames,
        "pairs": clips * texts,
        "seconds": {road: turns.median(taken, road) for road in roads},
        "floor": counted(lambda: model.pairs(batch, queries)) / rate,
    }


@torch.no_grad()
def whole(name: str, frames: int, side: int, batch: int = 32) -> float:
    """Seconds for cosines of so many clips with as many texts, a batch of clips at a time."""
    model, noise = asked(name, frames)
    queries, clips = unit(side, model), noise(min(side, batch))
    began = time.perf_counter()
    for start in trange(0, side, batch, desc=f"{side:,} x {side:,} pairs"):
        rows = min(batch, side - start)
        model.pairs(Batch(clips.x[:rows], clips.length[:rows], clips.position), queries)
    return time.perf_counter() - began


def unit(count: int, model: Retriever) -> Tensor:
    return F.normalize(torch.randn(count, model.clip.embed_dim), dim=-1)


def matrix_rows(one: dict) -> list[dict]:
    kinds = {"the stage": ("stage", "in memory"), "its ranks": ("ranks", "sorted")}
    return [
        {
            "what": f"{one['captions']:,} x {one['videos']:,}, {kind}",
            "seconds": f"{one['costs'][ours]['seconds']:.2f}",
            "floor, s": f"{one['floors'][ours]:.2f}",
            "baseline, s": f"{one['costs'][theirs]['seconds']:.2f}",
            "ratio": f"{one['costs'][theirs]['seconds'] / one['costs'][ours]['seconds']:.1f}",
            "own memory, MB": f"{one['costs'][ours]['bytes'] / 1e6:,.0f}",
            "baseline, MB": f"{one['costs'][theirs]['bytes'] / 1e6:,.0f}",
            "the matrix, MB": f"{one['matrix_bytes'] / 1e6:,.0f}",
        }
        for kind, (ours, theirs) in kinds.items()
    ]


def pair_row(name: str, one: dict) -> dict:
    per = {road: one["pairs"] / seconds for road, seconds in one["seconds"].items()}
    return {
        "backbone": f"{name}, {one['frames']} frames",
        "pairs in a block": f"{one['pairs']:,}",
        "pairs a second": f"{per['together']:,.0f}",
        "floor": f"{one['pairs'] / one['floor']:,.0f}",
        "a text at a time": f"{per['a text at a time']:,.0f}",
        "ratio": f"{per['together'] / per['a text at a time']:.1f}",
    }


if __name__ == "__main__":
    typer.run(main)
