"""Pretrain the demo's backbone: a small open_clip model, on stills of the demo's scenes.

A contrastive loss alone does not teach such a small model where things are, in which direction they move, or which of
two things does what. Training has five phases:

warm     Stills of one thing. Linear heads on the image embedding classify place, colour, shape and size; they are
         dropped at the end.
pair     Stills and captions, with CLIP's loss, in groups of four that differ only in place, or in place and one more
         property. One thing per still in the first half of the phase, two in the second.
course   Stills of motions with comet tails. More heads classify their facts (rap.demo.facts): courses, and the colour
         and the shape of the thing in each role. The other heads are still trained.
scene    As pair, plus captions of scenes: events beside a still of how they ended, motions beside a still with comet
         tails. The reversed scene is in the same batch. The heads for facts also read the text embeddings.
text     The text tower alone, beside embeddings of the stills of the phases `pair` and `scene`. In addition, two
         wordings of one scene attract each other, and repel all other captions, including the reversed scene's.

So the text tower has been trained on captions of events and motions, like CLIP's. The vision tower has seen only
stills, never two frames of one clip; clips have no tails. Stills of held-out validation and test scenes are never used.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from rap.clip.tokenizer import tokenize
from rap.clip.trainable import CLIP, encode_text, open_clip_model
from rap.demo import facts
from rap.demo.captions import caption, vocabulary
from rap.demo.motions import MOTIONS
from rap.demo.scenes import KINDS, Scene, draw_scene
from rap.demo.stills import GROUP, NAMES, SIZE, Still, captions, drawn, group, prepared, shown
from rap.demo.things import BACKGROUNDS, SIZES, draw_thing, pick
from rap.files import atomic, write_json
from rap.params import Params, Pretrain
from rap.progress import progress
from rap.runtime.device import setup

FOLDER = Path(__file__).parent
BATCHES = {"course": 200, "text": 64}  # batches of stills that a phase reuses


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
    words = ["<pad>", "<unknown>", "<start>", *vocabulary(), "<end>"]  # open_clip pools text at the highest token id
    vision = {"image_size": SIZE, "patch_size": 16, "layers": 4, "width": 128, "head_width": 32}
    text = {"context_length": 32, "vocab_size": len(words), "layers": 3, "width": 128, "heads": 4}
    half = [0.5, 0.5, 0.5]
    return {
        "name": "demo-vit",
        "model": {"embed_dim": 128, "vision_cfg": vision, "text_cfg": text},
        "preprocess": {"size": SIZE, "mean": half, "std": half, "interpolation": "bicubic", "resize_mode": "shortest"},
        "tokenizer": {"kind": "words", "words": words},
    }


def train(options: Pretrain) -> tuple[CLIP, list[float]]:
    """The trained model and the loss of every step. Equal options give equal weights."""
    torch.manual_seed(options.seed)
    model = open_clip_model(config()["model"])
    sizes = {name: len(values) for name, values in NAMES.items()} | facts.HEADS
    heads = nn.ModuleDict({name: nn.Linear(128, size) for name, size in sizes.items()})
    batch, seed = options.batch, options.seed
    losses: list[float] = []
    numbers = range(min(BATCHES["course"], options.course_steps))
    motions = [motion_stills(np.random.default_rng((seed, 9, number)), batch) for number in numbers]
    phases: dict[str, tuple[int, Callable[[np.random.Generator, float], Tensor]]] = {
        "warm": (options.warm_steps, lambda rng, done: warm_loss(model, heads, rng, batch)),
        "pair": (options.pair_steps, lambda rng, done: pair_loss(model, rng, batch, 1 if done < 0.5 else 2)),
        "course": (options.course_steps, lambda rng, done: course_loss(model, heads, motions, rng, batch)),
        "scene": (options.scene_steps, lambda rng, done: both_losses(model, heads, rng, batch)),
    }
    for number, (name, (steps, loss)) in enumerate(phases.items()):
        losses += descend(nn.ModuleList([model, heads]), loss, name, steps, options.lr, (seed, number))
    model.visual.requires_grad_(False)
    numbers = range(min(BATCHES["text"], options.text_steps))
    frozen = [Frozen.draw(model, np.random.default_rng((seed, 10, number)), batch) for number in numbers]
    losses += descend(
        nn.ModuleList([model, heads]), lambda rng, done: text_loss(model, heads, frozen, rng), "text",
        options.text_steps, options.lr, (seed, len(phases)),
    )  # fmt: skip
    return model.eval(), losses


def descend(modules: nn.Module, loss_of: Callable, name: str, steps: int, lr: float, seed: tuple) -> Iterator[float]:
    """One phase: AdamW, linear warm-up over a tenth of the steps, then cosine decay; yields the loss of each step."""
    trained = [parameter for parameter in modules.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=lr, betas=(0.9, 0.98), weight_decay=0.05)
    for step in (bar := progress(range(steps), f"pretrain: {name}")):
        warmup = (step + 1) / max(1, steps // 10)
        optimizer.param_groups[0]["lr"] = lr * min(warmup, 0.5 + 0.5 * math.cos(math.pi * step / steps))
        loss = loss_of(np.random.default_rng((*seed, step)), step / steps)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
        yield loss.item()


def warm_loss(model: CLIP, heads: nn.ModuleDict, rng: np.random.Generator, batch: int) -> Tensor:
    """Mean cross-entropy of classifying each property of the one thing in a still."""
    stills = [Still(pick(rng, BACKGROUNDS), (draw_thing(rng, pick(rng, SIZES)),)) for _ in range(batch)]
    embedded = model.encode_image(drawn(stills, rng))
    labels = {name: [values.index(getattr(s.things[0], name)) for s in stills] for name, values in NAMES.items()}
    losses = [F.cross_entropy(heads[name](embedded), torch.tensor(label)) for name, label in labels.items()]
    return torch.stack(losses).mean()


Stills = tuple[list[Scene], list[np.ndarray]]  # scenes, and a still of each


def motion_stills(rng: np.random.Generator, batch: int) -> Stills:
    """Stills of motions, with comet tails. The kinds alternate."""
    motions = [draw_scene(rng, MOTIONS[number % len(MOTIONS)], "seen") for number in range(batch)]
    return motions, [shown(motion, rng) for motion in motions]


def course_loss(
    model: CLIP, heads: nn.ModuleDict, stills: list[Stills], rng: np.random.Generator, batch: int
) -> Tensor:
    """Cross-entropy of naming the facts of one of the batches of stills, and half of warm_loss on a quarter batch."""
    motions, pictures = stills[rng.integers(len(stills))]
    named = facts.loss(heads, model.encode_image(prepared(pictures)), motions)
    return named + 0.5 * warm_loss(model, heads, rng, batch // 4)


def pair_loss(model: CLIP, rng: np.random.Generator, batch: int, things: int) -> Tensor:
    """CLIP's symmetric cross-entropy over a batch of stills and their captions."""
    stills = groups(rng, batch, things)
    images, texts = model.encode_image(drawn(stills, rng), True), embed(model, captions(stills, rng))
    return contrastive(images, F.normalize(texts, dim=-1), scale(model))


