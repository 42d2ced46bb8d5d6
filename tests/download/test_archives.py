"""Archives are fetched and unpacked once, and a killed run resumes."""

import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import do
import pytest
import yaml
from clones import ROOT
from scripted import stall, status

from rap.download import archives
from rap.errors import UserError
from rap.files import digest_file

VIDEOS = Path("videos")


@pytest.fixture
def archive(server, clips, tmp_path):
    """An archive with two listed videos and another file, at /all.zip; returns its entry of `download.archives`."""
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as file:
        for name in ("a.mp4", "deep/b.mp4"):
            file.write(clips / "one.mp4", f"top/{name}")
        file.writestr("top/other.bin", random.Random(0).randbytes(400_000))
    server.files["/all.zip"] = (tmp_path / "all.zip").read_bytes()
    size, sha256 = (tmp_path / "all.zip").stat().st_size, digest_file(tmp_path / "all.zip")
    return {"url": server.url("/all.zip?key=1"), "size": size, "sha256": sha256, "strip": 1}


@pytest.fixture
def settings(listed, archive, server):
    server.files["/all.zip?key=1"] = server.files["/all.zip"]
    return lambda **changes: listed("a.mp4", "deep/b.mp4", videos=None, archives=[archive | changes])


def held() -> dict[str, str]:
    """The digests of all files in the folder of the videos, without hidden ones."""
    files = [file for file in VIDEOS.rglob("*") if file.is_file() and ".download" not in file.parts]
    return {str(file.relative_to(VIDEOS)): digest_file(file) for file in files}


def test_an_archive_is_fetched_and_unpacked_once(settings, server):
    assert "fetched all.zip (0.4 MB, 3 files); data/folder/manifest: 2 videos" in do.download(settings())
    first = held()
    assert first.keys() == {"a.mp4", "deep/b.mp4", "other.bin"}
    assert "fetched" not in do.download(settings()) and len(server.asked) == 1
    (VIDEOS / "deep/b.mp4").unlink()
    do.download(settings())
    assert held() == first and len(server.asked) == 2
    assert sum(file.stat().st_size for file in (VIDEOS / ".download").iterdir()) < 2000  # the archive is not kept


def test_interrupted_unpacking_resumes_without_a_request(settings, server, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(archives, "write_json", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            do.download(settings())
    kept = (VIDEOS / "a.mp4").stat().st_ino
    do.download(settings())
    assert len(server.asked) == 1 and (VIDEOS / "a.mp4").stat().st_ino == kept


def test_another_digest_is_another_archive(settings, server):
    do.download(settings(sha256=None, size=None))
    with pytest.raises(UserError, match=r"all\.zip\?key=1: wrong content"):
        do.download(settings(sha256="0" * 64))
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (status(404), "404 Not Found; correct the address"),
        (status(500), "500 Internal Server Error; run `rap download` again to resume"),
        (lambda handler, body: handler.head(200, Content_Length=0), "wrong size: the server has 0 bytes, not 4"),
    ],
)
def test_an_archive_that_cannot_be_fetched_stops_the_run(settings, server, step, message):
    server.script["/all.zip?key=1"] = [step] * 2
    with pytest.raises(UserError, match=message) as caught:
        do.download(settings())
    assert "\n" not in str(caught.value) and "download.archives" in str(caught.value)


def test_a_damaged_archive_says_how_to_fetch_it_again(settings, server):
    server.files["/all.zip?key=1"] = server.files["/all.zip"][:-30]
    with pytest.raises(UserError, match=r"damaged.*delete videos/\.download/\w+\.whole to fetch it again"):
        do.download(settings(sha256=None, size=None))


@pytest.mark.slow
def test_a_killed_download_resumes_and_ends_with_the_same_bytes(settings, listed, archive, server):
    names = ("a.mp4", "deep/b.mp4", "c.mp4", "d.mp4")
    both = listed(*names, archives=[archive], workers=1, timeout=20.0)
    do.download(both)
    whole = held(), Path("data/folder/manifest/videos.parquet").read_bytes()
    asked, server.asked[:] = sorted(path for path, _ in server.asked), []
    shutil.rmtree(VIDEOS)
    shutil.rmtree("data/folder")
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values |= both.model_dump(mode="json", include={"dataset", "download"})
    Path("params.yaml").write_text(yaml.safe_dump(values))

    def killed(path: str, after: int) -> None:
        server.script[path] = [stall(after)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        parts = VIDEOS / ".download"
        while not any(part.stat().st_size == after for part in parts.glob("*.part")):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()

    command = [Path(sys.executable).with_name("rap"), "download"]
    killed("/all.zip?key=1", 200_000)
    killed("/v/d.mp4", 1000)
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (held(), Path("data/folder/manifest/videos.parquet").read_bytes()) == whole
    again = [(path, wanted) for path, wanted in server.asked if wanted]
    assert again == [("/all.zip?key=1", "bytes=200000-"), ("/v/d.mp4", "bytes=1000-")]
    assert sorted(path for path, wanted in server.asked if not wanted) == asked
