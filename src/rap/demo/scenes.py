"""Scenes of the demo: events, which change something for good, and motions, which never end."""

from hashlib import blake2b
from typing import Literal, cast

import numpy as np

from rap.demo.events import EVENTS, Event, EventKind, draw_event
from rap.demo.motions import MOTIONS, Motion, MotionKind, draw_motion

Scene = Event | Motion
Kind = EventKind | MotionKind
Part = Literal["seen", "held out"]
KINDS: tuple[Kind, ...] = (*EVENTS, *MOTIONS)
HELD_OUT = 4  # one scene in so many is never trained on


def key(scene: Scene) -> str:
    """Equal for a scene and its reverse, and different for any other scene."""
    return min(repr(scene), repr(scene.backwards()))


def part(scene: Scene) -> Part:
    """Whether a scene may be seen in training and in pretraining, or is held out for validation and test.

    A digest of its key decides, not chance: whatever the seed, no scene changes sides.
    """
    return "seen" if blake2b(key(scene).encode()).digest()[0] % HELD_OUT else "held out"


def draw_scene(rng: np.random.Generator, kind: Kind, of: Part | None = None) -> Scene:
    """A random scene of a kind, of one part or of both."""
    while True:
        scene = draw_event(rng, kind) if kind in EVENTS else draw_motion(rng, cast(MotionKind, kind))
        if of in (None, part(scene)):
            return scene
