"""Where one video comes from: the address that a template makes of its name, and the part that is the clip."""

import re
from dataclasses import dataclass
from urllib.parse import quote

# How data sets name their clips: by the video of the site, and the seconds of it that the clip shows.
IDS = {
    "activitynet": re.compile(r"v_(?P<id>.+)"),
    "didemo": re.compile(r"[^_]+_(?P<id>\d+)_.+"),
    "msvd": re.compile(r"(?P<id>.+)_(?P<start>\d+)_(?P<end>\d+)"),
}
WHOLE = re.compile(r"(?P<id>.*)", re.DOTALL)


@dataclass(frozen=True)
class Source:
    """An address, and the seconds from `span[0]` to `span[1]` of what lies there; None: all of it."""

    url: str
    span: tuple[int, int] | None = None


def source(template: str, dataset: str, video_id: str, path: str) -> Source:
    """Fill in {video} (the video's id), {path} (its file), {id} (the site's id); all are escaped for a URL."""
    found = (IDS.get(dataset, WHOLE).fullmatch(video_id) or WHOLE.fullmatch(video_id)).groupdict()
    names = {"video": quote(video_id, safe=""), "path": quote(path), "id": quote(found["id"], safe="")}
    span = (int(found["start"]), int(found["end"])) if "start" in found else None
    return Source(template.format(**names), span)
