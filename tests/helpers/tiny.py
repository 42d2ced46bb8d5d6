"""A tiny CLIP with random weights and a project whose frames are noise: for tests of everything after frames."""

from contextlib import chdir
from pathlib import Path

import numpy as np
import sealed
import torch
import yaml
from safetensors.torch import save_file

from rap import params, paths
from rap.clip.plain import Plain
from rap.clip.towers import Clip
from rap.data.manifest import Manifest
from rap.files import digest_file, write_json
from rap.jobs import Job, perform
from rap.shards import Item, build, seal

WORDS = ["<pad>", "<unknown>", "<start>", "a", "red", "ball", "rolls", "left", "right", "then", "jumps", "<end>"]
CONFIG = {
    "name": "demo-vit",
    "model": {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 24, "layers": 3, "head_width": 8},
        "text_cfg": {"context_length": 16, "vocab_size": len(WORDS), "width": 16, "heads": 2, "layers": 2},
    },
    "preprocess": {
        "size": 32,
        "resize_mode": "shortest",
        "mean": [0.48, 0.46, 0.41],
        "std": [0.27, 0.26, 0.28],
        "interpolation": "bicubic",
    },
    "tokenizer": {"kind": "words", "words": WORDS},
}
ROOT = Path(__file__).parents[2]


def clip(seed: int = 0) -> Clip:
    """A frozen tiny Clip whose every weight is random, so that no term hides behind a zero."""
    generator = torch.Generator().manual_seed(seed)
    tiny = Plain(CONFIG)
    for name, weight in tiny.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        scale = weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.1
        weight.data = scale * noise + (("ln_" in name and "weight" in name) or 2 * (name == "logit_scale"))
    return tiny.freeze()


def project(folder: Path, videos: int = 8, frames: int = 4, others: str = "test", **changes) -> params.Params:
    """Write params.yaml, backbone, manifest, frames under `folder`: half train, half `others`, two captions each."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["features"] |= {
        "caches": ["video-0", "video-1", "video-2", "video-all", "text-ids", "text-1", "text-all"],
        "max_words": 12,
    }
    values["frames"]["count"] = frames
    values["train"] |= {"epochs": 2, "batch": 4, "checkpoint_every": 1}
    values["ablations"], values["tables"] = {}, {"table1": values["tables"]["table1"]}
    for name, part in (("ssf", "ssf"), ("lorm", "lorm"), ("rap", "lorm")):
        values["variants"][name][part]["blocks"] = "all"
    values["variants"] |= {name: {"adapter": name, "label": name} for name in ("full", "lora")}
    for key, change in changes.items():
        values[key] |= change
    values["run"] = list(values["variants"])
    (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    settings = params.load(folder / "params.yaml")
    home = folder / paths.backbone(settings.backbone.name)
    home.mkdir(parents=True, exist_ok=True)
    save_file(clip().state_dict(), home / "weights.safetensors")
    write_json(home / "config.json", CONFIG | {"digest": digest_file(home / "weights.safetensors")})
    with chdir(folder):
        sealed.backbone(settings)
        manifest(videos, others).write(paths.manifest(settings.dataset.name), Job(settings, "download", {}).result)
        for shard in settings.shards:
            noise_frames(settings, shard)
    return settings


def cache(settings: params.Params) -> None:
    """The features stage, all caches and shards, in the present folder."""
    for name in settings.features.caches:
        for shard in settings.shards:
            perform(settings, "features", cache=name, shard=shard)


def manifest(videos: int, others: str = "test") -> Manifest:
    random = np.random.default_rng(0)
    rows = [
        {"video_id": f"v{i}", "path": f"v{i}.mp4", "split": "train" if i % 4 < 2 else others, "status": "ok"}
        for i in range(videos)
    ]
    for row in rows:
        number = int(row["video_id"][1:])
        row["digest"], row["twin"] = f"d{number}", f"v{number ^ 1}"
    captions = [
        {
            "caption_id": f"v{i}#{j}",
            "video_id": f"v{i}",
            "caption": " ".join(random.choice(WORDS[3:-1], 4 + j)),
            "kind": "move",
        }
        for i in range(videos)
        for j in range(2)
    ]
    return Manifest.build(rows, captions)


def noise_frames(settings: params.Params, shard: int) -> None:
    """Frames of a shard: noise that depends on the video's id; v5 has only two valid frames, if there is a v5."""
    job = Job(settings, "frames", {"shard": shard})
    job.reads(paths.manifest(settings.dataset.name) / "manifest.json")
    ids = Manifest.read(paths.manifest(settings.dataset.name)).shard(shard, len(settings.shards)).videos.video_id
    count, shape = settings.frames.count, (settings.frames.count, 32, 32, 3)

    def noise(id: str) -> Item:
        random = np.random.default_rng(int(id[1:]))
        coarse = random.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
        return Item(id, coarse.repeat(8, 1).repeat(8, 2), 2 if id == "v5" else count)

    stem = paths.frames(settings.dataset.name, shard)
    made, _ = build(stem, {id: f"frames of {id}" for id in ids}, shape, "uint8", lambda missing: map(noise, missing))
    seal(made, job.result)
