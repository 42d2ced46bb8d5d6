"""What one clip, one caption and one second of video cost, and that times what the benchmarks have.

    python benchmarks/units.py FOLDER

FOLDER holds a few typical videos. Everything runs on one core, and its CPU seconds are taken: other work on the machine
lengthens them less than it lengthens the wall's. The backbone has the shape of a ViT-B/32 and random weights. What is
written are benchmarks/results/units.json and .md, and the tables of docs/scaling.md.
"""

import resource
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import report
import synthetic
import torch
import typer
from torch import Tensor, UntypedStorage
from tqdm import tqdm

from rap import adapters
from rap.adapters import Adapter
from rap.adapters.lorm import text_tuner
from rap.clip.towers import INPUT, Clip
from rap.data.datasets import names
from rap.data.registry import info
from rap.data.videos import SUFFIXES
from rap.features.cache import Batch
from rap.features.stage import prefix
from rap.frames.decode import Recipe, decode, prepare
from rap.frames.probe import probe
from rap.retrieval.model import Retriever

BATCH = 128  # pairs per step of the published figures
HALF, FLOAT = 2, 4  # bytes
HOUR, GB = 3600, 1e9  # seconds, bytes
LENGTHS = ((12, 32), (64, 64))  # frames and words that the benchmarks ask for


@dataclass(frozen=True)
class Size:
    """Counts of docs/datasets.md; `hours` of ActivityNet are the mean of val_1, 118 s, times all videos.

    Ten million are clips of 15 s with a caption each, all trained on, 1,000 of them tested.
    """

    videos: int
    hours: float
    captions: int  # of all splits
    pairs: int  # of an epoch
    tested: int  # videos
    queries: int


SIZES = {
    "msrvtt": Size(10_000, 41.2, 9_000 * 20 + 1_000, 8_500 * 20, 1_000, 1_000),
    "msvd": Size(1_970, 5.3, 48_774 + 4_290 + 27_763, 48_774, 670, 27_763),
    "didemo": Size(8_395 + 1_065 + 1_004, 87, 8_395 + 1_065 + 1_004, 8_395, 1_004, 1_004),
    "activitynet": Size(10_009 + 4_917, (10_009 + 4_917) * 118 / 3600, 10_009 + 4_917, 9_509, 4_917, 4_917),
    "ten million": Size(10_000_000, 10_000_000 * 15 / 3600, 10_000_000, 10_000_000, 1_000, 1_000),
}


def main(videos: Path, backbone: str = "ViT-B-32", results: Path = report.RESULTS, repeats: int = 2) -> None:
    """`videos`: a folder of typical ones. Every figure is the best of `repeats`."""
    torch.set_num_threads(1)
    about = report.machine()
    clip = synthetic.random_clip(backbone)
    units = {}
    for frames, words in tqdm(LENGTHS, desc="lengths"):
        units |= {f"{frames} frames": clip_units(backbone, clip, frames, videos, repeats)}
        units |= {f"{words} words": text_units(clip, min(words, len(clip.text.positional_embedding)), repeats)}
    figures = {"machine": about, "units": units, "sizes": {name: asdict(size) for name, size in SIZES.items()}}
    report.write(
        results.resolve(),
        "units",
        figures,
        report.sentence(about) + " Seconds are of one core.",
        "One clip:",
        report.table(clip_rows(units)),
        decoded(units),
        "One caption:",
        report.table(caption_rows(units)),
        f"Multiplied out, in core hours; an epoch has all training captions, a step {BATCH}:",
        report.table(time_rows(units)),
        "Disk and memory, in GB; caches with 16 bits a number, what a step keeps with 32:",
        report.table(space_rows(units)),
    )


def clip_units(backbone: str, clip: Clip, frames: int, videos: Path, repeats: int) -> dict:
    """Costs of a clip of so many frames: decoding it, and from there to, and from, each depth."""
    settings = synthetic.load(synthetic.values(backbone, depths(clip.visual.layers), frames))
    recipe = prepare(settings.frames, synthetic.config(backbone)["preprocess"], backbone)
    size, length = recipe.size, torch.tensor([frames])
    pixels = torch.randint(0, 256, (1, frames, size, size, 3), dtype=torch.uint8)
    found = {"frames_bytes": pixels.nbytes, "decode": decoding(videos, recipe, repeats), "depths": {}}
    for variant in settings.variants:
        adapter = adapters.build(clip, settings, variant)
        depth = int(min(adapter.video.first_block, clip.visual.all))
        tokens = prefix(clip.visual, pixels, length, depth)
        model = Retriever(clip, adapter)
        step = partial(model.video, Batch(tokens, length, depth))
        found["depths"]["all" if depth == clip.visual.all else str(depth)] = {
            "bytes": HALF * tokens.numel(),
            "prefix": seconds(partial(prefix, clip.visual, pixels, length, depth), repeats),
            "suffix": seconds(torch.no_grad()(step), repeats),
            **training(step, model, repeats),
        }
    return found


def depths(layers: int) -> tuple[int, ...]:
    """The first block, the middle one, the last one, and after it, where a frame is one token."""
    return 0, layers // 2, layers - 1, layers


