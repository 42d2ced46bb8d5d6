"""The features stage: what the frozen part of a tower makes of frames or captions, computed once and stored."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from rap.clip.backbone import load
from rap.clip.caches import FRAMES, folder, position
from rap.clip.tokenizer import tokenize
from rap.clip.towers import INPUT, Clip, Context, Tower, Tuner
from rap.data.manifest import Manifest
from rap.data.shards import Item, Shard, build
from rap.device import setup
from rap.files import digest
from rap.params import Params

TOWERS = 2  # raised when the towers' arithmetic changes: rows of another are computed again


def run(params: Params, cache: str, shard: int) -> str:
    """Write data/DATASET/features/CACHE/shard-K.npy and .parquet.

    A row's key is the digest of all that it depends on: the video's frames (or the caption), the weights, the depth
    and the storage type. Rows whose key has not changed are kept.
    """
    device = setup(params.runtime)
    clip, config = load(params.backbone_folder)
    clip = clip.to(device)
    stem = folder(params, cache) / f"shard-{shard}"
    recipe = {"backbone": config["digest"], "cache": cache, "dtype": params.features.dtype, "towers": TOWERS}
    make = _video if cache.startswith("video") else _text
    made, computed = make(params, clip, config, cache, shard, stem, recipe)
    failed = int((made.index.reason != "").sum())
    size = Path(f"{stem}.npy").stat().st_size / 1e6
    return f"{stem}: {len(made.index)} rows, {computed} computed, {failed} failed, {size:.1f} MB"


def _video(params: Params, clip: Clip, config: dict, cache: str, shard: int, stem: Path, recipe: dict):
    frames = Shard.read(folder(params, FRAMES) / f"shard-{shard}")
    depth, tower = position(cache, clip.visual), clip.visual
    keys = {row.id: digest({**recipe, "frames": row.key}) for row in frames.index.itertuples()}
    rows = {row.id: number for number, row in enumerate(frames.index.itertuples())}
    shape = {tower.all: (clip.embed_dim,), tower.layers: (1, tower.width)}.get(depth, (tower.grid**2 + 1, tower.width))

    def compute(ids: list[str]) -> Iterator[Item]:
        reasons = {id: frames.index.reason[rows[id]] for id in ids}
        yield from (Item(id, reason=reason) for id, reason in reasons.items() if reason)
        good = [id for id in ids if not reasons[id]]
        for batch in _batches(good, params.features.batch, f"{cache} shard {shard}"):
            number = [rows[id] for id in batch]
            length = torch.from_numpy(frames.index.length.to_numpy()[number])
            x = torch.from_numpy(frames.array[number])
            yield from _items(batch, prefix(tower, x, length, depth), length)

    return build(stem, keys, (params.frames.count, *shape), params.features.dtype, compute)


def _text(params: Params, clip: Clip, config: dict, cache: str, shard: int, stem: Path, recipe: dict):
    captions = Manifest.read(params.data / "manifest").shard(shard, len(params.shards)).captions
    text = dict(zip(captions.caption_id, captions.caption, strict=True))
    depth, tower, words = position(cache, clip.text), clip.text, params.features.words
    keys = {id: digest({**recipe, "caption": caption, "words": words}) for id, caption in text.items()}
    shape = {INPUT: (words,), tower.all: (clip.embed_dim,), tower.layers: (1, tower.width)}
    shape = shape.get(depth, (words, tower.width))

    def compute(ids: list[str]) -> Iterator[Item]:
        for batch in _batches(ids, params.features.batch * params.frames.count, f"{cache} shard {shard}"):
            tokens, lengths = tokenize([text[id] for id in batch], config["tokenizer"], words)
            length = torch.from_numpy(lengths)
            x = torch.from_numpy(tokens)
            yield from _items(batch, x if depth == INPUT else prefix(tower, x, length, depth), length)

    return build(stem, keys, shape, "int32" if depth == INPUT else params.features.dtype, compute)


@torch.no_grad()
def prefix(tower: Tower, x: torch.Tensor, length: torch.Tensor, depth: int) -> torch.Tensor:
    """The frozen part of a tower: its input up to position `depth`."""
    device = next(tower.parameters()).device
    context = Context(tower, length.to(device))
    return tower.run(x.to(device), INPUT, depth, context, Tuner()).cpu()


def _batches(ids: list[str], size: int, title: str) -> Iterator[list[str]]:
    with tqdm(total=len(ids), desc=title, unit="row", leave=False) as bar:
        for start in range(0, len(ids), size):
            batch = ids[start : start + size]
            yield batch
            bar.update(len(batch))


def _items(ids: list[str], x: torch.Tensor, length: torch.Tensor) -> Iterator[Item]:
    for id, row, valid in zip(ids, np.asarray(x), length.tolist(), strict=True):
        yield Item(id, row, valid)
