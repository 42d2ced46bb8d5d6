"""Projects of a benchmark's true shape and no meaning: random weights, frames that are noise, features of noise.

backbones/ has what open_clip says of two backbones, so that a machine without it can run what is here.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from rap import params, shards
from rap.clip.backbone import DEMO, demo_config, open_clip_config
from rap.clip.towers import Clip, Tower
from rap.data.benchmark import assemble, carve
from rap.data.manifest import Manifest
from rap.features import stage as features
from rap.files import digest_file, read_json, write_json
from rap.params import Params

ROOT = Path(__file__).resolve().parents[1]
BACKBONES = ROOT / "benchmarks/backbones"
PARTS = (("somebody", "two people", "a dog"), ("talks", "cooks", "runs"), ("on a stage", "in a kitchen", "with a ball"))


def config(name: str) -> dict:
    """The config of a backbone: of one of open_clip's by name, or of the demo's."""
    if name == DEMO:
        return demo_config()
    kept = BACKBONES / f"{name}.json"
    return read_json(kept) if kept.exists() else open_clip_config(name, "openai")


def random_clip(name: str) -> Clip:
    """A backbone of the true shape. Its weights are noise, none of them zero, and always the same."""
    torch.manual_seed(0)
    clip = Clip(config(name)).freeze()
    for weight in clip.parameters():
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.02)
    return clip


def values(name: str, depths: Iterable[int], frames: int) -> dict:
    """params.yaml as for MSR-VTT, with the backbone `name`, and of variants zero_shot and depth_D for each of `depths`.

    depth_D is RAP from block D on, its text side off: LoRM from there, ASA in the last two blocks. With D the number of
    blocks it is LoRM on the frame embeddings alone.
    """
    found = yaml.safe_load((ROOT / "params.yaml").read_text())
    for key, group in yaml.safe_load((ROOT / "workflow/datasets/msrvtt.yaml").read_text()).items():
        found[key] = {**found[key], **group} if isinstance(group, dict) else group
    layers = config(name)["model"]["vision_cfg"]["layers"]
    variants = {"zero_shot": {"adapter": "none", "label": "zero-shot"}}
    variants |= {f"depth_{depth}": _variant(depth, layers) for depth in depths}
    found["backbone"] |= {"name": name, "weights": "weights.safetensors"}
    found["frames"]["count"] = frames
    found["features"]["caches"] = [*(f"video-{depth}" for depth in depths), "video-all", "text-all"]
    table = {"title": "Features of noise", "variants": list(variants), "baseline": "zero_shot"}
    return found | {"seeds": [0], "variants": variants, "ablations": {}, "tables": {"table1": table}}


def _variant(depth: int, layers: int) -> dict:
    label = f"from block {depth}"
    if depth == layers:
        return {"adapter": "lorm", "label": label, "lorm": {"sites": ["ln_post"], "text": "none"}}
    blocks = list(range(depth, layers))
    lorm, asa = {"blocks": blocks, "text": "none"}, {"blocks": blocks[-2:], "text": "none"}
    return {"adapter": "rap", "label": label, "lorm": lorm, "asa": asa}


def manifest(train: int, test: int, captions: int, validation: int) -> Manifest:
    """Videos to train on, `validation` of them set aside, with so many captions each; and `test` with one each."""
    ids = [f"video{number}" for number in range(train + test)]
    texts = {id: [_sentence(row + n) for n in range(captions if row < train else 1)] for row, id in enumerate(ids)}
    return assemble({**carve(ids[:train], validation), "test": ids[train:]}, texts, Path("."))


def _sentence(number: int) -> str:
    return " ".join(words[number // 3**place % 3] for place, words in enumerate(PARTS)) + f", take {number}"


def project(settings: Params, train: int, test: int = 1, captions: int = 1) -> None:
    """In the present folder, all that the features stage reads: backbone, manifest, and frames of noise."""
    backbone(settings)
    manifest(train, test, captions, validation=0).write(settings.data / "manifest")
    size, random = config(settings.backbone.name)["preprocess"]["size"], np.random.default_rng(0)
    picture = random.integers(0, 256, (settings.frames.count, size, size, 3), dtype=np.uint8)
    frames(settings, picture)


def backbone(settings: Params) -> None:
    """The backbone's folder, as its stage would write it; words are numbered without open_clip's vocabulary."""
    found, home = config(settings.backbone.name), settings.backbone_folder
    home.mkdir(parents=True, exist_ok=True)
    save_file(random_clip(settings.backbone.name).state_dict(), home / "weights.safetensors")
    words = {word for part in PARTS for text in part for word in text.split()}
    tokenizer = {"kind": "words", "words": ["<pad>", "<unknown>", "<start>", *sorted(words), "<end>"]}
    digest = digest_file(home / "weights.safetensors")
    write_json(home / "config.json", found | {"tokenizer": tokenizer, "digest": digest})


def holes(settings: Params) -> None:
    """The frames' shards: files of the true length with nothing in them."""
    frames(settings, None)


def frames(settings: Params, picture: np.ndarray | None) -> None:
    """The frames' shards, `picture` [T, size, size, 3] (or a hole) for each video, every row of the full length."""
    videos = Manifest.read(settings.data / "manifest")
    size, count = config(settings.backbone.name)["preprocess"]["size"], settings.frames.count
    for shard in settings.shards:
        ids = videos.shard(shard, len(settings.shards)).videos.video_id
        keys = {id: f"frames of {id}" for id in ids}
        stem, shape = settings.data / "frames" / f"shard-{shard}", (count, size, size, 3)
        shards.build(stem, keys, shape, "uint8", lambda ids: (shards.Item(id, picture, count) for id in ids))


def noise(settings: Params) -> None:
    """All caches, by the features stage itself: its keys, rows and files, with noise in place of the towers' work."""
    real, shapes = features.prefix, {}

    def prefix(tower: Tower, x: Tensor, length: Tensor, depth: int) -> Tensor:
        if (type(tower), depth) not in shapes:
            shapes[type(tower), depth] = real(tower, x[:1], length[:1], depth).shape[1:]
        return torch.randn(len(x), *shapes[type(tower), depth])

    torch.manual_seed(0)
    features.prefix = prefix
    try:
        for cache in settings.features.caches:
            for shard in settings.shards:
                print(features.run(settings, cache, shard), flush=True)
    finally:
        features.prefix = real


def load(found: dict) -> Params:
    return params.parse(Params, found, "benchmarks")
