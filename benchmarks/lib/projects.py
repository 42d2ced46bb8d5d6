"""Projects with the shape of a benchmark dataset, without its content: random weights, frames and features of noise.

backbones/ holds the configs of two backbones, so that a machine without open_clip can use them.
"""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml

from lib import ours
from lib.report import ROOT
from rap import params
from rap.clip.backbone import CLIPS, DEMO
from rap.clip.models import open_clip_config
from rap.clip.towers import Clip
from rap.data.benchmark import assemble, carve
from rap.data.manifest import Manifest
from rap.files import read_json
from rap.params import Params

BACKBONES = ROOT / "benchmarks/backbones"
PARTS = (("somebody", "two people", "a dog"), ("talks", "cooks", "runs"), ("on a stage", "in a kitchen", "with a ball"))


@dataclass(frozen=True)
class Size:
    """`trained` videos with `captions` each, `tested` ones with `queries` in all. The rest describes `small`."""

    trained: int = 64
    captions: int = 1
    tested: int = 1
    queries: int = 1
    frames: int = 8
    variants: int = 1  # copies of zero-shot CLIP
    width: int = 128  # of the joint space


@contextmanager
def workplace(parent: Path | None = None) -> Iterator[Path]:
    """A temporary folder as the working directory."""
    with tempfile.TemporaryDirectory(dir=parent) as folder, chdir(folder):
        yield Path(folder)


def config(name: str) -> dict:
    """The config of the demo's backbone, or of an open_clip model, whose first tag gives the preprocessing."""
    if name == DEMO:
        return read_json(ROOT / "src/rap/demo/demo-vit.json")
    kept = BACKBONES / f"{name}.json"
    return read_json(kept) if kept.exists() else open_clip_config(name, None)


def blocks(name: str) -> int:
    """The number of blocks of a backbone's video tower."""
    with torch.device("meta"):
        return _clip(config(name)).visual.layers


def random_clip(config: dict) -> Clip:
    """A backbone with random weights, none of them zero; the same ones in every call."""
    torch.manual_seed(0)
    clip = _clip(config).freeze()
    for weight in clip.parameters():
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.02)
    return clip


def _clip(config: dict) -> Clip:
    return CLIPS[config.get("kind", "plain")](config)


def values(name: str, depths: Iterable[int], frames: int) -> dict:
    """params.yaml for MSR-VTT with one shard, the backbone `name`, and variants zero_shot and depth_D for each depth.

    depth_D is RAP from block D on: LoRM in these blocks and ASA in the last two, the text side off. If D is the number
    of blocks, it is LoRM on the frame embeddings.
    """
    found = yaml.safe_load((ROOT / "params.yaml").read_text())
    for key, group in yaml.safe_load((ROOT / "src/rap/presets/msrvtt.yaml").read_text()).items():
        found[key] = {**found[key], **group} if isinstance(group, dict) else group
    variants = {"zero_shot": {"adapter": "none", "label": "zero-shot"}}
    variants |= {f"depth_{depth}": _variant(depth, blocks(name)) for depth in depths}
    found["backbone"] |= {"name": name, "weights": "weights.safetensors"}
    found["frames"]["count"] = frames
    words = config(name)["model"]["text_cfg"]["context_length"]
    found["features"]["max_words"] = min(found["features"]["max_words"], words)
    found["features"]["caches"] = [*(f"video-{depth}" for depth in depths), "video-all", "text-all"]
    tables = {"table1": {"title": "Noise", "variants": list(variants), "baseline": "zero_shot"}}
    return found | {"shards": [0], "seeds": [0], "variants": variants, "ablations": {}, "tables": tables}


def _variant(depth: int, layers: int) -> dict:
    label = f"from block {depth}"
    if depth == layers:
        return {"adapter": "lorm", "label": label, "lorm": {"sites": ["ln_post"], "text": "none"}}
    adapted = list(range(depth, layers))
    lorm, asa = {"blocks": adapted, "text": "none"}, {"blocks": adapted[-2:], "text": "none"}
    return {"adapter": "rap", "label": label, "lorm": lorm, "asa": asa}


def methods(found: dict, depth: int) -> dict:
    """`found` with depth_D replaced by the variants LoRM and, before the end of the tower, RAP."""
    variants = dict(found["variants"])
    rap = variants.pop(f"depth_{depth}")
    variants["LoRM"] = {key: rap[key] for key in ("label", "lorm")} | {"adapter": "lorm"}
    variants |= {"RAP": rap} if "asa" in rap else {}
    table = found["tables"]["table1"] | {"variants": list(variants)}
    return found | {"variants": variants, "tables": {"table1": table}}


def load(found: dict) -> Params:
    return params.parse(Params, found | {"run": list(found["variants"])}, "benchmarks")


def manifest(size: Size, validation: int = 0) -> Manifest:
    """Videos to train on, `validation` of them set aside, and videos to test on, with their captions."""
    ids = [f"video{number}" for number in range(size.trained + size.tested)]
    trained, tested = ids[: size.trained], ids[size.trained :]
    counts = dict.fromkeys(trained, size.captions)
    counts |= {id: len(range(n, size.queries, size.tested)) for n, id in enumerate(tested)}
    texts = {id: [_sentence(row + n) for n in range(counts[id])] for row, id in enumerate(ids)}
    return assemble({**carve(trained, validation), "test": tested}, texts, Path("."))


def _sentence(number: int) -> str:
    return " ".join(words[number // 3**place % 3] for place, words in enumerate(PARTS)) + f", take {number}"


def make(
    settings: Params, size: Size, validation: int = 0, holes: bool = False, backbone: dict | None = None
) -> Params:
    """All inputs of the features stage, in the working directory.

    `holes`: frames that take no disk space. `backbone`: a config instead of the one of the backbone's name.
    """
    write_backbone(settings, backbone or config(settings.backbone.name))
    ours.write_manifest(settings, manifest(size, validation))
    side = config(settings.backbone.name)["preprocess"]["size"]
    picture = np.random.default_rng(0).integers(0, 256, (settings.frames.count, side, side, 3), dtype=np.uint8)
    ours.write_frames(settings, None if holes else picture)
    return settings


def small(size: Size) -> Params:
    """The parameters of a project on the demo's backbone: copies of zero-shot CLIP, and RAP in the last block."""
    last = blocks(DEMO) - 1
    found = values(DEMO, [last], size.frames)
    names = [f"zero_shot_{number}" for number in range(size.variants)]
    found["variants"] = {name: {"adapter": "none"} for name in names} | {"rap": found["variants"][f"depth_{last}"]}
    found["tables"]["table1"] |= {"variants": names, "baseline": names[0]}
    found["train"] |= {"epochs": 1, "batch": 32}
    return load(found)


def make_small(size: Size) -> Params:
    """The project of `small` with all its caches, in the working directory."""
    wide = config(DEMO)
    wide["model"]["embed_dim"] = size.width
    settings = make(small(size), size, backbone=wide)
    ours.write_noise(settings)
    return settings


def write_backbone(settings: Params, config: dict) -> None:
    """The folder of the backbone stage, with random weights and a tokenizer of PARTS, which needs no open_clip."""
    words = {word for part in PARTS for text in part for word in text.split()}
    tokenizer = {"kind": "words", "words": ["<pad>", "<unknown>", "<start>", *sorted(words), "<end>"]}
    ours.write_backbone(settings, random_clip(config), config | {"tokenizer": tokenizer})
