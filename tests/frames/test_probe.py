"""When a container's pictures start and end, and whether the file is complete."""

import pytest
from conftest import recode

from rap.frames.ffmpeg import VideoError
from rap.frames.probe import probe


@pytest.mark.parametrize("name", ["open.mkv", "steady.webm"])
def test_a_clock_that_starts_late_is_not_damage_and_hides_no_damage(tmp_path, clips, name):
    late = recode(tmp_path / name, clips / name, "-c", "copy", "-output_ts_offset", "3.2")
    assert probe(late).start == pytest.approx(probe(clips / name).start, abs=0.01)
    assert probe(late).end == pytest.approx(probe(clips / name).end, abs=0.01)
    whole = late.read_bytes()
    late.write_bytes(whole[: len(whole) * 6 // 10])
    with pytest.raises(VideoError, match="cut short"):
        probe(late)