def text_units(clip: Clip, words: int, repeats: int, captions: int = 8) -> dict:
    """Costs of a caption of so many words: its embedding, and a step that trains the scales of RAP's text side."""
    adapter = Adapter(text=text_tuner(clip, "scale"))
    model, length = Retriever(clip, adapter), torch.full((captions,), words)
    step = partial(model.text, Batch(torch.randint(1, 50, (captions, words)), length, INPUT))
    found = {"embed": seconds(torch.no_grad()(step), repeats), **training(step, model, repeats)}
    return {"bytes": HALF * clip.embed_dim, **{name: value / captions for name, value in found.items()}}


def decoding(folder: Path, recipe: Recipe, repeats: int) -> float:
    """Seconds for a second of video, over all videos of a folder."""
    files = [file for file in sorted(folder.iterdir()) if file.suffix and file.suffix in SUFFIXES]
    spans = [probe(file) for file in files]
    length = sum(span.end - span.start for span in spans)
    return seconds(lambda: [decode(file, recipe) for file in files], repeats) / length


def training(step: Callable[[], Tensor], model: Retriever, repeats: int) -> dict:
    """Seconds of a step forward and back, and bytes kept in between, less the weights; {} if nothing is trained."""
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
    return min(_seconds(work) for _ in range(repeats))


def _seconds(work: Callable[[], object]) -> float:
    before = _cpu()
    work()
    return _cpu() - before


def _cpu() -> float:
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in usage)


def clip_rows(units: dict) -> list[dict]:
    return [
        {
            "frames": str(frames),
            "from block": depth,
            "in the cache, MB": digits(cost["bytes"] / 1e6),
            "to there, s": digits(cost["prefix"]),
            "from there, s": digits(cost["suffix"]),
            "training from there, s": digits(cost["train"]),
            "kept for it, MB": digits(cost["kept_bytes"] / 1e6),
        }
        for frames, _ in LENGTHS
        for depth, cost in trained(units, frames).items()
    ]


def trained(units: dict, frames: int) -> dict:
    """The depths from which something is trained: all but that of the finished embeddings."""
    return {depth: cost for depth, cost in units[f"{frames} frames"]["depths"].items() if "train" in cost}


def decoded(units: dict) -> str:
    costs = [f"{digits(units[f'{n} frames']['decode'])} s for {n} frames" for n, _ in LENGTHS]
    return f"Decoding a second of video takes {' and '.join(costs)}."


def caption_rows(units: dict) -> list[dict]:
    return [
        {
            "words": name.removesuffix(" words"),
            "embedding, s": digits(cost["embed"]),
            "training, s": digits(cost["train"]),
            "kept for it, MB": digits(cost["kept_bytes"] / 1e6),
        }
        for name, cost in units.items()
        if name.endswith(" words")
    ]


def time_rows(units: dict) -> list[dict]:
    """Core hours, a column for each benchmark."""
    columns = {}
    for name, size in SIZES.items():
        clip, depths, text = costs(units, name)
        columns[name] = {
            "decoding": size.hours * clip["decode"],
            "features, all blocks": size.videos * max(cost["prefix"] for cost in depths.values()) / HOUR,
            "embeddings of the captions": size.captions * text["embed"] / HOUR,
            **{f"an epoch, from block {d}": size.pairs * cost["train"] / HOUR for d, cost in depths.items()},
            "an epoch, text side trained: in addition": size.pairs * text["train"] / HOUR,
            **{f"the test split, from block {d}": size.tested * cost["suffix"] / HOUR for d, cost in depths.items()},
        }
    return transposed(columns)


def space_rows(units: dict) -> list[dict]:
    """Gigabytes, a column for each benchmark: files, what a step keeps, the similarity matrix."""
    columns = {}
    for name, size in SIZES.items():
        clip, depths, text = costs(units, name)
        columns[name] = {
            "frames": size.videos * clip["frames_bytes"] / GB,
            **{f"video-{depth}": size.videos * cost["bytes"] / GB for depth, cost in clip["depths"].items()},
            "text-all": size.captions * text["bytes"] / GB,
            "similarity.npy, a run": FLOAT * size.tested * size.queries / GB,
            **{f"memory of a step, from block {d}": BATCH * cost["kept_bytes"] / GB for d, cost in depths.items()},
            "memory of a step, text side trained: in addition": BATCH * text["kept_bytes"] / GB,
        }
    return transposed(columns)


def transposed(columns: dict[str, dict[str, float]]) -> list[dict]:
    """Rows from columns, figures to three digits."""
    names = next(iter(columns.values()))
    return [{"": name, **{key: digits(column[name]) for key, column in columns.items()}} for name in names]


def digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def costs(units: dict, name: str) -> tuple[dict, dict, dict]:
    """Of a clip, of it by depth, and of a caption, as a data set asks for frames and words."""
    usual = info(name if name in names() else "msrvtt")
    return units[f"{usual.frames} frames"], trained(units, usual.frames), units[f"{usual.max_words} words"]


if __name__ == "__main__":
    typer.run(main)
