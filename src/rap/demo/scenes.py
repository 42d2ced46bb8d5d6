"""The small world of the demo: coloured things at nine places, and the one event of each scene."""

from dataclasses import dataclass, replace

import numpy as np

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
PLACES = {  # centre as (x, y) in widths of the frame, from its top left corner
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
KINDS = ("move", "appear", "colour", "size", "order")


@dataclass(frozen=True, order=True)
class Thing:
    shape: str
    colour: str
    place: str
    size: str = "medium"


@dataclass(frozen=True)
class Scene:
    """An event is what `before` turns into: `after`. Played backwards, the two change places.

    kind    before -> after
    move    the same thing at another place
    appear  nothing (None) -> a thing; backwards it disappears
    colour  the same thing in another colour
    size    a small thing -> the same thing, large
    order   one thing flashes, and then another
    """

    kind: str
    background: str
    before: Thing | None
    after: Thing | None
    bystander: Thing | None = None

    @property
    def thing(self) -> Thing:
        """The thing to which it happens (of an `order`, the first)."""
        return self.before or self.after

    def backwards(self) -> "Scene":
        return replace(self, before=self.after, after=self.before)

    def key(self) -> frozenset:
        """Equal for a scene and the same scene backwards, and for no other."""
        return frozenset({self, self.backwards()})


def draw_thing(rng: np.random.Generator, size: str = "medium") -> Thing:
    return Thing(_pick(rng, SHAPES), _pick(rng, COLOURS), _pick(rng, PLACES), size)


def draw_scene(rng: np.random.Generator, kind: str) -> Scene:
    """A scene at random, in which nothing is ambiguous: no two things look alike or overlap."""
    background, before = _pick(rng, BACKGROUNDS), draw_thing(rng, "small" if kind == "size" else "medium")
    match kind:
        case "move":
            after = replace(before, place=_other(rng, PLACES, before.place))
        case "appear":
            before, after = None, before
        case "colour":
            after = replace(before, colour=_other(rng, COLOURS, before.colour))
        case "size":
            after = replace(before, size="large")
        case "order":
            after = draw_other(rng, (before,))
    scene = Scene(kind, background, before, after)
    if kind != "order" and rng.random() < 0.5:
        scene = replace(scene, bystander=draw_other(rng, [thing for thing in (before, after) if thing]))
    return scene if rng.random() < 0.5 else scene.backwards()


def draw_other(rng: np.random.Generator, present) -> Thing:
    """A thing unlike those present in shape and in colour, and out of the way of what moves between their places."""
    while True:
        other = draw_thing(rng)
        unlike = all(other.shape != thing.shape and other.colour != thing.colour for thing in present)
        if unlike and _distance(other.place, present[0].place, present[-1].place) > 0.2:
            return other


def _distance(place: str, start: str, end: str) -> float:
    """From a place to the straight way between two places, in widths of the frame."""
    point, a, b = (np.array(PLACES[name]) for name in (place, start, end))
    way = b - a
    share = np.clip((point - a) @ way / max(way @ way, 1e-9), 0, 1)
    return float(np.linalg.norm(point - a - share * way))


def _pick(rng: np.random.Generator, names) -> str:
    return list(names)[rng.integers(len(names))]


def _other(rng: np.random.Generator, names, name: str) -> str:
    return _pick(rng, [other for other in names if other != name])
