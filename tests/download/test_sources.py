"""Sources of videos: the addresses that parameters accept, and how templates use the name of a clip."""

import json
import re
from pathlib import Path

import pytest

from rap.data.registry import info
from rap.download.sources import Source, source
from rap.errors import UserError


def pattern(dataset: str) -> re.Pattern | None:
    return info(dataset).name_pattern


def test_names_of_clips_give_the_video_and_the_seconds():
    def page(dataset: str, video_id: str) -> Source:
        return source("https://host/watch?v={id}", pattern(dataset), video_id, "a b.mp4")

    assert page("activitynet", "v_-ab_1234567") == Source("https://host/watch?v=-ab_1234567")
    assert page("msvd", "-4wsu_jDBc_5_15") == Source("https://host/watch?v=-4wsu_jDBc", (5, 15))
    assert page("didemo", "12345678@N01_987654321_0a1b2c3d4e") == Source("https://host/watch?v=987654321")
    assert page("folder", "a&b_1_2") == Source("https://host/watch?v=a%26b_1_2")
    assert page("msvd", "another") == Source("https://host/watch?v=another")
    both = source("https://h/{path}?{video}", None, "ü&/%", "d/ü?.mp4")
    assert both == Source("https://h/d/%C3%BC%3F.mp4?%C3%BC%26%2F%25")


def test_every_name_in_didemo_contains_the_id_of_its_page(annotations):
    moments = json.loads((annotations("didemo") / "val_data.json").read_text())
    assert len(moments) > 1000
    for moment in moments:
        name = moment["video"]
        assert source("{id}", pattern("didemo"), Path(name).stem, name).url == moment["dl_link"].partition("id=")[2]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"archives": [{"url": "file:///etc/passwd"}]}, "'file:///etc/passwd' is not an address"),
        (
            {"archives": [{"url": "https://host/a.zip", "sha": "0"}]},
            r"download\.archives\.0\.sha: unknown key.*'sha256'",
        ),
        ({"archives": [{"url": "https://host/a.zip", "sha256": "ABC"}]}, r"download\.archives\.0\.sha256"),
        ({"videos": "/srv/{video}.mp4"}, "is not an address"),
        ({"videos": "https://[host/{video}"}, "is not an address"),
        ({"pages": "ftp://host/{id}"}, "is not an address"),
        ({"videos": "https://host/a.mp4"}, "where the video's name goes"),
        ({"videos": "https://host/{name}.mp4"}, "where the video's name goes"),
        ({"videos": "https://host/{video:{path}}"}, "where the video's name goes"),
        ({"videos": "https://host/{video"}, "where the video's name goes"),
        ({"videos": "https://host/{video}", "pages": "https://host/{id}"}, "keep one"),
    ],
)
def test_invalid_sources_are_rejected(project, keys, message):
    with pytest.raises(UserError, match=message) as caught:
        project(download=keys)
    assert "\n" not in str(caught.value)
