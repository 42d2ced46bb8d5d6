"""Animate a scene: the layers of its things over time."""

from dataclasses import replace

import numpy as np

from rap.demo.draw import Layer, layer
from rap.demo.events import Event
from rap.demo.motions import OPPOSITE, Motion
from rap.demo.scenes import Scene

CYCLES = (0.9, 1.4)  # repetitions of a motion in a clip; the first and the last of 8 frames are about one cycle apart
RADIUS = 0.3  # of an orbit and of a hop, in widths of the frame
AHEAD = 0.22  # lead of the chased thing, in turns
HOPPING = 0.5  # share of a cycle in which a hopping thing is not at rest
HOPPED = (0.28, 0.48)  # the part of a cycle in which a still shows a hop: on the second side, its ghosts on the first
STEPS = {"right": (1, 0), "left": (-1, 0), "down": (0, 1), "up": (0, -1)}


def layers(scene: Scene, frames: int, rng: np.random.Generator) -> list[Layer]:
    """The layers of a clip of `frames` pictures, from the lowest to the highest."""
    lowest = [layer(scene.bystander, frames, rng)] if scene.bystander else []
    if isinstance(scene, Event):
        return lowest + _event(scene, np.linspace(0, 1, frames, dtype=np.float32), rng)
    cycles = rng.uniform(*CYCLES) * (np.arange(frames, dtype=np.float32) + 0.5) / frames
    return lowest + [one for copies in _motion(scene, cycles, rng) for one in copies]


def tail(motion: Motion, rng: np.random.Generator) -> list[Layer]:
    """The layers of a still that shows a motion: one instant, with 3 or 4 fading ghosts behind each thing.

    Only pretraining draws it; clips have no tails.
    """
    lowest = [layer(motion.bystander, 1, rng)] if motion.bystander else []
    ghosts, apart = int(rng.integers(3, 5)), rng.uniform(0.07, 0.1)
    opacity = rng.uniform(0.6, 0.75) * rng.uniform(0.6, 0.8) ** np.arange(ghosts)
    shown = np.array([*opacity[::-1], 1.0], np.float32)
    cycles = apart * np.arange(-ghosts, 1, dtype=np.float32)
    things = _motion(motion, cycles, rng, HOPPED if motion.kind == "hop" else (0.0, 1.0))
    return lowest + [
        _instant(one, index, shown[index]) for index in range(ghosts + 1) for copies in things for one in copies
    ]


def _instant(one: Layer, index: int, opacity: float) -> Layer:
    """One frame of a layer."""
    x, y, radius, colour = (values[index : index + 1] for values in (one.x, one.y, one.radius, one.colour))
    return Layer(one.shape, x, y, radius, np.full(1, opacity, np.float32), colour, one.tilt)


def _event(event: Event, time: np.ndarray, rng: np.random.Generator) -> list[Layer]:
    """The layers of the event; `time` [frames] runs from 0 to 1. Every course is symmetric in time."""
    start, end = [layer(thing, len(time), rng) for thing in event.ends]
    match event.kind:
        case "appear":
            shown = _ease(time, rng.uniform(0.38, 0.62), 0.24)
            shown = 1 - shown if event.before else shown
            return [replace(start, opacity=shown, radius=start.radius * (0.6 + 0.4 * shown))]
        case "colour":
            return [_blend(start, replace(start, colour=end.colour), _ease(time, rng.uniform(0.38, 0.62), 0.24))]
        case "size":
            return [_blend(start, replace(start, radius=end.radius), _ease(time, rng.uniform(0.42, 0.58), 0.6))]
        case "move":
            return [_blend(start, end, _ease(time, rng.uniform(0.44, 0.56), rng.uniform(0.5, 0.7)))]
        case "order":
            gap = rng.uniform(-0.04, 0.04)
            return [_flash(start, time, 0.26 + gap), _flash(end, time, 0.74 + gap)]


def _motion(
    motion: Motion, cycles: np.ndarray, rng: np.random.Generator, phases: tuple[float, float] = (0.0, 1.0)
) -> list[list[Layer]]:
    """The layers of each thing, over `cycles` [frames] from a random phase. At a border a thing is drawn twice."""
    things = [layer(thing, len(cycles), rng) for thing in motion.things]
    first, second = things[0], things[-1]
    start = cycles + np.float32(rng.uniform(*phases))
    match motion.kind:
        case "drift":
            return [_drift(first, motion.course, start)]
        case "pass":
            return [
                _drift(first, motion.course, start),
                _drift(second, OPPOSITE[motion.course], cycles + rng.uniform()),
            ]
        case "orbit":
            return [[_orbit(first, motion.course, start)]]
        case "chase":
            return [[_orbit(first, motion.course, start)], [_orbit(second, motion.course, start + AHEAD)]]
        case "hop":
            return [[_hop(first, motion.course, start)]]


def _drift(one: Layer, course: str, cycles: np.ndarray) -> list[Layer]:
    """A lane is a circle of one frame width: two copies of the thing are one width apart."""
    right, down = STEPS[course]
    axis = "x" if right else "y"
    place = np.mod(getattr(one, axis) + (right + down) * cycles, 1).astype(np.float32)
    return [replace(one, **{axis: place}), replace(one, **{axis: np.where(place > 0.5, place - 1, place + 1)})]


def _orbit(one: Layer, course: str, cycles: np.ndarray) -> Layer:
    angle = (2 * np.pi if course == "clockwise" else -2 * np.pi) * cycles  # y points down
    x, y = one.x + RADIUS * np.cos(angle), one.y + RADIUS * np.sin(angle)
    return replace(one, x=x.astype(np.float32), y=y.astype(np.float32))


def _hop(one: Layer, course: str, cycles: np.ndarray) -> Layer:
    share = np.minimum(np.mod(cycles, 1) / HOPPING, 1)
    away = RADIUS * np.sin(2 * np.pi * share)
    right, down = STEPS[course]
    return replace(one, x=(one.x + right * away).astype(np.float32), y=(one.y + down * away).astype(np.float32))


def _ease(time: np.ndarray, middle: float, length: float) -> np.ndarray:
    """Smoothstep from 0 to 1, centred at `middle`."""
    share = np.clip((time - middle) / length + 0.5, 0, 1)
    return share * share * (3 - 2 * share)


def _flash(one: Layer, time: np.ndarray, middle: float) -> Layer:
    shown = _ease(np.abs(time - middle), 0.18, -0.08)
    return replace(one, opacity=shown, radius=one.radius * (0.6 + 0.4 * shown))


def _blend(start: Layer, end: Layer, share: np.ndarray) -> Layer:
    def mix(name: str) -> np.ndarray:
        a, b = getattr(start, name), getattr(end, name)
        return a + (b - a) * (share[:, None] if a.ndim == 2 else share)

    return replace(start, x=mix("x"), y=mix("y"), radius=mix("radius"), colour=mix("colour"))
