"""An epoch of training from videos, as CLIP4Clip trains, against an epoch of RAP from the cache: same data and machine.

    python benchmarks/epoch.py [--clips 24] [--seconds 10] [--height 240] [--repeats 1]

From videos: full fine-tuning of both towers, mean-pooled frames; every step decodes its clips, with the decoder of the
frames stage, in worker processes that run ahead of the model, one for each core. RAP: the frames stage, the features
stage with the cache that it needs, the train stage; from block 0, from the middle, and on frame embeddings, its text
side off. Loss, batch and frames are the same.

An epoch of RAP is given alone and with its share of what comes before, over 5 epochs: frames, features and the start
of the train stage. An epoch from videos bears its share of a start too. Each way runs in a process of its own, whose
peak memory is taken. About three minutes on two cores.
"""

import os
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import chdir
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

import ceilings
import report
import synthetic
import torch
import typer
from decoders import film
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rap import adapters
from rap.clip import backbone
from rap.clip.tokenizer import tokenize
from rap.clip.towers import INPUT
from rap.data.manifest import Manifest
from rap.features import stage as features
from rap.features.cache import Batch
from rap.files import digest_file, read_json
from rap.frames import stage as frames
from rap.frames.decode import decode
from rap.frames.stage import read_recipe
from rap.params import Params
from rap.retrieval.loss import info_nce
from rap.retrieval.model import Retriever
from rap.runtime.device import autocast, setup
from rap.training import stage as training
from rap.training.costs import counted, one_clip
from rap.training.run import run_folder

WORDS = 32  # tokens of a caption, as in the caches
SPREAD = 5  # epochs that bear what comes before them
VIDEOS = "from videos, fully tuned"


def main(
    backbone: str = "ViT-B-32",
    clips: int = 24,
    seconds: int = 10,
    height: int = 240,
    frames: int = 12,
    batch: int = 8,
    repeats: int = 1,
    results: Path = report.RESULTS,
) -> None:
    """`clips` of so many seconds; figures are medians of `repeats` turns of all ways."""
    about, results = report.machine(), results.resolve()
    found = values(backbone, frames, batch)
    with tempfile.TemporaryDirectory() as place, chdir(place):
        project(synthetic.load(found), clips, seconds, height)
        names = [VIDEOS, *(name for name in found["variants"] if name.startswith("depth_"))]
        floors = alone(floor, found, clips)
        taken = {name: [] for name in names}
        for _ in range(repeats):
            for name in names:
                taken[name].append(alone(from_videos if name == VIDEOS else from_cache, found, name))
                print(name, taken[name][-1], flush=True)
    ways = {name: summary(turns) | {"floor": floors["seconds"][name]} for name, turns in taken.items()}
    report.write(
        results,
        "epoch",
        {"machine": about, "ceilings": floors["ceilings"], "backbone": backbone, "clips": clips, "ways": ways},
        report.sentence(about),
        f"{backbone} with random weights, {clips} clips of {seconds} s at {height}p, {frames} frames, {batch} pairs a "
        f"step; medians of {repeats} turns. {ceilings.sentence(ceilings.Ceilings(**floors['ceilings']))}",
        report.table([row(name, way, ways[VIDEOS]) for name, way in ways.items()]),
        doc=report.ROOT / "docs/performance.md",
    )


