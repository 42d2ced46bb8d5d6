"""LoRM: its formula, its coefficients over time, and the salience of frames."""

import pytest
import tiny
import torch

from rap.adapters import lorm
from rap.adapters.layers import at_frames
from rap.clip.towers import Context


def test_the_edit_is_1_plus_s_times_x_plus_c():
    """(1 + S) x + C, not (1 + S)(x + C)."""
    tower = tiny.clip().visual
    tuner = lorm.LoRM(tower, 4, lorm.Options(rank=1, blocks=(0,), sites=("input",)))
    tuner.scale["input-0"].channel.data.fill_(1.0)  # the first coefficient over time is constant 1
    tuner.shift["input-0"].channel.data.fill_(2.0)
    x = torch.randn(2, 4, 17, tower.width)
    edited = tuner.edit(0, "input", x, None, Context(tower, torch.tensor([4, 4])))
    torch.testing.assert_close(edited, 2 * x + 2)


def test_coefficients_are_those_of_the_middle_of_each_frame():
    """Frame i of n is at (i + 1/2) / n of the clip, whatever n is."""
    table = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    assert at_frames(table, torch.tensor([4]), 4)[0, :, 0].tolist() == [0, 1, 2, 3]
    assert at_frames(table, torch.tensor([2]), 2)[0, :, 0].tolist() == [0.5, 2.5]
    assert at_frames(table, torch.tensor([2, 4]), 4)[:, :2, 0].tolist() == [[0.5, 2.5], [0, 1]]


def test_a_frame_that_stands_out_is_salient_wherever_it_is():
    x = torch.zeros(1, 6, 8)
    for frame in range(6):
        clip = x.clone()
        clip[0, frame] = 1
        found = lorm.salience(clip, torch.tensor([6]))
        assert found[0, :, 0].argmax() == frame
        assert found.mean(1).abs().max() < 1e-4


@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_salience_does_not_depend_on_the_scale_or_on_padding(scale):
    clip = torch.randn(1, 6, 8, generator=torch.Generator().manual_seed(0))
    found = lorm.salience(clip, torch.tensor([4]))
    assert (found[:, 4:] == 0).all()
    torch.testing.assert_close(lorm.salience(clip[:, :4] * scale, torch.tensor([4])), found[:, :4], rtol=0, atol=5e-3)


def test_a_clip_whose_frames_are_equal_has_no_salient_frame():
    assert lorm.salience(torch.ones(1, 5, 8), torch.tensor([5])).abs().max() < 1e-4


def test_reading_the_clip_adds_less_than_two_percent():
    """On the demo's backbone: 8 frames, width 128."""
    sizes = [
        sum(p.numel() for p in lorm.Modulation(8, 128, lorm.Options(time=time), 0).parameters())
        for time in ("fixed", "content")
    ]
    assert sizes[0] < sizes[1] < 1.02 * sizes[0]
