"""The facts that pretraining reads from stills and captions tell a motion from its reversal, in every role."""

import numpy as np
import pytest
import torch
from torch import nn

from rap.demo import facts
from rap.demo.events import EVENTS
from rap.demo.motions import MOTIONS, OPPOSITE, Motion
from rap.demo.scenes import draw_scene
from rap.demo.things import COLOURS


def motions(kind, count=50):
    rng = np.random.default_rng(0)
    scenes = (draw_scene(rng, kind) for _ in range(count))
    return [scene for scene in scenes if isinstance(scene, Motion)]


@pytest.mark.parametrize("kind", MOTIONS)
def test_a_motion_and_its_reversal_differ_in_their_facts(kind):
    for scene in motions(kind):
        assert facts.facts(scene) != facts.facts(scene.backwards())


def test_reversal_swaps_the_things_of_a_pass_and_of_a_chase():
    for scene in motions("pass"):
        one, other = facts.roles(scene), facts.roles(scene.backwards())
        assert one[scene.course] == other[OPPOSITE[scene.course]] == scene.things[0]
    for scene in motions("chase"):
        one, other = facts.roles(scene), facts.roles(scene.backwards())
        assert one["chaser"] == other["chased"] == scene.things[0] and one["chased"] == other["chaser"]


@pytest.mark.parametrize("kind", EVENTS)
def test_an_event_has_no_facts(kind):
    assert facts.facts(draw_scene(np.random.default_rng(0), kind)) == {}


def test_the_loss_is_low_only_for_the_heads_that_name_the_right_thing():
    """A head that names the colour of a scene's own role has a lower loss than one that names the other thing's."""
    (scene,) = motions("pass", 1)
    embedded = torch.ones(1, 1)

    def loss(thing):
        heads = nn.ModuleDict({name: nn.Linear(1, size) for name, size in facts.HEADS.items()})
        for head in heads.values():
            nn.init.zeros_(head.weight), nn.init.zeros_(head.bias)
        heads[f"colour {scene.course}"].bias.data[list(COLOURS).index(thing.colour)] = 9
        return facts.loss(heads, embedded, [scene]).item()

    assert loss(scene.things[0]) < loss(scene.things[1]) - 1
