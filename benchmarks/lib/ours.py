"""Every use of RAP's stages by the benchmarks. When a stage changes inside, this file alone has to follow.

What decodes videos is imported where it is used: gpu.py runs on machines without ffmpeg and PyAV.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from rap import adapters, shards
from rap.adapters.lorm import text_tuner
from rap.clip import backbone
from rap.clip.towers import Clip, Tower
from rap.data.manifest import Manifest
from rap.features import cache as caches
from rap.features import stage as features_stage
from rap.features.cache import Batch
from rap.files import digest_file, read_json, write_json
from rap.params import Frames, Params
from rap.retrieval.loss import info_nce
from rap.retrieval.model import Retriever
from rap.runtime import device as devices
from rap.training import costs
from rap.training import run as runs
from rap.training import stage as training

Work = Callable[[], object]
counted = costs.counted  # floating-point operations of a piece of work
flops_per_clip = costs.flops_per_clip
one_clip = costs.one_clip
peak_memory = costs.peak_memory
prefix = features_stage.prefix
make_cache = features_stage.run  # (settings, cache, shard); rows that are up to date are kept
cache_folder = caches.folder
depth = caches.position  # of a cache in its tower
autocast = devices.autocast


def cut_frames(settings: Params, shard: int = 0) -> str:
    """The frames stage of one shard."""
    from rap.frames import stage

    return stage.run(settings, shard)


def remake_cache(settings: Params, cache: str) -> str:
    """The features stage of shard 0, with every row to compute."""
    for file in cache_folder(settings, cache).glob("shard-0.*"):
        file.unlink()
    return make_cache(settings, cache, 0)


def train(settings: Params, variant: str) -> str:
    """The train stage with seed 0."""
    return training.run(settings, variant, 0)


def evaluate(settings: Params, variant: str) -> str:
    """The evaluate stage with seed 0."""
    from rap.evaluation import stage

    return stage.run(settings, variant, 0)


def table(settings: Params, name: str) -> str:
    """The table stage, which also logs the runs of the table to MLflow."""
    from rap.report import table

    return table.run(settings, name)


def run_folder(settings: Params, variant: str) -> Path:
    return runs.run_folder(settings, variant, 0)


def read_manifest(settings: Params) -> Manifest:
    return Manifest.read(settings.data / "manifest")


def write_manifest(settings: Params, manifest: Manifest) -> None:
    manifest.write(settings.data / "manifest")


def write_backbone(settings: Params, clip: Clip, config: dict) -> None:
    """What the backbone stage writes, for any weights."""
    home = settings.backbone_folder
    home.mkdir(parents=True, exist_ok=True)
    save_file(clip.state_dict(), home / "weights.safetensors")
    write_json(home / "config.json", config | {"digest": digest_file(home / "weights.safetensors")})


def backbone_config(settings: Params) -> dict:
    return backbone.read_config(settings.backbone_folder)


def has_backbone(settings: Params) -> bool:
    return (settings.backbone_folder / "config.json").exists()


def train_seconds(settings: Params, variant: str) -> float:
    """Seconds of the training loop of a finished run."""
    return read_json(run_folder(settings, variant) / "costs.json")["train_seconds"]


def facts(settings: Params, variant: str) -> dict:
    """What a run was trained and evaluated on."""
    run, metrics = (read_json(run_folder(settings, variant) / file) for file in ("run.json", "metrics.json"))
    trained = {name: run[name] for name in ("caches", "videos", "pairs", "steps", "parameters")}
    return trained | {"tested": metrics["videos"], "queries": metrics["queries"]}


def copy_run(settings: Params, source: str, target: str) -> None:
    """The finished run of one variant as that of another, without the similarity matrix."""
    folder, copy = run_folder(settings, source), run_folder(settings, target)
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("similarity.npy"))
    for file in ("run.json", "metrics.json"):
        write_json(copy / file, read_json(copy / file) | {"variant": target})


def rows(settings: Params, cache: str, shard: int = 0) -> np.ndarray:
    """The rows of a shard of a cache or of `frames`, memory-mapped [rows, ...]."""
    return shards.Shard.read(cache_folder(settings, cache) / f"shard-{shard}").array


def rows_by_id(settings: Params, cache: str) -> dict[str, np.ndarray]:
    """Every row of a cache of floats by its id, read into memory."""
    opened = [shards.Shard.read(cache_folder(settings, cache) / f"shard-{number}") for number in settings.shards]
    return {id: row for shard in opened for id, row in zip(shard.index.id, np.asarray(shard.array), strict=True)}


def write_frames(settings: Params, picture: np.ndarray | None) -> None:
    """The frames of every video are `picture` uint8 [T, size, size, 3]; None leaves holes in files of full length."""
    videos = read_manifest(settings)
    size, count = backbone_config(settings)["preprocess"]["size"], settings.frames.count
    for shard in settings.shards:
        ids = videos.shard(shard, len(settings.shards)).videos.video_id
        keys = {id: f"frames of {id}" for id in ids}
        stem, shape = cache_folder(settings, caches.FRAMES) / f"shard-{shard}", (count, size, size, 3)
        shards.build(stem, keys, shape, "uint8", lambda ids: (shards.Item(id, picture, count) for id in ids))


def write_noise(settings: Params) -> None:
    """Every cache by the features stage itself, except that noise replaces the output of the towers."""
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
    return backbone.load(settings.backbone_folder)[0].to(devices.setup(settings.runtime))


def precision(settings: Params, device: torch.device) -> str:
    """The dtype in which a stage computes matrix products."""
    return "bfloat16" if devices.mixed(settings.runtime, device) else "float32"


def model(clip: Clip, settings: Params, variant: str) -> Retriever:
    return Retriever(clip, adapters.build(clip, settings, variant))


def bare_model(clip: Clip) -> Retriever:
    """The backbone with an adapter that changes nothing."""
    return Retriever(clip, adapters.Adapter())


def scaled_text_model(clip: Clip) -> Retriever:
    """The backbone with the trained scales of RAP's text side."""
    return Retriever(clip, adapters.Adapter(text=text_tuner(clip, "scale")))


