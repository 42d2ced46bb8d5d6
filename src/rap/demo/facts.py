"""Facts of scenes, which pretraining reads from a still and from a caption with the same linear heads.

So both towers represent a fact along the same directions. The facts of a motion:

course        of a drift or an orbit
hop           of a hop: the side to which the thing hops first
colour ROLE   of the thing in each role: one that moves on a course, the chaser, or the chased
shape ROLE    likewise
"""

from collections import defaultdict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rap.demo.motions import OPPOSITE, STRAIGHT, Motion
from rap.demo.scenes import Scene
from rap.demo.things import COLOURS, SHAPES, Thing

COURSES = tuple(OPPOSITE)
ROLES = (*COURSES, "chaser", "chased")
WEIGHTS = {"course": 1.0, "hop": 0.5, "colour": 1.0, "shape": 0.25}  # of the groups of facts in the loss
HEADS = {"course": len(COURSES), "hop": len(STRAIGHT)}  # the classes of each head
HEADS |= {f"colour {role}": len(COLOURS) for role in ROLES} | {f"shape {role}": len(SHAPES) for role in ROLES}


def facts(scene: Scene) -> dict[str, int]:
    """The class of each head that the scene has a fact for. An event has none."""
    if not isinstance(scene, Motion):
        return {}
    if scene.kind == "hop":
        return {"hop": STRAIGHT.index(scene.course)}
    found = {} if len(scene.things) == 2 else {"course": COURSES.index(scene.course)}
    for role, thing in roles(scene).items():
        found[f"colour {role}"] = list(COLOURS).index(thing.colour)
        found[f"shape {role}"] = SHAPES.index(thing.shape)
    return found


def roles(motion: Motion) -> dict[str, Thing]:
    """The thing in each role. A caption of a chase does not tell its course."""
    first, second = motion.things[0], motion.things[-1]
    match motion.kind:
        case "pass":
            return {motion.course: first, OPPOSITE[motion.course]: second}
        case "chase":
            return {"chaser": first, "chased": second}
    return {motion.course: first}


def loss(heads: nn.ModuleDict, embedded: Tensor, scenes: list[Scene]) -> Tensor:
    """Mean cross-entropy of each group of facts from embeddings [scenes, E], weighted and summed over the groups."""
    rows: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for row, scene in enumerate(scenes):
        for head, label in facts(scene).items():
            rows[head].append((row, label))
    groups: dict[str, list[Tensor]] = defaultdict(list)
    for head, pairs in rows.items():
        which, labels = torch.tensor(pairs).T
        groups[head.split()[0]].append(F.cross_entropy(heads[head](embedded[which]), labels, reduction="none"))
    return torch.stack([WEIGHTS[group] * torch.cat(losses).mean() for group, losses in groups.items()]).sum()
