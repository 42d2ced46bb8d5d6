"""How the demo's backbone was made: a small CLIP of open_clip, trained on stills of the demo's world.

A contrastive loss alone does not teach a vision tower this small where things are, so there are three phases:
warm     stills of one thing; linear heads on the image embedding name place, colour, shape and size, and are dropped
pair     stills and captions as in CLIP, in groups of four that a still's caption can only tell apart by the place, or
         by place and one more property; one thing in the first half, then two
event    as pair, and besides stills of how an event ended, with the caption of the event; its reversal, which ended
         otherwise, is in the same batch. A photograph's caption, too, often tells how things came to be so
So the text side has read what happens, as CLIP's has, and the visual side has seen stills alone, never a motion.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from rap.clip.tokenizer import tokenize
from rap.demo.captions import caption, describe, vocabulary
from rap.demo.draw import still
from rap.demo.scenes import BACKGROUNDS, COLOURS, KINDS, PLACES, SHAPES, SIZES, Scene, Thing, draw_scene, draw_thing
from rap.files import atomic, write_json
from rap.params import Params, Pretrain
from rap.runtime.device import setup

FOLDER = Path(__file__).parent
NAMES = {"place": tuple(PLACES), "colour": tuple(COLOURS), "shape": SHAPES, "size": tuple(SIZES)}
GROUP = 4


@dataclass(frozen=True)
class Still:
    """A still to be drawn and described."""

    background: str
    things: tuple[Thing, ...]


def run(params: Params) -> str:
    """Train the demo's backbone and write demo-vit.safetensors (float16) and demo-vit.json beside this file."""
    setup(params.runtime.model_copy(update={"device": "cpu", "threads": 1}))  # one order of sums, one set of weights
    model, losses = train(params.pretrain)
    with atomic(FOLDER / "demo-vit.safetensors") as path:
        save_file({name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}, path)
    write_json(FOLDER / "demo-vit.json", config())
    measured = ", ".join(f"{name} {value:.1f} %" for name, value in quality(model).items())
    return f"{FOLDER / 'demo-vit.safetensors'}: {len(losses)} steps, last loss {losses[-1]:.3f}; new stills: {measured}"


def config() -> dict:
    """The backbone's config.json, without a digest."""
    words = ["<pad>", "<unknown>", "<start>", *vocabulary(), "<end>"]  # open_clip pools text at the highest id
    vision = {"image_size": 64, "patch_size": 16, "layers": 4, "width": 128, "head_width": 32}
    text = {"context_length": 32, "vocab_size": len(words), "layers": 3, "width": 128, "heads": 4}
    half = [0.5, 0.5, 0.5]
    return {
        "name": "demo-vit",
        "model": {"embed_dim": 128, "vision_cfg": vision, "text_cfg": text},
        "preprocess": {"size": 64, "mean": half, "std": half, "interpolation": "bicubic", "resize_mode": "shortest"},
        "tokenizer": {"kind": "words", "words": words},
    }


def train(options: Pretrain) -> tuple[open_clip.CLIP, list[float]]:
    """The trained model, and the loss of every step of the three phases. Same options, same weights."""
    torch.manual_seed(options.seed)
    model = open_clip.CLIP(**config()["model"])
    heads = nn.ModuleDict({name: nn.Linear(128, len(values)) for name, values in NAMES.items()})
    losses = []
    phases: dict[str, tuple[int, Callable[[np.random.Generator, float], Tensor]]] = {
        "warm": (options.warm_steps, lambda rng, done: warm_loss(model, heads, rng, options.batch)),
        "pair": (options.pair_steps, lambda rng, done: pair_loss(model, rng, options.batch, 1 if done < 0.5 else 2)),
        "event": (options.event_steps, lambda rng, done: both_losses(model, rng, options.batch)),
    }
    for number, (name, (steps, loss)) in enumerate(phases.items()):
        losses += descend(nn.ModuleList([model, heads]), loss, name, steps, options.lr, (options.seed, number))
    return model.eval(), losses


