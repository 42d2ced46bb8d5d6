"""An epoch of training from videos, as CLIP4Clip trains, compared with an epoch of RAP from the cache.

    python benchmarks/epoch.py [--clips 24] [--seconds 10] [--height 240] [--repeats 1]

From videos, all weights of both towers are trained with mean-pooled frames; worker processes decode the clips of every
step ahead of the model, with the decoder of the frames stage. RAP runs the frames, features and train stages, from
block 0, from the middle, and on frame embeddings, the text side off. Clips, loss, batch and frames are the same.

An epoch is given alone, and with a fifth of the preceding cost, that is over 5 epochs: frames and features for RAP, and
the start of the training for both. Each method runs in its own process. About three minutes on two cores.
"""

import os
import resource
import shutil
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
import typer
from decoders import film
from lib import ours, projects, report, turns
from lib.projects import Size
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rap.clip.tokenizer import tokenize
from rap.clip.towers import INPUT
from rap.data.manifest import Manifest
from rap.features.cache import Batch
from rap.files import digest_file
from rap.params import Params

WORDS = 32  # tokens of a caption, as in the caches
SPREAD = 5  # epochs that share the preceding cost
VIDEOS, ALL = "from_videos", "from videos, all weights"
TABLE = (
    "way | frames, s | features, s | start, s | an epoch, s | with its share over 5, s | "
    "times as fast | peak memory, GB",
    "{way} | {frames:.3g} | {features:.3g} | {start:.3g} | {epoch:.3g} | {spread:.3g} | {speedup:.1f} | {memory:.2f}",
)


def main(
    backbone: str = "ViT-B-32",
    clips: int = 24,
    seconds: int = 10,
    height: int = 240,
    frames: int = 12,
    batch: int = 8,
    repeats: int = 1,
) -> None:
    """Figures are medians of `repeats` turns of all methods."""
    out, found = report.Report("epoch"), values(backbone, frames, batch)
    names = [VIDEOS, *(name for name in found["variants"] if name.startswith("depth_"))]
    taken: dict[str, list[dict]] = {name: [] for name in names}
    with projects.workplace():
        project(projects.load(found), clips, seconds, height)
        for _ in range(repeats):
            for name in names:
                taken[name].append(alone(from_videos if name == VIDEOS else from_cache, found, name))
                print(name, taken[name][-1], flush=True)
    ways = {name: summary(turns) for name, turns in taken.items()}
    for name, way in ways.items():
        way["way"] = ALL if name == VIDEOS else f"RAP, block {name.removeprefix('depth_')}"
        way["speedup"] = ways[VIDEOS]["spread"] / way["spread"]
    out.write(
        {"backbone": backbone, "clips": clips, "ways": ways},
        f"{backbone} with random weights, {clips} clips of {seconds} s at {height}p, {frames} frames, {batch} pairs "
        f"per step; medians of {repeats} turns.",
        report.table(list(ways.values()), TABLE),
    )


def values(backbone: str, frames: int, batch: int) -> dict:
    layers = projects.blocks(backbone)
    found = projects.values(backbone, (0, layers // 2, layers), frames)
    found["variants"][VIDEOS] = {"adapter": "full", "label": ALL}
    found["dataset"] |= {"videos": "videos"}
    found["train"] |= {"batch": batch, "epochs": 1}
    found["runtime"] |= {"threads": os.cpu_count(), "workers": os.cpu_count()}
    return found


def project(settings: Params, clips: int, seconds: int, height: int) -> None:
    """A backbone, and `clips` copies of one film with a caption each, in the working directory."""
    projects.write_backbone(settings, projects.config(settings.backbone.name))
    found = projects.manifest(Size(trained=clips, tested=0, queries=0))
    source = film(Path("film.mp4"), height, seconds, gap=10)
    Path("videos").mkdir()
    for path in found.videos.path:
        shutil.copy(source, f"videos/{path}")
    ours.write_manifest(settings, Manifest(found.videos.assign(digest=digest_file(source)), found.captions))


def alone(work: Callable, *arguments):
    """The result of `work` in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def from_cache(found: dict, variant: str) -> dict:
    """Seconds of each stage of RAP, without existing results."""
    depth = variant.removeprefix("depth_")
    names = [f"video-{depth}", "text-all"]
    settings = projects.load(found | {"features": found["features"] | {"caches": names}})
    caches = [ours.cache_folder(settings, name) for name in ("frames", *names)]
    for folder in (*caches, ours.run_folder(settings, variant)):
        shutil.rmtree(folder, ignore_errors=True)
    taken = {"frames": turns.timed(lambda: ours.cut_frames(settings, 0))}
    taken["features"] = turns.timed(lambda: [ours.make_cache(settings, name, 0) for name in names])
    whole = turns.timed(lambda: ours.train(settings, variant))
    taken["epoch"] = ours.train_seconds(settings, variant)
    return taken | {"start": whole - taken["epoch"], "memory": peak()}


def from_videos(found: dict, variant: str) -> dict:
    """Seconds of an epoch that decodes its clips, and of its preparation."""
    began = time.perf_counter()
    settings = projects.load(found)
    clip = ours.load_clip(settings)
    device, train = clip.logit_scale.device, settings.train
    model = ours.model(clip, settings, variant).to(device).train()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-5)
    clips = Clips(settings)
    workers = {"num_workers": settings.runtime.workers, "prefetch_factor": train.batch, "persistent_workers": True}
    loader = DataLoader(clips, train.batch, shuffle=True, pin_memory=device.type == "cuda", **workers)
    start, began = time.perf_counter() - began, time.perf_counter()
    for rows, pixels in loader:
        video = Batch(pixels, torch.full((len(rows),), pixels.shape[1]), INPUT).to(device)
        loss = ours.loss(model, settings, video, Batch(clips.ids[rows], clips.lengths[rows], INPUT).to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, train.clip_norm)
        optimizer.step()
    return {"start": start, "epoch": time.perf_counter() - began, "memory": peak()}


class Clips(Dataset):
    """The clips of a project, decoded when they are read; `ids` and `lengths` are the tokens of their captions."""

    def __init__(self, settings: Params):
        manifest, config = ours.read_manifest(settings), ours.backbone_config(settings)
        self.decode = ours.decoder(settings.frames, config["preprocess"])
        self.paths = [Path("videos") / path for path in manifest.videos.path]
        tokens = tokenize(manifest.captions.caption.tolist(), config["tokenizer"], WORDS)
        self.ids, self.lengths = map(torch.from_numpy, tokens)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> tuple[int, Tensor]:
        return row, torch.from_numpy(self.decode(self.paths[row]).copy())


def peak() -> float:
    """The peak resident memory of this process in GB, with pages of mapped files and without its workers."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def summary(turns: list[dict]) -> dict:
    """Medians, and an epoch with its share of the preceding cost."""
    found = {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}
    before = sum(found.get(name, 0) for name in ("frames", "features", "start"))
    return found | {"spread": found["epoch"] + before / SPREAD}


if __name__ == "__main__":
    typer.run(main)
