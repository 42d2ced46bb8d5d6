"""Projects of any size on a backbone of the demo's size, whose caches are noise: for what comes after features."""

import os
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import synthetic
import torch
import yaml
from safetensors.torch import save_file

from rap.clip.backbone import demo_config
from rap.clip.towers import Clip
from rap.data.manifest import Manifest
from rap.files import write_json
from rap.params import Params
from rap.shards import Item, build

BLOCK = 3  # the one that is adapted, the last of four
PICTURES = 64  # different rows of a cache


@dataclass(frozen=True)
class Size:
    """`trained` videos with so many `captions` each, `tested` ones with so many `queries` in all."""

    trained: int = 64
    captions: int = 1
    tested: int = 64
    queries: int = 64
    frames: int = 8
    variants: int = 1  # of zero-shot CLIP, under several names
    width: int = 128  # of the joint space


def enter(folder: str, size: Size) -> Params:
    """Make `folder` the present one; the parameters of the project in it."""
    os.chdir(folder)
    values = yaml.safe_load((synthetic.ROOT / "params.yaml").read_text())
    values["dataset"]["name"] = "folder"
    values["frames"]["count"] = size.frames
    values["features"] |= {"caches": [f"video-{BLOCK}", "video-all", "text-all"], "dtype": "float16"}
    values["train"] |= {"epochs": 1, "twins": False}
    names = [f"zero_shot_{number}" for number in range(size.variants)]
    adapted = {"lorm": {"blocks": [BLOCK], "text": "none"}, "asa": {"blocks": [BLOCK], "text": "none"}}
    values["variants"] = {name: {"adapter": "none"} for name in names} | {"rap": {"adapter": "rap", **adapted}}
    values["seeds"], values["ablations"] = [0], {}
    values["tables"] = {"table1": {"title": "Noise", "variants": names, "baseline": names[0]}}
    return synthetic.load(values)


def make(folder: str, size: Size) -> Params:
    """Backbone, manifest, frames and caches."""
    settings = enter(folder, size)
    config = demo_config()
    config["model"]["embed_dim"] = size.width
    backbone(settings, config)
    manifest(size).write(settings.data / "manifest")
    listed = Manifest.read(settings.data / "manifest")
    vision = config["model"]["vision_cfg"]
    tokens = (vision["image_size"] // vision["patch_size"]) ** 2 + 1
    videos, captions = listed.videos.video_id, listed.captions.caption_id
    rows(settings, "frames", videos, (size.frames, *[vision["image_size"]] * 2, 3), "uint8")
    rows(settings, f"features/video-{BLOCK}", videos, (size.frames, tokens, vision["width"]), "float16")
    rows(settings, "features/video-all", videos, (size.frames, size.width), "float16")
    rows(settings, "features/text-all", captions, (size.width,), "float16")
    return settings


def backbone(settings: Params, config: dict) -> None:
    torch.manual_seed(0)
    clip = Clip(config).freeze()
    for weight in clip.parameters():
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.02)
    settings.backbone_folder.mkdir(parents=True)
    save_file(clip.state_dict(), settings.backbone_folder / "weights.safetensors")
    write_json(settings.backbone_folder / "config.json", config | {"digest": "noise"})


def manifest(size: Size) -> Manifest:
    """Videos to train on and to test on, and their captions, in the order of the videos."""
    splits = ["train"] * size.trained + ["test"] * size.tested
    videos = [{"video_id": f"v{n}", "path": f"v{n}", "split": split, "status": "ok"} for n, split in enumerate(splits)]
    owners = [n for n in range(size.trained) for _ in range(size.captions)]
    owners += sorted(size.trained + n % size.tested for n in range(size.queries))
    texts = [{"caption_id": f"c{n}", "video_id": f"v{owner}", "caption": f"take {n}"} for n, owner in enumerate(owners)]
    return Manifest.build(videos, texts)


def rows(settings: Params, name: str, ids: Iterable[str], shape: tuple[int, ...], dtype: str) -> None:
    """Shards of frames or of a cache; their rows are noise, of which there are PICTURES kinds."""
    random, ids = np.random.default_rng(0), list(ids)
    kinds = random.integers(0, 256, (PICTURES, *shape)).astype(dtype)
    if dtype != "uint8":
        kinds = random.standard_normal((PICTURES, *shape), np.float32).astype(dtype)
    count = len(settings.shards)
    for shard in settings.shards:
        mine = {id: number for number, id in enumerate(ids) if number % count == shard}
        keys = {id: f"{name} of {id}" for id in mine}
        items = lambda asked, mine=mine: (Item(id, kinds[mine[id] % PICTURES], shape[0]) for id in asked)  # noqa: E731
        build(settings.data / name / f"shard-{shard}", keys, shape, dtype, items)
