"""Samplers: the number of segments is within its bounds, and a longer clip never has fewer."""

from hypothesis import given
from hypothesis import strategies as st
from shipped import shipped

from rap.frames.samplers import SAMPLERS, segments

lengths = st.floats(1e-3, 1e6)


@given(
    name=st.sampled_from(sorted(SAMPLERS)),
    count=st.integers(1, 100),
    fps=st.floats(0.01, 60),
    short=lengths,
    long=lengths,
)
def test_segments_are_between_one_and_count_and_grow_with_the_clip(name, count, fps, short, long):
    frames = shipped("frames", sampler=name, count=count, fps=fps)
    few, many = (segments(frames, seconds) for seconds in sorted((short, long)))
    assert 1 <= few <= many <= count
    if name == "uniform":
        assert few == many == count
