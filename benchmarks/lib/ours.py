"""Every use of RAP's stages by the benchmarks. When a stage changes internally, only this file has to change.

Video decoders are imported on use: gpu.py runs on machines without ffmpeg and PyAV.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file
from torch import Tensor

from rap import paths, shards
from rap.adapters import registry
from rap.adapters.base import Adapter
from rap.adapters.layers import text_tuner
from rap.clip import backbone
from rap.clip.towers import Clip, Tower
from rap.data.manifest import Manifest
from rap.features import cache as caches
from rap.features import stage as features_stage
from rap.features.cache import Batch
from rap.files import digest, digest_file, read_json, write_json
from rap.jobs import Job, perform
from rap.params import Params, Sampling
from rap.provenance import Record
from rap.retrieval.corpus import open_corpus, records
from rap.retrieval.loss import info_nce
from rap.retrieval.model import Retriever, new_model
from rap.runtime import device as devices
from rap.training import costs
from rap.training import run as runs
from rap.training.batches import Pairs
from rap.training.loop import fit
from rap.training.optimiser import optimiser
from rap.training.state import State
from rap.unfinished import checksum

SEED = 0
Work = Callable[[], object]
counted = costs.counted  # floating-point operations of a piece of work
flops_per_clip = costs.flops_per_clip
one_clip = costs.one_clip
peak_memory = costs.peak_memory
prefix = features_stage.prefix
depth = caches.position  # of a cache in its tower
autocast = devices.autocast


def again(settings: Params, stage: str, **item: object) -> str:
    """Run a stage even if its result is up to date."""
    Path(Job(settings, stage, item).record).unlink(missing_ok=True)
    return perform(settings, stage, **item)


def cut_frames(settings: Params, shard: int = 0) -> str:
    """The frames stage of one shard; rows that are up to date are kept."""
    return again(settings, "frames", shard=shard)


def make_cache(settings: Params, cache: str, shard: int) -> str:
    """The features stage of one shard; rows that are up to date are kept."""
    return again(settings, "features", cache=cache, shard=shard)


def remake_cache(settings: Params, cache: str) -> str:
    """The features stage of shard 0, with every row to compute."""
    for file in cache_folder(settings, cache).glob("shard-0.*"):
        file.unlink()
    return make_cache(settings, cache, 0)


def train(settings: Params, variant: str) -> str:
    """The train stage with seed 0."""
    return again(settings, "train", variant=variant, seed=SEED)


def evaluate(settings: Params, variant: str) -> str:
    """The evaluate stage with seed 0."""
    return again(settings, "evaluate", variant=variant, seed=SEED)


def table(settings: Params, name: str) -> str:
    """The table stage, which also logs the runs of the table to MLflow."""
    return again(settings, "table", table=name)


def cache_folder(settings: Params, cache: str) -> Path:
    """The folder of the shards of a cache or of `frames`."""
    return caches.stems(settings, cache)[0].parent


def run_folder(settings: Params, variant: str) -> paths.RunFolder:
    return paths.run(variant, SEED)


def read_manifest(settings: Params) -> Manifest:
    return Manifest.read(paths.manifest(settings.dataset.name))


def write_manifest(settings: Params, manifest: Manifest) -> None:
    """The output of the download stage, for any manifest. The user's files, including videos, have to exist."""
    job = Job(settings, "download", {})
    job.reads_external()
    manifest.write(paths.manifest(settings.dataset.name), job.result)


def write_backbone(settings: Params, clip: Clip, config: dict) -> None:
    """The output of the backbone stage, for any weights."""
    job, home = Job(settings, "backbone", {}), paths.backbone(settings.backbone.name)
    home.mkdir(parents=True, exist_ok=True)
    job.reads_external()
    save_file(clip.weights.state_dict(), home.weights)
    write_json(home.config, config | {"digest": digest_file(home.weights)})
    files = {file.name: digest_file(file) for file in home.files}
    job.result(digest(files), files).write(job.record)


def backbone_config(settings: Params) -> dict:
    return backbone.read_config(paths.backbone(settings.backbone.name))


def has_backbone(settings: Params) -> bool:
    return Path(Job(settings, "backbone", {}).record).exists()


def train_seconds(settings: Params, variant: str) -> float:
    """Seconds of the training loop of a finished run."""
    return read_json(paths.run(variant, SEED).costs)["train_seconds"]


def facts(settings: Params, variant: str) -> dict:
    """The training and test data of a run."""
    run, _ = runs.read_run(run_folder(settings, variant))
    metrics = read_json(run_folder(settings, variant).figures)
    trained = {name: getattr(run, name) for name in ("caches", "videos", "pairs", "steps", "parameters")}
    return trained | {"tested": metrics["videos"], "queries": metrics["queries"]}


