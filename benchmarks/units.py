"""The cost of one clip, one caption and one second of video, multiplied out to the sizes of datasets.

    python benchmarks/units.py FOLDER

FOLDER holds a few typical videos. Everything runs on one core, and figures are CPU seconds, which depend less on other
work than wall time. The backbone has the shape of a ViT-B/32 and random weights.
"""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import typer
from lib import ours, projects, report
from torch import Tensor, UntypedStorage
from tqdm import tqdm

from rap.clip.towers import INPUT, Clip
from rap.features.cache import Batch
from rap.retrieval.model import Retriever

BATCH = 128  # pairs per step in published results
HALF, FLOAT = 2, 4  # bytes
HOUR, GB = 3600, 1e9  # seconds, bytes
LENGTHS = ((12, 32), (64, 64))  # frames and words in published results
CLIPS = (
    "frames | from block | in the cache, MB | to there, s | from there, s | training from there, s | kept for it, MB",
    "{frames} | {depth} | {cache} | {prefix} | {suffix} | {train} | {kept}",
)
CAPTIONS = (
    "words | embedding, s | training, s | kept for it, MB",
    "{words} | {embed} | {train} | {kept}",
)


@dataclass(frozen=True)
class Size:
    """Counts of docs/datasets.md. The hours of ActivityNet are the mean of val_1, 118 s, times all videos.

    A clip of LSMDC is 4.2 s long (150 h for 128,118 clips, Rohrbach et al. 2017), and one of VATEX 10 s.

    "ten million" are clips of 15 s with a caption each, all for training, and 1,000 of them tested.
    """

    videos: int
    hours: float
    captions: int  # of all splits
    pairs: int  # per epoch
    tested: int  # videos
    queries: int


SIZES = {
    "msrvtt": Size(10_000, 41.2, 9_000 * 20 + 1_000, 8_500 * 20, 1_000, 1_000),
    "msvd": Size(1_970, 5.3, 48_774 + 4_290 + 27_763, 48_774, 670, 27_763),
    "didemo": Size(8_395 + 1_065 + 1_004, 87, 8_395 + 1_065 + 1_004, 8_395, 1_004, 1_004),
    "activitynet": Size(10_009 + 4_917, (10_009 + 4_917) * 118 / 3600, 10_009 + 4_917, 9_509, 4_917, 4_917),
    "lsmdc": Size(101_079 + 7_408 + 1_000, 109_487 * 4.2 / 3600, 109_487, 101_079, 1_000, 1_000),
    "vatex": Size(25_991 + 1_500 + 1_500, 28_991 * 10 / 3600, 28_991 * 10, 25_991 * 10, 1_500, 15_000),
    "ten million": Size(10_000_000, 10_000_000 * 15 / 3600, 10_000_000, 10_000_000, 1_000, 1_000),
}


def main(videos: Path, backbone: str = "ViT-B-32", repeats: int = 2) -> None:
    """`videos`: a folder of typical videos. Every figure is the best of `repeats`."""
    torch.set_num_threads(1)
    out, clip, units = report.Report("units"), projects.random_clip(projects.config(backbone)), {}
    for frames, words in tqdm(LENGTHS, desc="lengths"):
        units[f"{frames} frames"] = clip_units(backbone, clip, frames, videos.resolve(), repeats)
        units[f"{words} words"] = text_units(clip, min(words, len(clip.text.positional_embedding)), repeats)
    decoded = " and ".join(f"{digits(units[f'{n} frames']['decode'])} s for {n} frames" for n, _ in LENGTHS)
    times, space = zip(*(multiplied(units, name) for name in SIZES), strict=True)
    out.write(
        {"units": units, "sizes": {name: asdict(size) for name, size in SIZES.items()}},
        "One clip; seconds on this page are of one core:",
        report.table([shown(c) | {"frames": n} for n, _ in LENGTHS for c in trained(units, n)], CLIPS),
        f"Decoding a second of video takes {decoded}.",
        "One caption:",
        report.table([shown(units[f"{n} words"]) | {"words": n} for _, n in LENGTHS], CAPTIONS),
        f"Multiplied out, in core hours; an epoch has all training captions, a step {BATCH}:",
        report.table(transposed(times)),
        "Disk and memory, in GB; caches with 16 bits a number, what a step keeps with 32:",
        report.table(transposed(space)),
    )


