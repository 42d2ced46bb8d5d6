"""Captions of scenes and of stills, with a vocabulary of about eighty words."""

import re

import numpy as np

from rap.demo.events import Event
from rap.demo.motions import OPPOSITE, Motion
from rap.demo.scenes import Scene
from rap.demo.things import BACKGROUNDS, COLOURS, PLACES, SHAPES, Thing, pick

GRAMMAR = (
    "a an the and at from to on with while then before after background stays moves goes travels appears shows up "
    "disappears vanishes turns becomes grows shrinks gets larger smaller flashes drifts glides up down orbits round "
    "clockwise anticlockwise chases follows flees hops"
)


def vocabulary() -> list[str]:
    """Every word that a caption may contain, sorted."""
    names = (*SHAPES, *COLOURS, *BACKGROUNDS, *PLACES, "small", "large")  # captions never say "medium"
    return sorted({word for text in (GRAMMAR, *names) for word in words(text)})


def words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def describe(background: str, things: list[Thing], rng: np.random.Generator, places: float = 1.0) -> str:
    """A still's caption: "a red ring at the top and a small blue star at the left on a dark background".

    Names the background with probability one half, and each place with probability `places`.
    """
    listed = " and ".join(name(thing, size=True) + _where(thing, rng, places) for thing in things)
    return listed + _background(background, rng)


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """A clip's caption. Background, bystander and most places are left out at random."""
    text = pick(rng, event(scene, rng) if isinstance(scene, Event) else motion(scene, rng))
    if scene.bystander and rng.random() < 0.6:
        other = name(scene.bystander) + _where(scene.bystander, rng, 0.6)
        text += pick(rng, [f" while {other} stays", f" with {other}"])
    return text + _background(scene.background, rng)


def event(scene: Event, rng: np.random.Generator) -> list[str]:
    """Wordings of an event. All wordings of one call name or leave out the same places."""
    before, after = scene.ends
    thing, where = name(before), _where(before, rng, 0.7)
    match scene.kind:
        case "move":
            start, end = f"from the {before.place}", f"to the {after.place}"
            return [f"{thing} moves {start} {end}", f"{thing} travels {start} {end}", f"{thing} goes {end} {start}"]
        case "appear":
            verbs = ("disappears", "vanishes") if scene.before else ("appears", "shows up")
            return [f"{thing} {verb}{where}" for verb in verbs]
        case "colour":
            turns = f"turns from {before.colour} to {after.colour}"
            return [f"{_a(before.shape)}{where} {turns}", f"{thing}{where} becomes {after.colour}"]
        case "size":
            verb, larger = ("grows", "larger") if before.size == "small" else ("shrinks", "smaller")
            turns = f"turns from {before.size} to {after.size}"
            return [f"{thing}{where} {verb}", f"{thing}{where} gets {larger}", f"{thing}{where} {turns}"]
        case "order":
            first, then = thing + where, name(after) + _where(after, rng, 0.7)
            return [f"{first} flashes then {then}", f"{first} flashes before {then}", f"{then} flashes after {first}"]


def motion(scene: Motion, rng: np.random.Generator) -> list[str]:
    """Wordings of a motion. All wordings of one call name or leave out the same places."""
    first, second = name(scene.things[0]), name(scene.things[-1])
    where, course = _where(scene.things[0], rng, 0.5), scene.course
    match scene.kind:
        case "drift":
            return [f"{first}{where} {verb} {_way(course)}" for verb in ("drifts", "glides")]
        case "orbit":
            return [f"{first} {verb} {course}" for verb in ("orbits", "goes round")]
        case "pass":
            one, other = (f"{thing} drifts {_way(way)}" for thing, way in ((first, course), (second, OPPOSITE[course])))
            return [f"{one} while {other}", f"{other} while {one}", f"{one} and {other}"]
        case "chase":
            return [f"{first} chases {second}", f"{first} follows {second}", f"{second} flees from {first}"]
        case "hop":
            there, back = _way(course), _way(OPPOSITE[course])
            return [f"{first}{where} hops {there} then {back}", f"{first}{where} hops {there} before {back}"]


def _way(course: str) -> str:
    return course if course in ("up", "down") else f"to the {course}"


def name(thing: Thing, size: bool = False) -> str:
    """ "a red ring"; with `size`, "a small red ring", unless its size is medium."""
    adjective = f"{thing.size} " if size and thing.size != "medium" else ""
    return _a(f"{adjective}{thing.colour} {thing.shape}")


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _where(thing: Thing, rng: np.random.Generator, chance: float) -> str:
    return f" at the {thing.place}" if rng.random() < chance else ""


def _background(background: str, rng: np.random.Generator) -> str:
    return f" on a {background} background" if rng.random() < 0.5 else ""