def copy_run(settings: Params, source: str, target: str) -> None:
    """The finished run of one variant as that of another, in files that take no additional disk space."""
    folder, copy = run_folder(settings, source), run_folder(settings, target)
    shutil.copytree(folder, copy, copy_function=os.link)
    trained = Job(settings, "train", {"variant": target, "seed": SEED})
    _copy_record(trained, folder.record, {})
    evaluated = Job(settings, "evaluate", trained.item)
    _copy_record(evaluated, folder.evaluation, {str(folder.record): trained.record})


def _copy_record(job: Job, source: Path, moved: dict[str, str]) -> None:
    """A record as that of another job on the same inputs; `moved`: inputs with other paths."""
    record = Record.read(source)
    for path in record.provenance.inputs:
        job.reads(moved.get(path, path))
    facts = record.facts | {"variant": job.item["variant"]}
    job.result(digest([record.files, facts]), record.files, **facts).write(job.record)


def rows(settings: Params, cache: str, shard: int = 0) -> np.ndarray:
    """The rows of a shard of a cache or of `frames`, memory-mapped [rows, ...]."""
    return shards.Shard.read(caches.stems(settings, cache)[shard]).array


def rows_by_id(settings: Params, cache: str) -> dict[str, np.ndarray]:
    """Every row of a cache of floats by its id, read into memory."""
    opened = [shards.Shard.read(stem) for stem in caches.stems(settings, cache)]
    return {id: row for shard in opened for id, row in zip(shard.index.id, np.asarray(shard.array), strict=True)}


def write_frames(settings: Params, picture: np.ndarray | None) -> None:
    """The frames of every video are `picture` uint8 [T, size, size, 3]; None leaves holes in files of full length."""
    size, count = backbone_config(settings)["preprocess"]["size"], settings.frames.count
    videos, records = read_manifest(settings), [Job(settings, name, {}).record for name in ("download", "backbone")]
    for shard, stem in zip(settings.shards, caches.stems(settings, caches.FRAMES), strict=True):
        job = Job(settings, "frames", {"shard": shard})
        for record in records:
            job.reads(record)
        keys = {id: f"frames of {id}" for id in videos.shard(shard, len(settings.shards)).videos.video_id}
        shape, items = (count, size, size, 3), lambda ids: (shards.Item(id, picture, count) for id in ids)
        made = _holes(stem, keys, shape) if picture is None else shards.build(stem, keys, shape, "uint8", items)[0]
        shards.seal(made, job.result)


def _holes(stem: Path, keys: dict[str, str], shape: tuple[int, ...]) -> shards.Shard:
    stem.parent.mkdir(parents=True, exist_ok=True)
    array = np.lib.format.open_memmap(f"{stem}.npy", mode="w+", dtype="uint8", shape=(len(keys), *shape))
    row = {"length": shape[0], "reason": "", "checksum": checksum(array[0])}
    index = pd.DataFrame([{"id": id, "key": key, **row} for id, key in keys.items()])
    index[list(shards.COLUMNS)].astype(shards.COLUMNS).to_parquet(f"{stem}.parquet", index=False)
    return shards.Shard.open(stem)


def write_rows(settings: Params, cache: str, shard: int, keys: dict[str, str], row: np.ndarray) -> None:
    """A shard of a cache whose rows, with these keys by id, are all `row`."""
    job, stem = Job(settings, "features", {"cache": cache, "shard": shard}), caches.stems(settings, cache)[shard]
    items = lambda ids: (shards.Item(id, row, 1) for id in ids)  # noqa: E731
    shards.seal(shards.build(stem, keys, row.shape, row.dtype, items)[0], job.result)


def write_noise(settings: Params) -> None:
    """Every cache, written by the features stage with noise in place of the towers' output."""
    shapes: dict[tuple[type, int], torch.Size] = {}

    def noise(tower: Tower, x: Tensor, length: Tensor, depth: int) -> Tensor:
        if (type(tower), depth) not in shapes:
            shapes[type(tower), depth] = prefix(tower, x[:1], length[:1], depth).shape[1:]
        return torch.randn(len(x), *shapes[type(tower), depth])

    torch.manual_seed(0)
    with replaced(features_stage, "prefix", noise):
        for cache in settings.features.caches:
            for shard in settings.shards:
                make_cache(settings, cache, shard)


def verifier() -> Callable[[np.ndarray, list[str], str], None]:
    """The function that verifies rows [N, ...] against their checksums; `where` names the shard in errors."""
    return shards.verify


