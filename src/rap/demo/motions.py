"""Motions: scenes that repeat. On average, a single frame looks the same forwards and backwards.

A thing repeats its course, from a random phase. So the distribution of a frame at any time is the same as in the
reversed clip, and no weighted sum over frames tells the direction; only the relation between frames does.
"""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from rap.demo.things import BACKGROUNDS, PLACES, Thing, draw_thing, draw_unlike, pick

MotionKind = Literal["drift", "orbit", "pass", "chase", "hop"]
MOTIONS: tuple[MotionKind, ...] = get_args(MotionKind)
OPPOSITE = {"right": "left", "down": "up", "clockwise": "anticlockwise"}
OPPOSITE |= {course: other for other, course in OPPOSITE.items()}
LANES = {"right": ("top", "centre", "bottom"), "down": ("left", "centre", "right")}  # by the course along them
LANES |= {OPPOSITE[course]: lanes for course, lanes in LANES.items()}
STRAIGHT, ROUND = tuple(LANES), ("clockwise", "anticlockwise")


@dataclass(frozen=True)
class Motion:
    """One thing or two on a `course`; playing the scene backwards reverses the course.

    kind   motion
    drift  a thing drifts along a lane; where it leaves the frame, it enters on the other side
    orbit  a thing goes round the centre
    pass   two things drift along two lanes: the first on the course, the second in the opposite direction
    chase  two things go round the centre, the second ahead; backwards, the second chases the first
    hop    a thing hops to the side of its course, then to the opposite side, and rests where it began

    The place of a thing is its lane; things that go round are at the centre.
    """

    kind: MotionKind
    background: str
    things: tuple[Thing, ...]
    course: str
    bystander: Thing | None = None

    def backwards(self) -> "Motion":
        things = self.things[::-1] if self.kind == "chase" else self.things
        return replace(self, things=things, course=OPPOSITE[self.course])


def draw_motion(rng: np.random.Generator, kind: MotionKind) -> Motion:
    """A random motion without ambiguity: no two things look alike, and a bystander is off their course."""
    background, thing = pick(rng, BACKGROUNDS), draw_thing(rng)
    course = pick(rng, ROUND if kind in ("orbit", "chase") else STRAIGHT)
    lanes = LANES.get(course, ("centre",))
    things: tuple[Thing, ...] = (replace(thing, place=pick(rng, lanes)),)
    if kind in ("pass", "chase"):
        free = [lane for lane in lanes if lane != things[0].place] or lanes
        things = (*things, draw_unlike(rng, things, free))
    motion = Motion(kind, background, things, course)
    if len(things) == 1 and rng.random() < 0.4:
        motion = replace(motion, bystander=draw_unlike(rng, things, _off_course(motion)))
    return motion


def _off_course(motion: Motion) -> list[str]:
    """The places where a bystander does not meet the one thing that moves."""
    if motion.course in ROUND:
        return ["centre"]
    axis = 1 if motion.course in ("left", "right") else 0
    lane = PLACES[motion.things[0].place][axis]
    return [place for place, centre in PLACES.items() if centre[axis] != lane]