def loss(model: Retriever, settings: Params, video: Batch, text: Batch) -> Tensor:
    """The contrastive loss of B clips and their B captions, in the precision of a training."""
    device = video.x.device
    with autocast(settings.runtime, device):
        similarity = model.similarity(video, text)
    same = torch.eye(len(text.x), dtype=torch.bool, device=device)
    return info_nce(similarity.float(), model.clip.logit_scale, same)


class Run:
    """A run that is opened as the train stage opens it, and not trained yet."""

    def __init__(self, settings: Params, variant: str):
        self.experiment = runs.Experiment(settings, variant, 0)
        self.settings, self.model = settings, self.experiment.model
        self.device, self.parameters = self.experiment.device, self.experiment.adapter.count
        self.split = self.experiment.split("train")
        self.video_bytes = self.experiment.video.nbytes

    @cached_property
    def pairs(self) -> training.Pairs:
        return training.Pairs(self.split, self.experiment)

    @property
    def steps(self) -> int:
        return self.pairs.steps

    def train(self) -> None:
        """The loop of the train stage, from the first step to the last."""
        training.fit(self.experiment, self.pairs, training.State.begin(self.experiment, self.pairs))

    def batch(self) -> tuple[Batch, Batch]:
        """Every clip and every caption of the training split, as cached, on the device."""
        clips = self.experiment.video.batch(self.split.videos)
        captions = self.experiment.text.batch(self.split.captions.caption_id.tolist())
        return clips.to(self.device), captions.to(self.device)

    def list_inputs(self) -> None:
        """Compute the digests of everything that the run depends on, and the order of its pairs."""
        assert self.experiment.digests and self.steps


def videos_in(folder: Path) -> list[Path]:
    """The video files of a folder."""
    from rap.data.benchmark import SUFFIXES

    return [file for file in sorted(folder.iterdir()) if file.suffix and file.suffix in SUFFIXES]


def published_lengths(dataset: str) -> tuple[int, int]:
    """Frames and words of published results on a dataset; those of MSR-VTT for an unknown name."""
    from rap.data.datasets import DATASETS

    usual = DATASETS.get(dataset, DATASETS["msrvtt"])
    return usual.frames, usual.max_words


def decoder(frames: Frames, preprocess: dict) -> Callable[[Path], np.ndarray]:
    """How the frames stage decodes a file: to uint8 [T, size, size, 3]. `preprocess`: of the backbone's config."""
    from rap.frames.stage import decode, prepare

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
