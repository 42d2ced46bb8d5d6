"""The things of the demo: coloured shapes at nine places."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

T = TypeVar("T")
SHAPES = ("circle", "square", "triangle", "star", "heart", "cross", "ring", "moon")
COLOURS = {  # sRGB
    "red": (226, 62, 64),
    "orange": (245, 142, 44),
    "yellow": (248, 208, 56),
    "green": (70, 170, 84),
    "cyan": (56, 196, 208),
    "blue": (52, 98, 214),
    "purple": (140, 74, 190),
    "pink": (242, 130, 184),
}
BACKGROUNDS = ("light", "dark", "striped", "dotted")
PLACES = {  # centre (x, y) in widths of the frame, from the top left corner
    "top left": (0.2, 0.2),
    "top": (0.5, 0.2),
    "top right": (0.8, 0.2),
    "left": (0.2, 0.5),
    "centre": (0.5, 0.5),
    "right": (0.8, 0.5),
    "bottom left": (0.2, 0.8),
    "bottom": (0.5, 0.8),
    "bottom right": (0.8, 0.8),
}
SIZES = {"small": 0.085, "medium": 0.13, "large": 0.19}  # radius in widths of the frame


@dataclass(frozen=True, order=True)
class Thing:
    shape: str
    colour: str
    place: str
    size: str = "medium"


def draw_thing(rng: np.random.Generator, size: str = "medium") -> Thing:
    return Thing(pick(rng, SHAPES), pick(rng, COLOURS), pick(rng, PLACES), size)


def draw_unlike(rng: np.random.Generator, present: Sequence[Thing], places: Iterable[str] = PLACES) -> Thing:
    """A thing at one of `places` that differs from those present in shape and colour."""
    shapes, colours = {thing.shape for thing in present}, {thing.colour for thing in present}
    free = [shape for shape in SHAPES if shape not in shapes]
    return Thing(pick(rng, free), pick(rng, [name for name in COLOURS if name not in colours]), pick(rng, places))


def pick(rng: np.random.Generator, choices: Iterable[T]) -> T:
    """One of the choices at random."""
    choices = list(choices)
    return choices[rng.integers(len(choices))]


def another(rng: np.random.Generator, names: Iterable[str], name: str) -> str:
    """One of the names at random, but not `name`."""
    return pick(rng, [other for other in names if other != name])
