"""Pages with yt-dlp's generic extractor on a local server: whole videos, spans, and failures."""

import sys
from pathlib import Path
from threading import Event

import do
import numpy as np
import pytest
from conftest import number
from scripted import Handler, correct, drop, status
from shipped import shipped

from rap.data.manifest import Manifest
from rap.download.missing import check
from rap.download.retry import FetchError
from rap.download.sites import Site
from rap.download.sources import Source
from rap.errors import UserError
from rap.frames.decode import Recipe, decode
from rap.frames.probe import probe

PAGE = '<html><head><title>x</title></head><body><video src="{}"></video></body></html>'


@pytest.fixture
def fetch(server, clips, tmp_path):
    """Fetch a page of the server, where /steady.mp4 is a clip of four seconds; returns the file."""
    server.files["/steady.mp4"] = (clips / "steady.mp4").read_bytes()
    server.types["/steady.mp4"] = "video/mp4"
    work = tmp_path / "100% of a %(title)s"
    work.mkdir()

    def run(path="/steady.mp4", span=None, cookies="", **keys) -> Path:
        settings = shipped("download", **{"retries": 1, "backoff": 0.001, "timeout": 3.0, "sleep": 0.0, **keys})
        target = work / "videos" / "-x.mp4"
        url = path if "://" in path else server.url(path)
        Site(settings, work, Event(), cookies).fetch(Source(url, span), target, check)
        assert [file.name for file in work.iterdir()] == ["videos"] and list(tmp_path.iterdir()) == [work]
        return target

    return run


@pytest.fixture
def page(server):
    """Serve an HTML page with a video at some address."""

    def serve(address: str) -> str:
        server.files["/page"] = PAGE.format(address).encode()
        server.types["/page"] = "text/html"
        return "/page"

    return serve


@pytest.mark.slow
def test_a_video_is_fetched_complete_under_its_own_name(server, fetch, page, clips):
    assert fetch().read_bytes() == (clips / "steady.mp4").read_bytes()
    assert fetch(page(server.url("/steady.mp4"))).read_bytes() == (clips / "steady.mp4").read_bytes()


def test_a_span_is_cut_at_its_exact_times(fetch):
    file = fetch(span=(1, 3))
    assert probe(file).end == pytest.approx(2, abs=0.05)
    shown = number(decode(file, Recipe(shipped("frames", count=10), 32, "bicubic")))
    middles = 1 + (np.arange(10) + 0.5) * 2 / 10
    assert abs(shown - np.floor(25 * middles)).max() <= 1


@pytest.mark.parametrize("code", [403, 404, 410])
def test_a_missing_page_is_a_dead_link(server, fetch, code):
    server.script["/gone"] = [status(code)] * 9
    with pytest.raises(FetchError, match=f"^{code} ") as caught:
        fetch("/gone")
    assert caught.value.dead


def test_a_page_without_a_video_is_a_dead_link(fetch, server):
    server.files["/text"], server.types["/text"] = b"<html><p>removed by its owner</p></html>", "text/html"
    with pytest.raises(FetchError, match=r"^Unsupported URL") as caught:
        fetch("/text")
    assert caught.value.dead and "\n" not in str(caught.value)


@pytest.mark.parametrize("code", [429, 503])
def test_a_busy_page_is_retried(server, fetch, code, clips):
    server.script["/steady.mp4"] = [status(code)]
    assert fetch().read_bytes() == (clips / "steady.mp4").read_bytes()
    server.script["/steady.mp4"] = [status(code)] * 9
    with pytest.raises(FetchError, match=f"^{code} ") as caught:
        fetch(retries=0)
    assert not caught.value.dead


def test_a_dropped_connection_resumes_and_a_missing_server_is_not_a_dead_link(server, fetch, clips):
    server.script["/steady.mp4"] = [correct, drop(2000)]
    assert fetch().read_bytes() == (clips / "steady.mp4").read_bytes()
    assert len(server.asked) == 3
    with pytest.raises(FetchError, match="Connection refused") as caught:
        fetch("http://127.0.0.1:9/x.mp4")
    assert not caught.value.dead


@pytest.mark.parametrize(
    "address", ["file:///etc/hostname", "file://{folder}/steady.mp4", "data:video/mp4;base64,AA=="]
)
def test_a_page_cannot_name_a_file_of_this_machine(fetch, page, clips, address):
    with pytest.raises(FetchError):
        fetch(page(address.format(folder=clips)))


def test_an_incomplete_video_is_not_kept(server, fetch, clips, tmp_path):
    server.files["/steady.mp4"] = server.files["/steady.mp4"][:-3000]
    with pytest.raises(FetchError, match="not a complete video"):
        fetch()
    assert not list(tmp_path.rglob("*.mp4"))


def test_too_large_a_video_is_rejected(fetch):
    with pytest.raises(FetchError, match=r"download\.max_gb"):
        fetch(max_gb=1e-6)


def test_cookies_are_sent_and_their_file_is_not_changed(server, listed, tmp_path):
    text = "# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\tkey\tsecret\n"
    Path("cookies.txt").write_text(text)
    sent = []

    def look(handler: Handler, body: bytes) -> None:
        sent.append(handler.headers["Cookie"])
        correct(handler, body)

    server.types["/v/a.mp4"] = "video/mp4"
    server.script["/v/a.mp4"] = [look, look]
    ways = {"videos": None, "pages": server.url("/v/{path}"), "sleep": 0.0}
    do.download(listed("a.mp4", **ways, cookies="cookies.txt"))
    assert sent == ["key=secret", "key=secret"] and Path("cookies.txt").read_text() == text
    with pytest.raises(UserError, match=r"download\.cookies: absent\.txt cannot be read"):
        do.download(listed("b.mp4", **ways, cookies="absent.txt"))


def test_dead_pages_are_in_the_manifest_and_requested_once(server, listed):
    ways = {"videos": None, "pages": server.url("/v/{path}"), "sleep": 0.0}
    settings = listed("good.mp4", "gone.mp4", **ways)
    server.types["/v/good.mp4"] = "video/mp4"
    del server.files["/v/gone.mp4"]
    assert "fetched 1 videos (0.0 MB), 1 dead links" in do.download(settings)
    assert list(Manifest.read("data/folder/manifest").videos.reason) == ["", "not fetched: 404 Not Found"]
    server.asked.clear()
    do.download(settings)
    assert server.asked == []


def test_without_yt_dlp_pages_are_refused_in_one_line(server, listed, monkeypatch):
    monkeypatch.setitem(sys.modules, "yt_dlp", None)
    settings = listed("a.mp4", videos=None, pages=server.url("/v/{path}"))
    with pytest.raises(UserError, match=r"yt_dlp is not installed; run: pip install 'rap-retrieval\[download\]'"):
        do.download(settings)
