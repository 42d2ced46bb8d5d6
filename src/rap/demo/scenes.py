"""Scenes of the demo: events, which change something permanently, and motions, which repeat."""

from hashlib import blake2b
from typing import Literal, cast

import numpy as np

from rap.demo.events import EVENTS, Event, EventKind, draw_event
from rap.demo.motions import MOTIONS, Motion, MotionKind, draw_motion

Scene = Event | Motion
Kind = EventKind | MotionKind
Part = Literal["seen", "held out"]
KINDS: tuple[Kind, ...] = (*EVENTS, *MOTIONS)
HELD_OUT = 4  # one scene in HELD_OUT is held out


def key(scene: Scene) -> str:
    """A key that a scene shares with its reverse and with no other scene."""
    return min(repr(scene), repr(scene.backwards()))


def part(scene: Scene) -> Part:
    """Whether a scene may be seen in training and in pretraining, or is held out for validation and test.

    A digest of its key decides, so a scene is in the same part for every seed.
    """
    return "seen" if blake2b(key(scene).encode()).digest()[0] % HELD_OUT else "held out"


def draw_scene(rng: np.random.Generator, kind: Kind, of: Part | None = None) -> Scene:
    """A random scene of a kind, of one part or of both."""
    while True:
        scene = draw_event(rng, kind) if kind in EVENTS else draw_motion(rng, cast(MotionKind, kind))
        if of in (None, part(scene)):
            return scene