def groups(rng: np.random.Generator, batch: int, things: int) -> list[Still]:
    return [still for _ in range(batch // GROUP) for still in group(rng, things)]


def both_losses(model: CLIP, heads: nn.ModuleDict, rng: np.random.Generator, batch: int) -> Tensor:
    """The loss of the phase `scene`, plus 0.5 pair_loss on half a batch, so that words are not forgotten."""
    return scene_loss(model, heads, rng, batch) + 0.5 * pair_loss(model, rng, batch // 2, 1 + int(rng.random() < 0.5))


def scene_loss(model: CLIP, heads: nn.ModuleDict, rng: np.random.Generator, batch: int) -> Tensor:
    """CLIP's loss over scenes, their reversals and a still of each; and the loss of naming facts, of both towers."""
    scenes = both_ways(rng, batch)
    images = model.encode_image(prepared([shown(scene, rng) for scene in scenes]))
    texts = embed(model, [caption(scene, rng) for scene in scenes])
    named = facts.loss(heads, images, scenes) + 0.5 * facts.loss(heads, texts, scenes)
    return contrastive(F.normalize(images, dim=-1), F.normalize(texts, dim=-1), scale(model)) + named


def both_ways(rng: np.random.Generator, batch: int) -> list[Scene]:
    """Scenes that are not held out, each with its reversal. Every kind is among them."""
    scenes = [draw_scene(rng, KINDS[number % len(KINDS)], "seen") for number in range(batch // 2)]
    return scenes + [scene.backwards() for scene in scenes]


@dataclass(frozen=True)
class Frozen:
    """Scenes and stills of things, and the frozen embeddings of their pictures, float32 [pictures, E], normalised."""

    scenes: list[Scene]
    shown: Tensor
    stills: list[Still]
    drawn: Tensor

    @classmethod
    @torch.no_grad()
    def draw(cls, model: CLIP, rng: np.random.Generator, batch: int) -> "Frozen":
        scenes, stills = both_ways(rng, batch), groups(rng, batch // 2, 1 + int(rng.random() < 0.5))
        pictures = prepared([shown(scene, rng) for scene in scenes]), drawn(stills, rng)
        return cls(scenes, model.encode_image(pictures[0], True), stills, model.encode_image(pictures[1], True))


def text_loss(model: CLIP, heads: nn.ModuleDict, batches: list[Frozen], rng: np.random.Generator) -> Tensor:
    """CLIP's loss against frozen stills, the same between two wordings of each scene, and the loss of naming facts."""
    batch = batches[rng.integers(len(batches))]
    one, other = (embed(model, [caption(scene, rng) for scene in batch.scenes]) for _ in range(2))
    named = facts.loss(heads, one, batch.scenes)
    one, other, texts = (F.normalize(x, dim=-1) for x in (one, other, embed(model, captions(batch.stills, rng))))
    stills = contrastive(batch.shown, one, scale(model)) + 0.5 * contrastive(batch.drawn, texts, scale(model))
    return stills + 1.5 * contrastive(one, other, scale(model)) + 0.5 * named


def scale(model: CLIP) -> Tensor:
    return model.logit_scale.exp().clamp(max=100)


def contrastive(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """CLIP's symmetric cross-entropy; both are [B, E], normalised."""
    logits, labels = scale * images @ texts.T, torch.arange(len(images))
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def embed(model: CLIP, texts: list[str]) -> Tensor:
    """Text embeddings, not normalised. Padding is cut to the longest text of the batch, which halves the time."""
    ids, lengths = tokenize(texts, config()["tokenizer"], model.context_length)
    return encode_text(model, torch.from_numpy(ids[:, : lengths.max()]).long())


@torch.no_grad()
def quality(model: CLIP, seed: int = 1) -> dict[str, float]:
    """Accuracy on new stills, in percent.

    place of four: captions retrieve their still among four that differ in place. R@1 of 256: captions retrieve their
    still among 256 stills of two things. KIND: captions of held-out scenes of a kind prefer their own still to that of
    the reversed scene.
    """
    rng = np.random.default_rng((seed, 99))
    groups = [one for _ in range(64) for one in group(rng, 1, "place")]
    mixed = [group(rng, 2)[0] for _ in range(256)]
    place, mixture = (_similarity(model, captions(s, rng), drawn(s, rng)) for s in (groups, mixed))
    blocks = place.view(64, GROUP, 64, GROUP).diagonal(dim1=0, dim2=2)  # [4, 4, 64]
    figures = {
        "place of four": 100 * (blocks.argmax(1) == torch.arange(GROUP)[:, None]).float().mean().item(),
        "R@1 of 256": 100 * (mixture.argmax(1) == torch.arange(256)).float().mean().item(),
    }
    for kind in KINDS:
        scenes = [draw_scene(rng, kind, "held out") for _ in range(100)]
        texts = [caption(scene, rng) for scene in scenes]
        own, reversed_ = (
            _similarity(model, texts, prepared([shown(scene, rng) for scene in way])).diagonal()
            for way in (scenes, [scene.backwards() for scene in scenes])
        )
        figures[kind] = 100 * (own > reversed_).float().mean().item()
    return figures


def _similarity(model: CLIP, texts: list[str], images: Tensor) -> Tensor:
    """Cosine similarities [captions, stills]."""
    return F.normalize(embed(model, texts), dim=-1) @ model.encode_image(images, True).T