def descend(modules: nn.Module, loss_of: Callable, name: str, steps: int, lr: float, seed: tuple) -> Iterator[float]:
    """One phase: AdamW, a tenth of the steps warming up, then a cosine; yields the loss of every step."""
    optimizer = torch.optim.AdamW(modules.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=0.05)
    for step in (bar := tqdm(range(steps), f"pretrain: {name}")):
        rise = (step + 1) / max(1, steps // 10)
        optimizer.param_groups[0]["lr"] = lr * min(rise, 0.5 + 0.5 * math.cos(math.pi * step / steps))
        loss = loss_of(np.random.default_rng((*seed, step)), step / steps)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(modules.parameters(), 1.0)
        optimizer.step()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
        yield loss.item()


def warm_loss(model: open_clip.CLIP, heads: nn.ModuleDict, rng: np.random.Generator, batch: int) -> Tensor:
    """Mean cross-entropy of naming each property of the one thing in a still."""
    stills = [Still(_pick(rng, BACKGROUNDS), (draw_thing(rng, _pick(rng, SIZES)),)) for _ in range(batch)]
    embedded = model.encode_image(pixels(stills, rng))
    answers = {name: [values.index(getattr(s.things[0], name)) for s in stills] for name, values in NAMES.items()}
    losses = [F.cross_entropy(heads[name](embedded), torch.tensor(right)) for name, right in answers.items()]
    return torch.stack(losses).mean()


def pair_loss(model: open_clip.CLIP, rng: np.random.Generator, batch: int, things: int) -> Tensor:
    """CLIP's symmetric cross-entropy over a batch of stills and their captions."""
    stills = [one for _ in range(batch // GROUP) for one in group(rng, things)]
    images, texts = model.encode_image(pixels(stills, rng), True), read(model, captions(stills, rng))
    return contrast(images, texts, model.logit_scale.exp().clamp(max=100))


def both_losses(model: open_clip.CLIP, rng: np.random.Generator, batch: int) -> Tensor:
    """The loss of the event phase: event_loss, and half of pair_loss on half a batch, so that no word is unlearnt."""
    return event_loss(model, rng, batch) + 0.5 * pair_loss(model, rng, batch // 2, 1 + int(rng.random() < 0.5))


def event_loss(model: open_clip.CLIP, rng: np.random.Generator, batch: int) -> Tensor:
    """CLIP's loss over captions of events, each with its reversal, and stills of how they ended."""
    scenes = [draw_scene(rng, _pick(rng, KINDS)) for _ in range(batch // 2)]
    scenes += [scene.backwards() for scene in scenes]
    images = model.encode_image(pixels([outcome(scene) for scene in scenes], rng), True)
    texts = read(model, [caption(scene, rng) for scene in scenes])
    return contrast(images, texts, model.logit_scale.exp().clamp(max=100))


def outcome(scene: Scene) -> Still:
    """What was there last: of a disappearance at most the bystander, of an `order` the second thing."""
    return Still(scene.background, tuple(thing for thing in (scene.after, scene.bystander) if thing))


def contrast(one: Tensor, other: Tensor, scale: Tensor | float) -> Tensor:
    logits, right = scale * one @ other.T, torch.arange(len(one))
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2


def group(rng: np.random.Generator, things: int, vary: str | None = None) -> list[Still]:
    """Four stills alike but for one thing: its place, or its place and one more property, two values of each."""
    first = draw_thing(rng, _pick(rng, SIZES))
    vary = vary or _pick(rng, ("place", "place", "colour", "shape", "size"))
    places = rng.permutation(NAMES["place"])[:GROUP] if vary == "place" else rng.permutation(NAMES["place"])[:2]
    variants = [replace(first, place=str(place)) for place in places]
    if vary != "place":
        values = rng.permutation(NAMES[vary])[:2]
        variants = [replace(one, **{vary: str(value)}) for one in variants for value in values]
    second = [_beside(rng, variants)] * (things - 1)
    background = _pick(rng, BACKGROUNDS)
    return [Still(background, (one, *second)) for one in variants]


def _beside(rng: np.random.Generator, variants: list[Thing]) -> Thing:
    """A thing that is unlike all of `variants` and at none of their places."""
    while True:
        other = draw_thing(rng)
        if all(other.shape != v.shape and other.colour != v.colour and other.place != v.place for v in variants):
            return other


def captions(stills: list[Still], rng: np.random.Generator) -> list[str]:
    return [describe(s.background, [s.things[i] for i in rng.permutation(len(s.things))], rng) for s in stills]


def pixels(stills: list[Still], rng: np.random.Generator) -> Tensor:
    """Drawn at the clips' size and scaled down as their frames are: float32 [stills, 3, 64, 64], normalised."""
    drawn = np.stack([still(s.background, list(s.things), rng) for s in stills])
    large = torch.from_numpy(drawn).permute(0, 3, 1, 2).float()
    small = F.interpolate(large, size=64, mode="bicubic", antialias=True).clamp(0, 255)
    return small / 127.5 - 1


def read(model: open_clip.CLIP, texts: list[str]) -> Tensor:
    """model.encode_text, normalised, without the padding that no caption of the batch needs: half the time."""
    ids, lengths = tokenize(texts, config()["tokenizer"], model.context_length)
    ids = torch.from_numpy(ids[:, : lengths.max()]).long()
    x = model.token_embedding(ids) + model.positional_embedding[: ids.shape[1]]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[: ids.shape[1], : ids.shape[1]]))
    return F.normalize(x[torch.arange(len(ids)), ids.argmax(1)] @ model.text_projection, dim=-1)


@torch.no_grad()
def quality(model: open_clip.CLIP, seed: int = 1) -> dict[str, float]:
    """What the backbone knows of new stills, in percent.

    place of four: a caption finds its still among four that differ in place. R@1 of 256: and among 256 of two things.
    outcome of two: an event's caption finds the still of its end rather than that of its beginning.
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


def _similarity(model: open_clip.CLIP, stills: list[Still], texts: list[str], rng: np.random.Generator) -> Tensor:
    """Captions by stills."""
    return read(model, texts) @ model.encode_image(pixels(stills, rng), True).T


def _pick(rng: np.random.Generator, names) -> str:
    return list(names)[rng.integers(len(names))]