def values(backbone: str, frames: int, batch: int) -> dict:
    layers = synthetic.config(backbone)["model"]["vision_cfg"]["layers"]
    found = synthetic.values(backbone, (0, layers // 2, layers), frames)
    found["variants"][VIDEOS] = {"adapter": "full", "label": VIDEOS}
    found["dataset"] |= {"videos": "videos"}
    found["train"] |= {"batch": batch, "epochs": 1}
    found["runtime"] |= {"threads": os.cpu_count(), "workers": os.cpu_count()}
    return found | {"shards": [0]}


def project(settings: Params, clips: int, seconds: int, height: int) -> None:
    """In the present folder: a backbone, and clips of one film under as many names, with a caption each."""
    synthetic.backbone(settings)
    Path("videos").mkdir()
    source = film(Path("film.mp4"), height, seconds, gap=10)
    rows, captions = [], []
    for number in range(clips):
        name = f"video{number}"
        shutil.copy(source, f"videos/{name}.mp4")
        row = {"video_id": name, "path": f"{name}.mp4", "split": "train", "digest": digest_file(source)}
        rows.append(row | {"twin": "", "status": "ok", "reason": "", "start": None, "end": None, "duration": None})
        caption = f"somebody cooks in a kitchen, take {number}"
        captions.append({"caption_id": f"{name}#0", "video_id": name, "caption": caption, "kind": ""})
    Manifest.build(rows, captions).write(settings.data / "manifest")


def alone(work: Callable, *arguments) -> dict:
    """What `work` returns in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def from_cache(found: dict, variant: str) -> dict:
    """Seconds of each stage of RAP, with nothing made before."""
    settings, depth = synthetic.load(found), variant.removeprefix("depth_")
    for folder in (settings.data / "frames", settings.data / "features", Path("results")):
        shutil.rmtree(folder, ignore_errors=True)
    taken = {"frames": seconds(lambda: frames.run(settings, 0))}
    taken["features"] = seconds(lambda: [features.run(settings, cache, 0) for cache in (f"video-{depth}", "text-all")])
    own = synthetic.load(found | {"features": found["features"] | {"caches": [f"video-{depth}", "text-all"]}})
    whole = seconds(lambda: training.run(own, variant, 0))
    taken["epoch"] = read_json(run_folder(own, variant, 0) / "costs.json")["train_seconds"]
    return taken | {"start": whole - taken["epoch"], "peak_bytes": peak()}


def from_videos(found: dict, variant: str) -> dict:
    """Seconds of an epoch that decodes, and of what comes before it."""
    began = time.perf_counter()
    settings = synthetic.load(found)
    device, train = setup(settings.runtime), settings.train
    clip, config = backbone.load(settings.backbone_folder)
    model = Retriever(clip, adapters.build(clip, settings, variant)).to(device).train()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-5)
    captions = Manifest.read(settings.data / "manifest").captions
    ids, lengths = map(torch.from_numpy, tokenize(captions.caption.tolist(), config["tokenizer"], WORDS))
    workers = {"num_workers": settings.runtime.workers, "prefetch_factor": train.batch, "persistent_workers": True}
    loader = DataLoader(Clips(settings), train.batch, shuffle=True, pin_memory=device.type == "cuda", **workers)
    start, began = time.perf_counter() - began, time.perf_counter()
    for rows, pixels in loader:
        video = Batch(pixels, torch.full((len(rows),), pixels.shape[1]), INPUT).to(device)
        with autocast(settings.runtime, device):
            similarity = model.similarity(video, Batch(ids[rows], lengths[rows], INPUT).to(device))
        same = torch.eye(len(rows), dtype=torch.bool, device=device)
        loss = info_nce(similarity.float(), model.clip.logit_scale, same)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, train.clip_norm)
        optimizer.step()
    return {"start": start, "epoch": time.perf_counter() - began, "peak_bytes": peak()}


class Clips(Dataset):
    """The clips of a project, decoded when they are asked for."""

    def __init__(self, settings: Params):
        self.recipe = read_recipe(settings)
        self.paths = [Path("videos") / path for path in Manifest.read(settings.data / "manifest").videos.path]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> tuple[int, Tensor]:
        return row, torch.from_numpy(decode(self.paths[row], self.recipe).copy())


def floor(found: dict, clips: int) -> dict:
    """The ceilings, and seconds of an epoch's arithmetic at them, features shared by all epochs.

    Forward and back through frozen weights is taken as twice the forward pass, through trained ones as three times.
    """
    settings = synthetic.load(found)
    clip = backbone.load(settings.backbone_folder)[0].to(setup(settings.runtime))
    limits = ceilings.measure(clip)
    model = Retriever(clip, adapters.Adapter())
    pixels = one_clip(model, settings.frames.count)
    words = Batch(
        torch.ones(1, 32, dtype=torch.int32, device=pixels.x.device), torch.tensor([32]).to(pixels.x.device), INPUT
    )
    whole, text = (counted(torch.no_grad()(work)) for work in (lambda: model.video(pixels), lambda: model.text(words)))
    flops = {VIDEOS: 3 * (whole + text)}
    for name in settings.variants:
        if name.startswith("depth_"):
            depth = int(name.removeprefix("depth_"))
            before = counted(lambda depth=depth: features.prefix(clip.visual, pixels.x, pixels.length, depth))
            flops[name] = (before + text) / SPREAD + 2 * (whole - before)
    return {"ceilings": asdict(limits), "seconds": {name: limits.floor(clips * each) for name, each in flops.items()}}


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def peak() -> int:
    """Bytes that this process had in memory at most, pages of mapped files included; not those of its workers."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def summary(turns: list[dict]) -> dict:
    """Medians, and an epoch with its share of what comes before."""
    found = {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}
    before = sum(found.get(name, 0) for name in ("frames", "features", "start"))
    return found | {"spread": found["epoch"] + before / SPREAD}


def row(name: str, way: dict, videos: dict) -> dict:
    def show(key: str) -> str:
        return f"{way[key]:.3g}" if key in way else ""

    return {
        "way": name if name == VIDEOS else f"RAP, block {name.removeprefix('depth_')}",
        "frames, s": show("frames"),
        "features, s": show("features"),
        "start, s": show("start"),
        "an epoch, s": show("epoch"),
        f"with its share over {SPREAD}, s": show("spread"),
        "floor, s": show("floor"),
        "times as fast": f"{videos['spread'] / way['spread']:.1f}",
        "peak memory, GB": f"{way['peak_bytes'] / 1e9:.2f}",
    }


if __name__ == "__main__":
    typer.run(main)
