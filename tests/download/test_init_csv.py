"""`rap dataset init`: a folder becomes a list, and a long video a list of spans."""

import shutil
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
import tiny
from conftest import H264, film

from rap import params
from rap.data.datasets import folder
from rap.download import init_csv
from rap.errors import UserError
from rap.frames.probe import probe


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return params.load(tiny.ROOT / "params.yaml")


def test_a_folder_becomes_a_list_without_captions(project, tmp_path):
    (tmp_path / "mine/sub").mkdir(parents=True)
    for name in ("b.mp4", "sub/a, b.MKV", "notes.txt"):
        (tmp_path / "mine" / name).touch()
    assert "mine.csv: 2 videos, without captions" in init_csv.run(project, "mine")
    rows = pd.read_csv("mine.csv", keep_default_na=False)
    assert rows.to_dict("list") == {"path": ["b.mp4", "sub/a, b.MKV"], "caption": ["", ""], "split": ["test", "test"]}
    assert "set dataset.annotations to v1.2.csv and" in init_csv.run(project, shutil.copytree("mine", "v1.2"))
    with pytest.raises(UserError, match=r"mine.csv: exists"):
        init_csv.run(project, "mine")
    with pytest.raises(UserError, match=r"absent: not a folder"):
        init_csv.run(project, "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: no video in it"):
        init_csv.run(project, "empty")


@pytest.mark.parametrize(("text", "length"), [("10s", 10), ("10", 10), ("1.5m", 90), ("2 h", 7200)])
def test_a_length_of_time(text, length):
    assert init_csv.seconds(text) == length


@pytest.mark.parametrize("text", ["0s", "ten", "-3s", "10 days", "1e9", ""])
def test_what_is_no_length_of_time_is_refused(text):
    with pytest.raises(UserError, match="not a length of time"):
        init_csv.seconds(text)


@pytest.mark.parametrize("end", [0.2, 4.9, 5.1, 10, 14.9, 15.1, 3600])
def test_spans_cover_a_video_without_gaps_and_none_is_very_short(end):
    found = init_csv.spans(end, 10)
    assert found[0][0] == 0 and found[-1][1] == end
    assert all(one[1] == other[0] for one, other in pairwise(found))
    assert all(5 <= stop - start < 15 for start, stop in found) or len(found) == 1


def test_videos_become_spans_and_a_broken_one_is_listed_whole(project, clips, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    shutil.copy(clips / "steady.mp4", "mine/steady.mp4")
    (tmp_path / "mine/broken.mp4").write_bytes(b"no video")
    end = probe(tmp_path / "mine/steady.mp4").end
    said = init_csv.run(project, "mine", f"{end / 4}s")
    assert "mine.csv: 2 videos in 5 spans" in said and "broken.mp4" in capsys.readouterr().err
    rows = pd.read_csv("mine.csv")
    assert rows.path.tolist() == ["broken.mp4"] + 4 * ["steady.mp4"] and rows.start.isna().tolist() == [True] + 4 * [
        False
    ]
    Path("mine.csv").rename("spans.csv")
    assert "2 videos in 2 spans" in init_csv.run(project, "mine", "10s")
    own = project.dataset.model_copy(update={"name": "folder", "annotations": "spans.csv", "videos": "mine"})
    listed = folder.prepare(project.model_copy(update={"dataset": own}), tmp_path / "mine").videos
    assert len(listed) == 5 and listed.start[1:].tolist() == pytest.approx([end / 4 * n for n in range(4)], abs=0.01)


def test_videos_become_shots_and_long_ones_are_divided(project, tmp_path):
    """Three shots of 2, 3 and 2 seconds, with motion, and with a quick cut half a second before the end."""
    (tmp_path / "mine").mkdir()
    shots = "testsrc2=s=96x64:r=25:d=2[a];smptebars=s=96x64:r=25:d=3[b];mandelbrot=s=96x64:r=25,trim=duration=2[c]"
    quick = "[a][b][c]concat=n=3,drawbox=w=96:h=64:color=white:t=fill:enable='gte(t,6.5)'"
    film(tmp_path / "mine/three.mp4", f"{shots};{quick}", *H264)
    assert "1 videos in 3 spans" in init_csv.run(project, "mine", None, True)
    rows = pd.read_csv("mine.csv")
    assert rows.start.tolist() == pytest.approx([0, 2, 5], abs=0.05)
    assert rows.end.tolist() == pytest.approx([2, 5, 7], abs=0.05)
    Path("mine.csv").unlink()
    assert "1 videos in 4 spans" in init_csv.run(project, "mine", "1.6s", True)


def test_hidden_files_and_names_with_line_breaks_do_not_block_a_folder(project, capsys):
    Path("videos").mkdir()
    for name in ("good.mp4", "._good.mp4", ".hidden.mp4", "line\nbreak.mp4", "carriage\rreturn.mp4"):
        (Path("videos") / name).touch()
    assert init_csv.run(project, "videos").startswith("videos.csv: 1 videos")
    assert Path("videos.csv").read_text().splitlines()[1:] == ["good.mp4,,test"]
    said = capsys.readouterr().err
    assert said.count("left out") == 2 and "'carriage\\rreturn.mp4'" in said
