"""What `rap dataset stats` tells is what is there."""

import re
from pathlib import Path

import do
import pytest
from conftest import put

from rap import paths
from rap.errors import UserError
from rap.report import dataset as stats
from rap.shards import Item, build, seal, untracked

ROWS = """path,caption,split,start,end
steady.mp4,one two three,train,,
steady.mp4,one,train,,
steady.webm,one two,train,1,3
sparse.mp4,one two,train,2,9
one.mp4,one,test,,
gone.mp4,one,test,,
gone too.mp4,one,test,,
empty.mp4,one,test,,
"""


@pytest.fixture
def told(project, clips):
    """The parameters of a project of which 4 clips are there and 3 are not, after its download."""
    put(clips, "steady.mp4", "steady.webm", "sparse.mp4", "one.mp4")
    Path("videos/empty.mp4").touch()
    Path("list.csv").write_text(ROWS + "one.mp4,one,test,,\n")
    settings = project(dataset={"max_failed": 1.0})
    do.download(settings)
    return settings


def rows(text: str) -> list[list[str]]:
    """Lines as cells, which two spaces or more part."""
    return [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()]


def test_counts_lengths_and_failures_are_those_of_the_manifest(told):
    found = rows(stats.run(told))
    assert ["train", "3", "3", "0", "4", "0.00"] in found
    assert ["test", "4", "1", "3", "4", "0.00"] in found
    assert ["all", "7", "4", "3", "8", "0.00"] in found
    assert ["train", "seconds per clip", "1.6", "2", "3.8", "4"] in found  # second 2 to its end at 3.64, 1 to 3, all 4
    assert ["train", "captions per video", "1", "1", "1.9", "2"] in found
    assert ["train", "words per caption", "1", "2", "2.8", "3"] in found
    failed = found[found.index(["failed", "why", "which"]) + 2 :]
    assert failed[0] == ["2", "cannot be opened: No such file or directory", "gone.mp4, gone too.mp4"]
    assert failed[1] == ["1", "empty file", "empty.mp4"]
    assert ["note: 1 rows repeat a caption of their clip: left out"] in found


def test_reasons_that_differ_in_figures_alone_are_one_and_decoding_counts_too(told):
    names = ["steady.mp4", "steady.webm@1-3", "one.mp4"]
    items = [Item(name, reason=f"ffmpeg: gave {n} of 8 frames") for n, name in enumerate(names)]
    keys = dict.fromkeys(names, "key")
    made, _ = build(paths.frames(told.dataset.name, 0), keys, (1,), "uint8", lambda _: items)
    seal(made, untracked)
    found = rows(stats.run(told))
    assert ["3", "ffmpeg: gave N of N frames", "one.mp4, steady.mp4, steady.webm"] in [
        [count, why, ", ".join(sorted(which.split(", ")))] for count, why, which in (r for r in found if len(r) == 3)
    ]
    assert ["all", "7", "1", "6", "8", "0.00"] in found


def test_the_picture_is_the_same_bytes_again_and_there_is_none_without_clips(told):
    picture = Path("data/folder/stats/durations.png")
    assert str(picture) in stats.run(told)
    before = picture.read_bytes()
    stats.run(told)
    assert picture.read_bytes() == before and before.startswith(b"\x89PNG")
    picture.unlink()
    for video in Path("videos").iterdir():
        video.unlink()
    do.download(told)
    assert "durations" not in stats.run(told) and not picture.exists()


def test_without_a_manifest_it_says_what_to_run(project):
    with pytest.raises(UserError, match="run `rap download` first"):
        stats.run(project())
