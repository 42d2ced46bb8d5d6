"""Draw things with soft shadows on one of four backgrounds, anti-aliased by signed distances.

Distances and places are in widths of the frame; y points down. A shape is a function of (x, y), for radius 1, that is
negative inside. Formulae: Inigo Quilez, "2D distance functions". Some distances are approximate; outlines are exact.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from rap.demo.things import COLOURS, PLACES, SIZES, Thing

PIXELS = 96
SHADOW = (0.018, 0.03)  # offset of a shadow to the right and down


@dataclass(frozen=True)
class Layer:
    """One thing over time: x, y, radius, opacity are float [frames]; colour is float [frames, 3] in 0..255."""

    shape: str
    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray
    opacity: np.ndarray
    colour: np.ndarray
    tilt: float = 0.0  # radians


def still(background: str, things: list[Thing], rng: np.random.Generator, pixels: int = PIXELS) -> np.ndarray:
    """A picture of things at rest, with jitter: uint8 [pixels, pixels, 3]."""
    return paint(background, [layer(thing, 1, rng) for thing in things], 1, pixels)[0]


def layer(thing: Thing, frames: int, rng: np.random.Generator) -> Layer:
    """A thing at rest, with one random jitter of place (1.5 %), radius (6 %) and tilt (8 degrees)."""
    centre, size = PLACES[thing.place] + rng.uniform(-0.015, 0.015, 2), SIZES[thing.size] * rng.uniform(0.94, 1.06)
    x, y, radius, opacity = (np.full(frames, value, np.float32) for value in (*centre, size, 1.0))
    colour = np.tile(np.array(COLOURS[thing.colour], np.float32), (frames, 1))
    return Layer(thing.shape, x, y, radius, opacity, colour, rng.uniform(-0.14, 0.14))


def paint(background: str, layers: list[Layer], frames: int, pixels: int = PIXELS) -> np.ndarray:
    """Layers over a background, from the lowest to the highest: uint8 [frames, pixels, pixels, 3]."""
    picture = np.repeat(_background(background, pixels)[None], frames, 0)
    for one in layers:
        rows, columns = (_reach(centre, one.radius, pixels) for centre in (one.y, one.x))
        part, x, y = picture[:, rows, columns], _centres(columns, pixels), _centres(rows, pixels)
        part -= part * 0.30 * _cover(one, x - SHADOW[0], y - SHADOW[1], 0.05)[..., None]
        part += (_lit(one, x, y) - part) * _cover(one, x, y, 1 / pixels)[..., None]
    return np.rint(picture).clip(0, 255).astype(np.uint8)


def _reach(centre: np.ndarray, radius: np.ndarray, pixels: int) -> slice:
    """The range of pixels along one axis that a layer or its shadow may cover in any frame."""
    margin = 1.2 * radius + 0.06
    low, high = (centre - margin).min() * pixels, (centre + margin).max() * pixels
    return slice(max(0, int(low)), min(pixels, max(0, int(high) + 2)))  # empty for a thing outside the frame


def _centres(part: slice, pixels: int) -> np.ndarray:
    return (np.arange(part.start, part.stop, dtype=np.float32) + 0.5) / pixels


def _cover(one: Layer, x: np.ndarray, y: np.ndarray, edge: float) -> np.ndarray:
    """The share of each pixel that a layer covers, float32 [frames, rows, columns]; its outline is `edge` wide."""
    distance = SHAPES[one.shape](*_local(one, x, y)) * one.radius[:, None, None]
    return np.clip(0.5 - distance / edge, 0, 1) * one.opacity[:, None, None]


def _lit(one: Layer, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The colour of a layer, lighter towards the top left: float32 [frames, rows, columns, 3]."""
    x, y = _local(one, x, y)
    light = np.clip(-0.10 * (x + 1.4 * y), -0.16, 0.16)[..., None]
    colour = one.colour[:, None, None, :]
    return colour + light * np.where(light > 0, 255 - colour, colour)


