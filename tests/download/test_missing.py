"""Single videos: missing ones are fetched, present ones are not requested, dead links are reported and remembered."""

import shutil
from pathlib import Path

import do
import pytest
from filelock import FileLock
from scripted import status

from rap.data.manifest import Manifest
from rap.download import missing
from rap.errors import UserError

VIDEOS = Path("videos")
MANIFEST = Path("data/folder/manifest")


def reasons() -> dict[str, str]:
    table = Manifest.read(MANIFEST).videos
    return dict(zip(table.path, table.reason, strict=True))


def asked(server) -> list[str]:
    """The paths requested since the last call."""
    paths = sorted(path for path, _ in server.asked)
    server.asked.clear()
    return paths


def test_missing_videos_are_fetched_and_present_ones_are_not_requested(listed, server, clips):
    settings = listed("a.mp4", "sub/b c.mp4", "ü.mp4", "mine.mp4")
    server.files["/v/sub/b%20c.mp4"] = server.files["/v/%C3%BC.mp4"] = server.files["/v/a.mp4"]
    shutil.copy(clips / "steady.mp4", VIDEOS / "mine.mp4")
    mine = (VIDEOS / "mine.mp4").stat().st_mtime_ns
    assert "fetched 3 videos (0.0 MB), 0 dead links" in do.download(settings)
    assert asked(server) == ["/v/%C3%BC.mp4", "/v/a.mp4", "/v/sub/b%20c.mp4"]
    assert (VIDEOS / "sub/b c.mp4").read_bytes() == (clips / "one.mp4").read_bytes()
    assert (VIDEOS / "mine.mp4").stat().st_mtime_ns == mine  # used in place
    assert set(reasons().values()) == {""}
    manifest = (MANIFEST / "videos.parquet").read_bytes()
    assert "fetched" not in do.download(settings)
    assert asked(server) == [] and (MANIFEST / "videos.parquet").read_bytes() == manifest
    (VIDEOS / "a.mp4").unlink()
    do.download(settings)
    assert asked(server) == ["/v/a.mp4"]
    assert (MANIFEST / "videos.parquet").read_bytes() == manifest


def test_dead_links_are_remembered_and_other_failures_are_tried_again(listed, server, capsys):
    settings = listed("good.mp4", "gone.mp4", "busy.mp4", "cut.mp4")
    whole = server.files.pop("/v/gone.mp4")
    server.files["/v/cut.mp4"] = whole[:-2000]
    server.script["/v/busy.mp4"] = [status(503)] * 2
    summary = do.download(settings)
    assert "fetched 1 videos (0.0 MB), 1 dead links (--retry-dead tries them again), 2 failed (" in summary
    found = reasons()
    assert "not fetched: not a complete video" in found.pop("cut.mp4")
    assert found == {
        "good.mp4": "",
        "gone.mp4": "not fetched: 404 Not Found",
        "busy.mp4": "not fetched: 503 Service Unavailable",
    }
    assert "failed: gone.mp4: not fetched: 404 Not Found" in capsys.readouterr().err
    assert not (VIDEOS / "cut.mp4").exists()
    asked(server)
    server.files["/v/cut.mp4"] = server.files["/v/gone.mp4"] = whole
    assert "fetched 2 videos" in do.download(settings)
    assert asked(server) == ["/v/busy.mp4", "/v/cut.mp4"]
    assert {path: reason for path, reason in reasons().items() if reason} == {"gone.mp4": "not fetched: 404 Not Found"}
    do.download(settings, retry_dead=True)
    assert asked(server) == ["/v/gone.mp4"] and set(reasons().values()) == {""}
    (VIDEOS / "gone.mp4").unlink()
    assert "fetched 1 videos" in do.download(settings)  # it came back to life


