"""Pretrain the demo's backbone: a small open_clip model, on stills of the demo's scenes.

A contrastive loss alone does not teach so small a vision tower where things are, so there are three phases:

warm     Stills of one thing. Linear heads on the image embedding classify place, colour, shape and size; they are
         dropped afterwards.
pair     Stills and captions, with CLIP's loss, in groups of four that differ only in place, or in place and one more
         property. One thing per still in the first half of the phase, two in the second.
event    As pair, plus stills of how an event ended with the caption of the event; its reversal, which ended otherwise,
         is in the same batch. Captions of photographs, too, often tell how a situation came about.

So the text tower has read about events, as CLIP's has, but the vision tower has seen stills only, and no motion.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from rap.clip.tokenizer import tokenize
from rap.clip.trainable import CLIP, encode_text, open_clip_model
from rap.demo.captions import caption, describe, vocabulary
from rap.demo.draw import still
from rap.demo.scenes import (
    BACKGROUNDS,
    COLOURS,
    KINDS,
    PLACES,
    SHAPES,
    SIZES,
    Scene,
    Thing,
    draw_scene,
    draw_thing,
    pick,
)
from rap.files import atomic, write_json
from rap.params import Params, Pretrain
from rap.runtime.device import setup

FOLDER = Path(__file__).parent
NAMES = {"place": tuple(PLACES), "colour": tuple(COLOURS), "shape": SHAPES, "size": tuple(SIZES)}
GROUP = 4


@dataclass(frozen=True)
class Still:
    """A still that can be drawn and described."""

    background: str
    things: tuple[Thing, ...]


def run(params: Params) -> str:
    """Train the demo's backbone; write demo-vit.safetensors (float16) and demo-vit.json next to this file."""
    setup(params.runtime.model_copy(update={"device": "cpu", "threads": 1}))  # a fixed order of sums: reproducible
    model, losses = train(params.pretrain)
    with atomic(FOLDER / "demo-vit.safetensors") as path:
        save_file({name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}, path)
    write_json(FOLDER / "demo-vit.json", config())
    measured = ", ".join(f"{name} {value:.1f} %" for name, value in quality(model).items())
    return f"{FOLDER / 'demo-vit.safetensors'}: {len(losses)} steps, last loss {losses[-1]:.3f}; new stills: {measured}"


def config() -> dict:
    """The backbone's config.json without digests."""
    words = [
        "<pad>",
        "<unknown>",
        "<start>",
        *vocabulary(),
        "<end>",
    ]  # open_clip pools text at the highest token id
    vision = {"image_size": 64, "patch_size": 16, "layers": 4, "width": 128, "head_width": 32}
    text = {"context_length": 32, "vocab_size": len(words), "layers": 3, "width": 128, "heads": 4}
    half = [0.5, 0.5, 0.5]
    return {
        "name": "demo-vit",
        "model": {"embed_dim": 128, "vision_cfg": vision, "text_cfg": text},
        "preprocess": {"size": 64, "mean": half, "std": half, "interpolation": "bicubic", "resize_mode": "shortest"},
        "tokenizer": {"kind": "words", "words": words},
    }


def train(options: Pretrain) -> tuple[CLIP, list[float]]:
    """The trained model and the loss of every step. Equal options give equal weights."""
    torch.manual_seed(options.seed)
    model = open_clip_model(config()["model"])
    heads = nn.ModuleDict({name: nn.Linear(128, len(values)) for name, values in NAMES.items()})
    losses: list[float] = []
    phases: dict[str, tuple[int, Callable[[np.random.Generator, float], Tensor]]] = {
        "warm": (options.warm_steps, lambda rng, done: warm_loss(model, heads, rng, options.batch)),
        "pair": (options.pair_steps, lambda rng, done: pair_loss(model, rng, options.batch, 1 if done < 0.5 else 2)),
        "event": (options.event_steps, lambda rng, done: both_losses(model, rng, options.batch)),
    }
    for number, (name, (steps, loss)) in enumerate(phases.items()):
        losses += descend(nn.ModuleList([model, heads]), loss, name, steps, options.lr, (options.seed, number))
    return model.eval(), losses


