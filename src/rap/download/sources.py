"""The address of one video: a template filled with the video's name, and the seconds that its clip covers."""

import re
from dataclasses import dataclass
from urllib.parse import quote

WHOLE = re.compile(r"(?P<id>.*)", re.DOTALL)


@dataclass(frozen=True)
class Source:
    """An address, and the seconds from `span[0]` to `span[1]` to take of the video; None: the whole video."""

    url: str
    span: tuple[int, int] | None = None


def source(template: str, pattern: re.Pattern[str] | None, video_id: str, path: str) -> Source:
    """Fill in {video} (the video's id), {path} (its file) and {id} (its id at the site), escaped for a URL.

    `pattern` is the dataset's `name_pattern`; an id that does not match is used as the id at the site.
    """
    found = (pattern and pattern.fullmatch(video_id)) or WHOLE.fullmatch(video_id)
    assert found is not None  # WHOLE matches any text
    parts = found.groupdict()
    fields = {"video": quote(video_id, safe=""), "path": quote(path), "id": quote(parts["id"], safe="")}
    span = (int(parts["start"]), int(parts["end"])) if "start" in parts else None
    return Source(template.format(**fields), span)
