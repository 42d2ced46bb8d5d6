"""Blocks as shares of the depth: the same words mean the same part of a tower of any depth."""

import pytest
import tiny

from rap.adapters.layers import SHARES, chosen
from rap.clip.plain import Plain
from rap.errors import UserError


def tower(layers: int):
    vision = tiny.CONFIG["model"]["vision_cfg"] | {"layers": layers}
    return Plain(tiny.CONFIG | {"model": tiny.CONFIG["model"] | {"vision_cfg": vision}}).visual


@pytest.mark.parametrize(
    ("layers", "blocks", "numbers"),
    [
        (12, "upper half", [6, 7, 8, 9, 10, 11]),
        (12, "lower half", [0, 1, 2, 3, 4, 5]),
        (12, "upper quarter", [9, 10, 11]),
        (4, "upper half", [2, 3]),
        (3, "upper third", [2]),
        (3, (-1, 0), [2, 0]),
    ],
)
def test_a_share_of_the_depth_is_the_same_part_of_any_tower(layers, blocks, numbers):
    assert chosen(blocks, tower(layers)) == numbers


@pytest.mark.parametrize("layers", [1, 2, 3, 5])
def test_no_share_is_empty_and_the_halves_are_the_whole(layers):
    shares = {name: chosen(name, tower(layers)) for name in SHARES}
    assert all(shares.values()) and shares["all"] == list(range(layers))
    assert layers == 1 or sorted(shares["lower half"] + shares["upper half"]) == shares["all"]


def test_a_block_that_the_tower_does_not_have_is_refused():
    with pytest.raises(UserError, match="the tower has blocks 0 to 2"):
        chosen((3,), tower(3))