@contextmanager
def verification(verify: Callable[[np.ndarray, list[str], str], None] | None) -> Iterator[None]:
    """Rows that are read are verified by `verify` inside the block; None: not at all."""
    with replaced(shards, "verify", verify or (lambda rows, checksums, where: None)):
        yield


@contextmanager
def replaced(module: object, name: str, value: object) -> Iterator[None]:
    """`module.name` is `value` inside the block."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def load_clip(settings: Params) -> Clip:
    """The backbone of a project, on the device of its runs."""
    return backbone.load(paths.backbone(settings.backbone.name))[0].to(devices.setup(settings.runtime))


def precision(settings: Params, device: torch.device) -> str:
    """The dtype in which a stage computes matrix products."""
    return "bfloat16" if devices.mixed(settings.runtime, device) else "float32"


def model(clip: Clip, settings: Params, variant: str) -> Retriever:
    return Retriever(clip, registry.build(clip, settings, variant))


def bare_model(clip: Clip) -> Retriever:
    """The backbone with an adapter that changes nothing."""
    return Retriever(clip, Adapter())


def scaled_text_model(clip: Clip) -> Retriever:
    """The backbone with the trained scales of RAP's text side."""
    return Retriever(clip, Adapter(text=text_tuner(clip, "scale")))


def loss(model: Retriever, settings: Params, video: Batch, text: Batch) -> Tensor:
    """The contrastive loss of B clips and their B captions, in the precision of a training."""
    device = video.x.device
    with autocast(settings.runtime, device):
        similarity = model.similarity(video, text)
    same = torch.eye(len(text.x), dtype=torch.bool, device=device)
    return info_nce(model.clip.logits(similarity.float()), same)


class OpenedRun:
    """An untrained run, opened as in the train stage."""

    def __init__(self, settings: Params, variant: str):
        self.settings, self.variant, self.training = settings, variant, settings.training(variant)
        self.device = devices.setup(settings.runtime)
        self.model, _ = new_model(settings, variant, SEED, self.device)
        self.corpus = open_corpus(settings, self.model)
        self.split, self.video_bytes = self.corpus.split("train"), self.corpus.video.nbytes
        self.parameters = self.model.adapter.count

    @cached_property
    def pairs(self) -> Pairs:
        return Pairs(self.corpus, self.training, SEED)

    @property
    def steps(self) -> int:
        return self.pairs.steps

    def train(self) -> None:
        """The loop of the train stage, from the first step to the last, with its checkpoints."""
        weights = [p for p in self.model.adapter.parameters() if p.requires_grad]
        state = State(self.model.adapter, *optimiser(weights, self.steps, self.training))
        save = partial(state.save, paths.run(self.variant, SEED).checkpoint, "of a benchmark")
        fit(self.model, self.pairs, state, self.training, self.settings.runtime, self.variant, save)

    def batch(self) -> tuple[Batch, Batch]:
        """Every clip and every caption of the training split, as cached, on the device."""
        clips = self.corpus.video.batch(self.split.videos)
        captions = self.corpus.text.batch(self.split.captions.caption_id.tolist())
        return clips.to(self.device), captions.to(self.device)

    def list_inputs(self) -> None:
        """Verify that all inputs of the run are fresh, and compute the order of its pairs."""
        job = Job(self.settings, "train", {"variant": self.variant, "seed": SEED})
        for record in records(self.settings, self.model):
            job.reads(record)
        assert job.provenance.digest and self.steps


def videos_in(folder: Path) -> list[Path]:
    """The video files of a folder."""
    from rap.data.videos import SUFFIXES

    return [file for file in sorted(folder.iterdir()) if file.suffix and file.suffix in SUFFIXES]


def published_lengths(dataset: str) -> tuple[int, int]:
    """Frames and words of published results on a dataset, by default on MSR-VTT."""
    from rap.data.datasets import names
    from rap.data.registry import info

    usual = info(dataset if dataset in names() else "msrvtt")
    return usual.frames, usual.max_words


def decoder(frames: Sampling, preprocess: dict) -> Callable[[Path], np.ndarray]:
    """How the frames stage decodes a file: to uint8 [T, size, size, 3]. `preprocess`: of the backbone's config."""
    from rap.frames.decode import decode, prepare

    return partial(decode, recipe=prepare(frames, preprocess, "benchmarks"))


def ffmpeg() -> str:
    """The ffmpeg program of the frames stage."""
    from rap.frames.ffmpeg import binary

    return binary()


def seconds_of(file: Path) -> float:
    """The duration of a video, as the frames stage finds it."""
    from rap.frames.probe import probe

    span = probe(file)
    return span.end - span.start