def test_a_link_that_is_dead_at_one_address_is_tried_at_another(listed, server, clips):
    settings = listed("a.mp4")
    del server.files["/v/a.mp4"]
    with pytest.raises(UserError, match="404 Not Found"):
        do.download(settings)
    server.files["/w/a.mp4"] = (clips / "one.mp4").read_bytes()
    do.download(listed("a.mp4", videos=server.url("/w/{path}")))
    assert reasons() == {"a.mp4": ""}


def test_too_many_failures_stop_the_run_and_keep_the_fetched_videos(listed, server):
    settings = listed("a.mp4", "b.mp4", max_failed=0.4)
    whole = server.files.pop("/v/b.mp4")
    with pytest.raises(UserError, match=r"1 of 2 videos failed.*max_failed.*b\.mp4: not fetched: 404 Not Found"):
        do.download(settings)
    assert (VIDEOS / "a.mp4").exists() and not MANIFEST.joinpath("captions.parquet").exists()
    server.files["/v/b.mp4"] = whole
    asked(server)
    do.download(settings, retry_dead=True)
    assert asked(server) == ["/v/b.mp4"]


def test_many_failures_in_a_row_stop_the_requests(listed, server, monkeypatch, capsys):
    monkeypatch.setattr(missing, "ENOUGH", 3)
    names = [f"{number}.mp4" for number in range(20)]
    settings = listed(*names, max_failed=1.0, workers=1, retries=0)
    server.script |= {f"/v/{name}": [status(503)] for name in names}
    do.download(settings)
    assert len(asked(server)) == 3
    assert "3 videos in a row failed" in capsys.readouterr().err
    assert "skipped after many failures in a row" in reasons()["19.mp4"]
    server.script.clear()
    do.download(settings)
    assert set(reasons().values()) == {""}


def test_nothing_is_written_through_a_link_out_of_the_folder(listed, server, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    settings = listed("a.mp4", max_failed=1.0)
    videos = Manifest.build([{"video_id": "x", "path": "sub/a.mp4", "split": "train", "status": "ok"}], []).videos
    (VIDEOS / "sub").symlink_to(tmp_path / "elsewhere")
    found = missing.bring(settings, videos, VIDEOS, tmp_path)
    assert found.lost == {"sub/a.mp4": "not fetched: 'sub/a.mp4' leads out of the folder"}
    assert server.asked == [] and list((tmp_path / "elsewhere").iterdir()) == []


def test_a_folder_that_is_a_link_is_used_where_it_is(listed, clips, tmp_path):
    (tmp_path / "disk").mkdir()
    shutil.copy(clips / "one.mp4", tmp_path / "disk" / "mine.mp4")
    VIDEOS.rmdir()
    VIDEOS.symlink_to(tmp_path / "disk")
    assert "fetched 1 videos" in do.download(listed("mine.mp4", "a.mp4"))
    assert VIDEOS.is_symlink() and (tmp_path / "disk" / "a.mp4").exists()
    assert [path.name for path in Path("data/folder").rglob("*.mp4")] == []


def test_two_runs_cannot_use_one_folder(listed, server):
    settings = listed("a.mp4")
    (VIDEOS / ".download").mkdir()
    with (
        FileLock(VIDEOS / ".download" / "lock"),
        pytest.raises(UserError, match="another `rap download` is running"),
    ):
        do.download(settings)
    assert server.asked == []


def test_a_full_disk_is_one_line(listed, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "videos/.download/x.part")

    monkeypatch.setattr("rap.download.http.Http._append", full)
    with pytest.raises(UserError, match=r"videos/\.download/x\.part: No space left on device"):
        do.download(listed("a.mp4"))


def test_without_sources_nothing_is_written(project, clips):
    shutil.copy(clips / "one.mp4", VIDEOS / "one.mp4")
    Path("list.csv").write_text("path,caption,split\none.mp4,a caption,train\n")
    assert do.download(project()).startswith("data/folder/manifest: 1 videos")
    assert [path.name for path in VIDEOS.iterdir()] == ["one.mp4"]
    assert [path for path in Path("data/folder").iterdir() if path.name != "manifest"] == []