def clip_units(backbone: str, clip: Clip, frames: int, videos: Path, repeats: int) -> dict:
    """Costs of a clip: of decoding a second of it, and for each depth of the prefix, the suffix and a training step."""
    layers, tower = clip.visual.layers, clip.visual
    settings = projects.load(projects.values(backbone, (0, layers // 2, layers - 1, layers), frames))
    preprocess = projects.config(backbone)["preprocess"]
    pixels = torch.randint(0, 256, (1, frames, *[preprocess["size"]] * 2, 3), dtype=torch.uint8)
    length, depths = torch.tensor([frames]), []
    for variant in settings.variants:
        model = ours.model(clip, settings, variant)
        depth = int(min(model.adapter.video.first_block, tower.all))
        to_there = partial(ours.prefix, tower, pixels, length, depth)
        tokens = to_there()
        step = partial(model.video, Batch(tokens, length, depth))
        costs = {"prefix": seconds(to_there, repeats), "suffix": seconds(torch.no_grad()(step), repeats)}
        name = "all" if depth == tower.all else str(depth)
        depths.append({"depth": name, "bytes": HALF * tokens.numel(), **costs, **training(step, model, repeats)})
    decode = decoding(videos, ours.decoder(settings.frames, preprocess), repeats)
    return {"frames_bytes": pixels.nbytes, "decode": decode, "depths": depths}


def text_units(clip: Clip, words: int, repeats: int, captions: int = 8) -> dict:
    """Costs of a caption: of its embedding, and of a step that trains the scales of RAP's text side."""
    model, length = ours.scaled_text_model(clip), torch.full((captions,), words)
    step = partial(model.text, Batch(torch.randint(1, 50, (captions, words)), length, INPUT))
    found = {"embed": seconds(torch.no_grad()(step), repeats), **training(step, model, repeats)}
    return {"bytes": HALF * clip.embed_dim, **{name: value / captions for name, value in found.items()}}


def decoding(folder: Path, decode: Callable[[Path], np.ndarray], repeats: int) -> float:
    """CPU seconds for a second of video, over all videos of a folder."""
    files = ours.videos_in(folder)
    return seconds(lambda: [decode(file) for file in files], repeats) / sum(map(ours.seconds_of, files))


def training(step: Callable[[], Tensor], model: Retriever, repeats: int) -> dict:
    """CPU seconds of a step forward and backward, and bytes kept in between without weights; {} if untrained."""
    if not model.adapter.count:
        return {}
    kept: list[UntypedStorage] = []
    keep, give = lambda tensor: kept.append(tensor.untyped_storage()) or tensor, lambda tensor: tensor
    with torch.autograd.graph.saved_tensors_hooks(keep, give):
        step()
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    sizes = {storage.data_ptr(): storage.nbytes() for storage in kept}
    total = sum(size for start, size in sizes.items() if start not in weights)
    return {"train": seconds(lambda: step().sum().backward(), repeats), "kept_bytes": total}


def seconds(work: Callable[[], object], repeats: int) -> float:
    """CPU seconds of this process and its children, the best of `repeats`."""

    def once() -> float:
        before = sum(os.times()[:4])
        work()
        return sum(os.times()[:4]) - before

    return min(once() for _ in range(repeats))


def trained(units: dict, frames: int) -> list[dict]:
    """Costs at all depths except that of the finished embeddings, where nothing is trained."""
    return [cost for cost in units[f"{frames} frames"]["depths"] if "train" in cost]


def multiplied(units: dict, dataset: str) -> tuple[dict, dict]:
    """Core hours and gigabytes of a dataset: unit costs times its counts."""
    size, (frames, words) = SIZES[dataset], ours.published_lengths(dataset)
    clip, depths, text = units[f"{frames} frames"], trained(units, frames), units[f"{words} words"]
    hours = {
        "decoding": size.hours * clip["decode"],
        "features, all blocks": size.videos * max(cost["prefix"] for cost in depths) / HOUR,
        "embeddings of the captions": size.captions * text["embed"] / HOUR,
        **{f"an epoch, from block {c['depth']}": size.pairs * c["train"] / HOUR for c in depths},
        "an epoch, text side trained: in addition": size.pairs * text["train"] / HOUR,
        **{f"the test split, from block {c['depth']}": size.tested * c["suffix"] / HOUR for c in depths},
    }
    space = {
        "frames": size.videos * clip["frames_bytes"] / GB,
        **{f"video-{c['depth']}": size.videos * c["bytes"] / GB for c in clip["depths"]},
        "text-all": size.captions * text["bytes"] / GB,
        "similarity.npy, a run": FLOAT * size.tested * size.queries / GB,
        **{f"memory of a step, from block {c['depth']}": BATCH * c["kept_bytes"] / GB for c in depths},
        "memory of a step, text side trained: in addition": BATCH * text["kept_bytes"] / GB,
    }
    return hours, space


def transposed(columns: tuple[dict, ...]) -> list[dict]:
    """Rows from one column per dataset."""
    return [{"": key, **{name: digits(c[key]) for name, c in zip(SIZES, columns, strict=True)}} for key in columns[0]]


def shown(cost: dict) -> dict:
    """The cells of a row: seconds, and MB of bytes, to three digits."""
    cells = {name: digits(value) if isinstance(value, float) else value for name, value in cost.items()}
    return cells | {"cache": digits(cost["bytes"] / 1e6), "kept": digits(cost["kept_bytes"] / 1e6)}


def digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    typer.run(main)
