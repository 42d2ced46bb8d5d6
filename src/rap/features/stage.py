"""The features stage: outputs of the frozen part of a tower for frames or captions, computed once and stored.

While a batch is computed, the next one is read (or decoded, if frames are not stored) and, on a GPU, the previous one
is stored: the device never waits.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rap import paths, shards
from rap.clip.backbone import identity, load
from rap.clip.tokenizer import tokenize
from rap.clip.towers import INPUT, Clip, Context, Tower, Tuner
from rap.data.manifest import Manifest
from rap.errors import UserError
from rap.features.cache import Batch, packed, position, stored
from rap.features.decoded import Decoded
from rap.files import digest
from rap.params import Params
from rap.progress import progress
from rap.runtime import distributed
from rap.runtime.device import autocast, mixed, setup
from rap.runtime.prefetch import prefetch
from rap.shards import Item, Shard

if TYPE_CHECKING:
    from rap.jobs import Job


def run(job: "Job", cache: str, shard: int) -> str:
    """Write data/DATASET/features/CACHE/shard-K.npy and .parquet.

    The key of a row is the digest of everything that the row depends on: the frames of the video (or the caption), the
    backbone, the depth, the batch, mixed precision, CPU threads, the storage type and the source code. Rows with an
    unchanged key are kept.
    """
    params = job.params
    device = setup(params.runtime)
    folder = paths.backbone(params.backbone.name)
    job.reads(folder.record)
    clip, config = load(folder)
    clip = clip.to(device)
    recipe: dict = {"backbone": identity(config), "cache": cache, "code": job.code, "dtype": params.features.dtype}
    recipe["batch"] = params.features.batch  # the kernels, and so the last bits, depend on it
    if mixed(params.runtime, device):
        recipe["precision"] = "bfloat16"
    if device.type == "cpu":
        recipe["threads"] = params.runtime.threads  # the last bits depend on them
    work = (_video if cache.startswith("video") else _text)(job, clip, config, cache, shard, recipe)
    stem = paths.features(params.dataset.name, cache, shard)
    ids = shards.missing(stem, work.keys, work.shape, work.dtype)
    distributed.wait()  # no process writes before all know the missing rows
    compute = partial(_compute, params, work, f"{cache} shard {shard}")
    if not distributed.is_main():
        list(compute(ids))
        return ""
    made, computed = shards.build(
        stem, work.keys, work.shape, work.dtype, compute, together=work.batch * distributed.size()
    )
    work.check(made)
    shards.seal(made, job.result)
    failed = int((made.index.reason != "").sum())
    size = stem.array.stat().st_size / 1e6
    return f"{stem}: {len(made.index)} rows, {computed} computed, {failed} failed, {size:.1f} MB"


Round = tuple[list[str], Batch]  # a batch for each process: the ids of all processes, the input of this one


@dataclass(frozen=True)
class Work:
    """A shard of a cache. `rounds` gives the tower's input for some ids, a round at a time.

    `reasons`: why other ids have none; later errors are added.
    """

    tower: Tower
    depth: int
    keys: dict[str, str]
    reasons: dict[str, str]
    rounds: Callable[[list[str]], Iterator[Round]]
    shape: tuple[int, ...]  # of a row
    dtype: str  # of the file
    batch: int
    check: Callable[[Shard], object] = lambda made: None  # raises UserError if the shard must not be finished


def _video(job: "Job", clip: Clip, config: dict, cache: str, shard: int, recipe: dict) -> Work:
    params, stem = job.params, paths.frames(job.params.dataset.name, shard)
    job.reads(stem.record)
    frames = Shard.read(stem)
    depth, tower = position(cache, clip.visual), clip.visual
    keys = {row.id: digest({**recipe, "frames": row.key}) for row in frames.index.itertuples()}
    reasons = dict(zip(frames.index.id, frames.index.reason, strict=True))
    shape = (params.frames.count, *at(tower, depth, tower.tokens, clip.embed_dim))
    dtype, batch = stored(params.features.dtype), params.features.batch
    if not params.frames.store:
        decoded = Decoded(job, shard, reasons)
        rounds = partial(decoded.rounds, batch)
        return Work(tower, depth, keys, reasons, rounds, shape, dtype, batch, decoded.check)
    rows = {id: number for number, id in enumerate(frames.index.id)}

    def read(ids: list[str]) -> Batch:
        numbers = [rows[id] for id in ids]
        length = torch.from_numpy(frames.index.length.to_numpy()[numbers])
        return Batch(torch.from_numpy(frames.rows(numbers)), length, INPUT)

    return Work(tower, depth, keys, reasons, partial(_rounds, read, batch), shape, dtype, batch)


def _text(job: "Job", clip: Clip, config: dict, cache: str, shard: int, recipe: dict) -> Work:
    params, folder = job.params, paths.manifest(job.params.dataset.name)
    job.reads(folder.record)
    captions = Manifest.read(folder).shard(shard, len(params.shards)).captions
    text = dict(zip(captions.caption_id, captions.caption, strict=True))
    depth, tower = position(cache, clip.text), clip.text
    words = tower.words or params.features.max_words
    if not tower.whole and words > len(tower.positional_embedding):
        raise UserError(
            f"params.yaml: features.max_words: {words} is more than the {len(tower.positional_embedding)} words that "
            f"{params.backbone.name} reads; lower it"
        )
    keys = {id: digest({**recipe, "caption": caption, "words": words}) for id, caption in text.items()}
    shape = (words,) if depth == INPUT else at(tower, depth, words + clip.text.class_tokens, clip.embed_dim)

    def read(ids: list[str]) -> Batch:
        tokens, lengths = tokenize([text[id] for id in ids], config["tokenizer"], words)
        return Batch(torch.from_numpy(tokens), torch.from_numpy(lengths), INPUT)

    dtype = "int32" if depth == INPUT else stored(params.features.dtype)
    batch = params.features.batch * params.frames.count
    return Work(tower, depth, keys, dict.fromkeys(text, ""), partial(_rounds, read, batch), shape, dtype, batch)


def _rounds(read: Callable[[list[str]], Batch], batch: int, ids: list[str]) -> Iterator[Round]:
    """Batches are dealt round-robin to the processes."""
    step = batch * distributed.size()
    for start in range(0, len(ids), step):
        together = ids[start : start + step]
        yield together, read(distributed.part(together, batch))


def at(tower: Tower, depth: int, tokens: int, embed_dim: int) -> tuple[int, ...]:
    """The shape of one frame or text with `tokens` tokens at position `depth`."""
    if depth == tower.all:
        return (embed_dim,)
    return (1 if depth == tower.layers and tower.reads_one else tokens, tower.width)


def _compute(params: Params, work: Work, title: str, ids: list[str]) -> Iterator[Item]:
    """A row for each id; the main process receives the rows of all processes."""
    good = [id for id in ids if not work.reasons[id]]
    inputs = prefetch((together, batch.pinned()) for together, batch in work.rounds(good))
    started = (_start(params, work, together, batch) for together, batch in inputs)
    with progress(total=len(good), desc=title, unit="row", leave=False) as bar:
        for finish, _ in pairwise(chain(started, [list])):  # the next batch starts before waiting for this one
            items = finish()
            yield from items
            bar.update(len(items))
    yield from (Item(id, reason=work.reasons[id]) for id in ids if work.reasons[id])


def _start(params: Params, work: Work, ids: list[str], batch: Batch) -> Callable[[], list[Item]]:
    """Start a batch on the device. The returned function waits for it and gives the rows of the round `ids`."""
    device = next(work.tower.parameters()).device
    x = batch.x
    if work.depth != INPUT:
        with autocast(params.runtime, device):
            x = packed(prefix(work.tower, batch.x, batch.length, work.depth), params.features.dtype)
    counts = [len(ids[start : start + work.batch]) for start in range(0, work.batch * distributed.size(), work.batch)]
    rows, length = (distributed.collected(part, counts) for part in (x, batch.length))
    if rows is None or length is None:
        return list
    rows = rows.to("cpu", non_blocking=True)  # from a GPU, into pinned memory
    done = torch.cuda.current_stream().record_event() if device.type == "cuda" else None

    def finish() -> list[Item]:
        if done:
            done.synchronize()
        if rows.dtype == torch.float16 and rows.isinf().any():
            raise UserError("params.yaml: features.dtype: float16 is too small for this backbone; set it to bfloat16")
        return [Item(id, row, valid) for id, row, valid in zip(ids, rows.numpy(), length.tolist(), strict=True)]

    return finish


@torch.no_grad()
def prefix(tower: Tower, x: Tensor, length: Tensor, depth: int) -> Tensor:
    """The frozen part of a tower: its input up to position `depth`, on the tower's device."""
    device = next(tower.parameters()).device
    batch = Batch(x, length, INPUT).to(device)
    return tower.run(batch.x, INPUT, depth, Context(tower, batch.length), Tuner())
