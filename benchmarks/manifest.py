"""How long 20,000 videos with 200,000 captions take, step by step, from annotations to the batches of a training.

    python benchmarks/manifest.py [VIDEOS [CAPTIONS PER VIDEO]]

Nothing is decoded and no network runs: what is measured is the bookkeeping. Figures are seconds, and the memory that
the process holds after each step.
"""

import os
import sys
import tempfile
import time
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from rap import params
from rap.data.benchmark import assemble, carve
from rap.data.manifest import Manifest
from rap.features.cache import Cache
from rap.files import digest
from rap.shards import Item, build
from rap.training.stage import Pairs

ROOT = Path(__file__).resolve().parents[1]
WORDS = 32  # tokens per caption
STEPS = 5


@contextmanager
def timed(what: str):
    began = time.perf_counter()
    yield
    seconds = time.perf_counter() - began
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    print(f"{seconds:8.2f} s {resident / 1e6:8.0f} MB  {what}", flush=True)


def main(videos: int = 20_000, each: int = 10) -> None:
    settings = params.load(ROOT / "params.yaml")
    settings = settings.model_copy(update={"shards": (0,)})
    with timed("annotations in memory (not ours)"):
        ids = [f"v_{n:011d}" for n in range(videos)]
        texts = {id: [f"{id} is the clip in which somebody does thing {k}" for k in range(each)] for id in ids}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        bookkeeping(settings, ids, texts)


def bookkeeping(settings: params.Params, ids: list[str], texts: dict[str, list[str]]) -> None:
    home = settings.data / "manifest"
    with timed("assemble: rows, checks, notes"):
        manifest = assemble({**carve(ids[1000:], 500), "test": ids[:1000]}, texts, Path("."))
    with timed("write"):
        manifest.write(home)
    with timed("read"):
        manifest = Manifest.read(home)
    with timed("split train"):
        train = manifest.split("train")
    with timed("shard 0 of 8"):
        manifest.shard(0, 8)
    video = cache(settings, "video-all", manifest.videos.video_id, (12, 8))
    text = cache(settings, "text-ids", manifest.captions.caption_id, (WORDS,))
    with timed("digest of all rows, as a run takes it"):
        digest({"video": video.keys, "text": text.keys, "splits": manifest.videos.split.tolist()})
    experiment = SimpleNamespace(
        manifest=manifest, video=video, text=text, seed=0, train=settings.train, adapter=SimpleNamespace(count=1)
    )
    with timed("pairs of caption and clip"):
        pairs = Pairs(SimpleNamespace(videos=train.videos.video_id.tolist(), captions=train.captions), experiment)
    with timed(f"the first {STEPS} batches of {pairs.batch}, of {pairs.per_epoch} an epoch"):
        list(islice(pairs.batches(0), STEPS))


def cache(settings: params.Params, name: str, ids, shape: tuple[int, ...]) -> Cache:
    """A cache of zeros, built as a stage builds it and opened as a training opens it."""
    tower = SimpleNamespace(layers=12, all=13)
    zero = np.zeros(shape, np.int32)
    stem = settings.data / "features" / name / "shard-0"
    with timed(f"{name}: keys of {len(ids):,} rows"):
        keys = {id: digest({"row": id, "cache": name}) for id in ids}
    with timed(f"{name}: build"):
        build(stem, keys, shape, "int32", lambda missing: (Item(id, zero, shape[0]) for id in missing))
    with timed(f"{name}: build again, one row new"):
        build(stem, {**keys, next(iter(keys)): "new"}, shape, "int32", lambda ids: (Item(id, zero, 1) for id in ids))
    with timed(f"{name}: open"):
        return Cache(settings, name, tower)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
