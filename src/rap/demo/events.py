"""Events: scenes whose end differs from their beginning, such as a thing that moves to another place."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from rap.demo.things import BACKGROUNDS, COLOURS, PLACES, Thing, another, draw_thing, draw_unlike, pick

EventKind = Literal["move", "appear", "colour", "size", "order"]
EVENTS: tuple[EventKind, ...] = get_args(EventKind)


@dataclass(frozen=True)
class Event:
    """`before` turns into `after`; playing the scene backwards swaps them.

    kind    event
    move    a thing moves to another place
    appear  a thing appears (`before` is None); backwards, it disappears (`after` is None)
    colour  a thing changes its colour
    size    a small thing becomes large
    order   one thing flashes, then another
    """

    kind: EventKind
    background: str
    before: Thing | None
    after: Thing | None
    bystander: Thing | None = None

    @property
    def ends(self) -> tuple[Thing, Thing]:
        """The things before and after the event; a thing that appears or disappears is returned as both."""
        before, after = self.before or self.after, self.after or self.before
        assert before and after, "an event needs a thing"
        return before, after

    def backwards(self) -> "Event":
        return replace(self, before=self.after, after=self.before)


def draw_event(rng: np.random.Generator, kind: EventKind) -> Event:
    """A random event without ambiguity: no two things look alike or overlap."""
    background, thing = pick(rng, BACKGROUNDS), draw_thing(rng, "small" if kind == "size" else "medium")
    before: Thing | None = thing
    match kind:
        case "move":
            after = replace(thing, place=another(rng, PLACES, thing.place))
        case "appear":
            before, after = None, thing
        case "colour":
            after = replace(thing, colour=another(rng, COLOURS, thing.colour))
        case "size":
            after = replace(thing, size="large")
        case "order":
            after = draw_unlike(rng, (thing,), _off_path(thing, thing))
    event = Event(kind, background, before, after)
    if kind != "order" and rng.random() < 0.5:
        event = replace(event, bystander=draw_unlike(rng, event.ends, _off_path(*event.ends)))
    return event if rng.random() < 0.5 else event.backwards()


def _off_path(start: Thing, end: Thing) -> list[str]:
    """The places that are not on the path between two things."""
    return [place for place in PLACES if _distance(place, start.place, end.place) > 0.2]


def _distance(place: str, start: str, end: str) -> float:
    """The distance of a place from the segment between two places, in widths of the frame."""
    point, a, b = (np.array(PLACES[name]) for name in (place, start, end))
    path = b - a
    share = np.clip((point - a) @ path / max(path @ path, 1e-9), 0, 1)
    return float(np.linalg.norm(point - a - share * path))