def _local(one: Layer, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates x [columns] and y [rows] of the frame relative to the layer, where its radius is 1."""
    x, y = (x - one.x[:, None])[:, None, :], (y - one.y[:, None])[:, :, None]
    sine, cosine, scale = np.float32(np.sin(one.tilt)), np.float32(np.cos(one.tilt)), one.radius[:, None, None]
    return (cosine * x + sine * y) / scale, (cosine * y - sine * x) / scale


@cache
def _background(name: str, pixels: int) -> np.ndarray:
    """float32 [pixels, pixels, 3], lighter at the top."""
    y, x = (np.mgrid[:pixels, :pixels].astype(np.float32) + 0.5) / pixels
    light, dark = np.array([[(250, 244, 232)], [(40, 46, 72)]], np.float32)
    match name:
        case "light":
            plain = np.broadcast_to(light, (pixels, pixels, 3))
        case "dark":
            plain = np.broadcast_to(dark, (pixels, pixels, 3))
        case "striped":
            edge = 0.5 + np.clip((np.abs((x + y) * 5 % 2 - 1) - 0.5) * pixels / 7, -0.5, 0.5)
            plain = np.array((206, 222, 236)) + edge[..., None] * np.array((28, 20, 12))
        case "dotted":
            away = np.hypot((x * 8 % 1) - 0.5, (y * 8 % 1) - 0.5) / 8
            dot = np.clip(0.5 + (0.022 - away) * pixels, 0, 1)
            plain = np.array((206, 200, 190)) - dot[..., None] * np.array((52, 50, 46))
    return (plain * (1.04 - 0.10 * y[..., None])).clip(0, 255).astype(np.float32)


def _polygon(x, y, inradius, sides):
    """A regular polygon with a horizontal side at the bottom."""
    angle, length = np.arctan2(x, y), np.hypot(x, y)
    sector = 2 * np.pi / sides
    return length * np.cos(np.mod(angle + sector / 2, sector) - sector / 2) - inradius


def _box(x, y, width, height):
    across, down = np.abs(x) - width, np.abs(y) - height
    return np.hypot(np.maximum(across, 0), np.maximum(down, 0)) + np.minimum(np.maximum(across, down), 0)


def _star(x, y, points=5, inner=0.46):
    angle, length = np.arctan2(x, -y), np.hypot(x, y)
    half = np.pi / points
    angle = np.abs(np.mod(angle + half, 2 * half) - half)
    edge = np.array((inner * np.cos(half) - 1, inner * np.sin(half)), np.float32)
    normal = np.array((edge[1], -edge[0])) / np.hypot(*edge)
    side = (length * np.cos(angle) - 1.12) * normal[0] + length * np.sin(angle) * normal[1]
    return np.maximum(side, length - 1.12)


def _heart(x, y):
    x, y = np.abs(x) / 1.75, 0.52 - y / 1.75
    lobe = np.hypot(x - 0.25, y - 0.75) - np.sqrt(2) / 4
    along = np.maximum(x + y, 0) / 2
    tip = np.sqrt(np.minimum(x**2 + (y - 1) ** 2, (x - along) ** 2 + (y - along) ** 2)) * np.sign(x - y)
    return 1.75 * np.where(x + y > 1, lobe, tip)


SHAPES = {
    "circle": lambda x, y: np.hypot(x, y) - 0.92,
    "square": lambda x, y: _box(x, y, 0.68, 0.68) - 0.12,
    "triangle": lambda x, y: np.maximum(_polygon(x, y - 0.18, 0.56, 3), np.hypot(x, y - 0.18) - 1.08),
    "star": _star,
    "heart": _heart,
    "cross": lambda x, y: np.minimum(_box(x, y, 0.92, 0.24), _box(x, y, 0.24, 0.92)) - 0.08,
    "ring": lambda x, y: np.abs(np.hypot(x, y) - 0.74) - 0.23,
    "moon": lambda x, y: np.maximum(np.hypot(x, y) - 1.0, 0.78 - np.hypot(x - 0.5, y + 0.22)),
}
