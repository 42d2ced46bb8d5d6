"""The scenes of the demo: coloured things at nine places, and one event per scene."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar, get_args

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
Kind = Literal["move", "appear", "colour", "size", "order"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, order=True)
class Thing:
    shape: str
    colour: str
    place: str
    size: str = "medium"


@dataclass(frozen=True)
class Scene:
    """In an event, `before` turns into `after`; playing the scene backwards swaps them.

    kind    event
    move    a thing moves to another place
    appear  a thing appears (`before` is None); backwards, it disappears (`after` is None)
    colour  a thing changes its colour
    size    a small thing becomes large
    order   one thing flashes, then another
    """

    kind: Kind
    background: str
    before: Thing | None
    after: Thing | None
    bystander: Thing | None = None

    @property
    def ends(self) -> tuple[Thing, Thing]:
        """The things before and after the event; a thing that appears or disappears stands for both."""
        before, after = self.before or self.after, self.after or self.before
        assert before and after, "an event needs a thing"
        return before, after

    def backwards(self) -> "Scene":
        return replace(self, before=self.after, after=self.before)

    def key(self) -> frozenset:
        """Equal for a scene and its reverse, and different for any other scene."""
        return frozenset({self, self.backwards()})


def draw_thing(rng: np.random.Generator, size: str = "medium") -> Thing:
    return Thing(pick(rng, SHAPES), pick(rng, COLOURS), pick(rng, PLACES), size)


def draw_scene(rng: np.random.Generator, kind: Kind) -> Scene:
    """A random scene without ambiguity: no two things look alike or overlap."""
    background, thing = pick(rng, BACKGROUNDS), draw_thing(rng, "small" if kind == "size" else "medium")
    before: Thing | None = thing
    match kind:
        case "move":
            after = replace(thing, place=_other(rng, PLACES, thing.place))
        case "appear":
            before, after = None, thing
        case "colour":
            after = replace(thing, colour=_other(rng, COLOURS, thing.colour))
        case "size":
            after = replace(thing, size="large")
        case "order":
            after = draw_other(rng, (thing,))
    scene = Scene(kind, background, before, after)
    if kind != "order" and rng.random() < 0.5:
        scene = replace(scene, bystander=draw_other(rng, scene.ends))
    return scene if rng.random() < 0.5 else scene.backwards()


def draw_other(rng: np.random.Generator, present: Sequence[Thing]) -> Thing:
    """A thing that differs from those present in shape and colour, and is off the path between their places."""
    while True:
        other = draw_thing(rng)
        unlike = all(other.shape != thing.shape and other.colour != thing.colour for thing in present)
        if unlike and _distance(other.place, present[0].place, present[-1].place) > 0.2:
            return other


def _distance(place: str, start: str, end: str) -> float:
    """The distance of a place from the segment between two places, in widths of the frame."""
    point, a, b = (np.array(PLACES[name]) for name in (place, start, end))
    path = b - a
    share = np.clip((point - a) @ path / max(path @ path, 1e-9), 0, 1)
    return float(np.linalg.norm(point - a - share * path))


def pick(rng: np.random.Generator, choices: Iterable[T]) -> T:
    """One of the choices at random."""
    choices = list(choices)
    return choices[rng.integers(len(choices))]


def _other(rng: np.random.Generator, names: Iterable[str], name: str) -> str:
    return pick(rng, [other for other in names if other != name])