def descend(modules: nn.Module, loss_of: Callable, name: str, steps: int, lr: float, seed: tuple) -> Iterator[float]:
    """One phase: AdamW, linear warm-up over a tenth of the steps, then cosine decay; yields the loss of each step."""
    optimizer = torch.optim.AdamW(modules.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=0.05)
    for step in (bar := tqdm(range(steps), f"pretrain: {name}")):
        warmup = (step + 1) / max(1, steps // 10)
        optimizer.param_groups[0]["lr"] = lr * min(warmup, 0.5 + 0.5 * math.cos(math.pi * step / steps))
        loss = loss_of(np.random.default_rng((*seed, step)), step / steps)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(modules.parameters(), 1.0)
        optimizer.step()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
        yield loss.item()


def warm_loss(model: CLIP, heads: nn.ModuleDict, rng: np.random.Generator, batch: int) -> Tensor:
    """Mean cross-entropy of classifying each property of the one thing in a still."""
    stills = [Still(pick(rng, BACKGROUNDS), (draw_thing(rng, pick(rng, SIZES)),)) for _ in range(batch)]
    embedded = model.encode_image(pixels(stills, rng))
    labels = {name: [values.index(getattr(s.things[0], name)) for s in stills] for name, values in NAMES.items()}
    losses = [F.cross_entropy(heads[name](embedded), torch.tensor(label)) for name, label in labels.items()]
    return torch.stack(losses).mean()


def pair_loss(model: CLIP, rng: np.random.Generator, batch: int, things: int) -> Tensor:
    """CLIP's symmetric cross-entropy over a batch of stills and their captions."""
    stills = [still for _ in range(batch // GROUP) for still in group(rng, things)]
    images, texts = model.encode_image(pixels(stills, rng), True), embed(model, captions(stills, rng))
    return contrastive(images, texts, model.logit_scale.exp().clamp(max=100))


def both_losses(model: CLIP, rng: np.random.Generator, batch: int) -> Tensor:
    """The loss of the event phase: event_loss, and half of pair_loss on half a batch, so that no word is forgotten."""
    return event_loss(model, rng, batch) + 0.5 * pair_loss(model, rng, batch // 2, 1 + int(rng.random() < 0.5))


def event_loss(model: CLIP, rng: np.random.Generator, batch: int) -> Tensor:
    """CLIP's loss over captions of events and of their reversals, and stills of how they ended."""
    scenes = [draw_scene(rng, pick(rng, KINDS)) for _ in range(batch // 2)]
    scenes += [scene.backwards() for scene in scenes]
    images = model.encode_image(pixels([outcome(scene) for scene in scenes], rng), True)
    texts = embed(model, [caption(scene, rng) for scene in scenes])
    return contrastive(images, texts, model.logit_scale.exp().clamp(max=100))


def outcome(scene: Scene) -> Still:
    """The end of a scene: after a disappearance, only the bystander if any; of an `order`, the second thing."""
    return Still(scene.background, tuple(thing for thing in (scene.after, scene.bystander) if thing))


def contrastive(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    logits, labels = scale * images @ texts.T, torch.arange(len(images))
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def group(rng: np.random.Generator, things: int, vary: str | None = None) -> list[Still]:
    """Four stills that differ in one thing: in its place, or in its place and one more property, two values of each."""
    first = draw_thing(rng, pick(rng, SIZES))
    vary = vary or pick(rng, ("place", "place", "colour", "shape", "size"))
    places = rng.permutation(NAMES["place"])[:GROUP] if vary == "place" else rng.permutation(NAMES["place"])[:2]
    variants = [replace(first, place=str(place)) for place in places]
    if vary != "place":
        values = rng.permutation(NAMES[vary])[:2]
        variants = [replace(one, **{vary: str(value)}) for one in variants for value in values]
    second = [_beside(rng, variants)] * (things - 1)
    background = pick(rng, BACKGROUNDS)
    return [Still(background, (one, *second)) for one in variants]


def _beside(rng: np.random.Generator, variants: list[Thing]) -> Thing:
    """A thing that differs from all of `variants` in shape, colour and place."""
    while True:
        other = draw_thing(rng)
        if all(other.shape != v.shape and other.colour != v.colour and other.place != v.place for v in variants):
            return other


def captions(stills: list[Still], rng: np.random.Generator) -> list[str]:
    return [describe(s.background, [s.things[i] for i in rng.permutation(len(s.things))], rng) for s in stills]


def pixels(stills: list[Still], rng: np.random.Generator) -> Tensor:
    """Stills drawn at the size of the clips and scaled down: float32 [stills, 3, 64, 64], normalised."""
    drawn = np.stack([still(s.background, list(s.things), rng) for s in stills])
    large = torch.from_numpy(drawn).permute(0, 3, 1, 2).float()
    small = F.interpolate(large, size=64, mode="bicubic", antialias=True).clamp(0, 255)
    return small / 127.5 - 1


def embed(model: CLIP, texts: list[str]) -> Tensor:
    """Text embeddings, normalised. Padding is cut to the longest text of the batch, which halves the time."""
    ids, lengths = tokenize(texts, config()["tokenizer"], model.context_length)
    return F.normalize(encode_text(model, torch.from_numpy(ids[:, : lengths.max()]).long()), dim=-1)


@torch.no_grad()
def quality(model: CLIP, seed: int = 1) -> dict[str, float]:
    """Accuracy on new stills, in percent.

    place of four: captions retrieve their still among four that differ in place. R@1 of 256: captions retrieve their
    still among 256 stills of two things. outcome of two: captions of events prefer the still of the end to the still
    of the beginning.
    """
    rng = np.random.default_rng((seed, 99))
    groups = [one for _ in range(64) for one in group(rng, 1, "place")]
    mixed = [group(rng, 2)[0] for _ in range(256)]
    scenes = [draw_scene(rng, KINDS[i % len(KINDS)]) for i in range(250)]
    place, mixture = (_similarity(model, stills, captions(stills, rng), rng) for stills in (groups, mixed))
    blocks = place.view(64, GROUP, 64, GROUP).diagonal(dim1=0, dim2=2)  # [4, 4, 64]
    texts = [caption(scene, rng) for scene in scenes]
    end, beginning = (
        _similarity(model, [outcome(s) for s in shown], texts, rng).diagonal()
        for shown in (scenes, [s.backwards() for s in scenes])
    )
    return {
        "place of four": 100 * (blocks.argmax(1) == torch.arange(GROUP)[:, None]).float().mean().item(),
        "R@1 of 256": 100 * (mixture.argmax(1) == torch.arange(256)).float().mean().item(),
        "outcome of two": 100 * (end > beginning).float().mean().item(),
    }


def _similarity(model: CLIP, stills: list[Still], texts: list[str], rng: np.random.Generator) -> Tensor:
    """Cosine similarities [captions, stills]."""
    return embed(model, texts) @ model.encode_image(pixels(stills, rng), True).T
