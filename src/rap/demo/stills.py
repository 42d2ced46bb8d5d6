"""Captioned stills for the pretraining of the demo's backbone."""

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rap.demo.animate import tail
from rap.demo.captions import describe
from rap.demo.draw import paint, still
from rap.demo.motions import Motion
from rap.demo.scenes import Scene
from rap.demo.things import BACKGROUNDS, COLOURS, PLACES, SHAPES, SIZES, Thing, draw_thing, pick

NAMES = {"place": tuple(PLACES), "colour": tuple(COLOURS), "shape": SHAPES, "size": tuple(SIZES)}
GROUP = 4
SIZE = 64  # of the backbone's pictures, in pixels


@dataclass(frozen=True)
class Still:
    """A still that can be drawn and described."""

    background: str
    things: tuple[Thing, ...]


def shown(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """A still that goes with the caption of a scene, uint8 [96, 96, 3].

    For an event it shows the end: after a disappearance only the bystander, if any; for an `order`, the second thing.
    For a motion it shows one instant, with comet tails.
    """
    if isinstance(scene, Motion):
        return paint(scene.background, tail(scene, rng), 1)[0]
    things = [thing for thing in (scene.after, scene.bystander) if thing]
    return still(scene.background, things, rng)


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


def drawn(stills: list[Still], rng: np.random.Generator) -> Tensor:
    """Stills as inputs of the backbone: float32 [stills, 3, SIZE, SIZE]."""
    return prepared([still(s.background, list(s.things), rng) for s in stills])


def prepared(pictures: list[np.ndarray]) -> Tensor:
    """Clip-sized pictures, scaled down and normalised: float32 [pictures, 3, SIZE, SIZE]."""
    large = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float()
    small = F.interpolate(large, size=SIZE, mode="bicubic", antialias=True).clamp(0, 255)
    return small / 127.5 - 1
