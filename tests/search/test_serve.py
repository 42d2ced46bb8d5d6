"""The page: it answers as the library does, plays files of the manifest from any byte, and serves nothing else."""

import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlencode

import do
import pytest
import requests
import tiny
import uvicorn

from rap.errors import UserError
from rap.search import serve
from rap.search.library import Library


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = tiny.project(tmp_path)
    tiny.cache(params)
    return params


@pytest.fixture
def site(project):
    """The address of a running server; its videos are bytes that say which they are."""
    do.train(project, "rap", 0)
    library = Library.open(project, "zero_shot")
    library.folder.mkdir(parents=True, exist_ok=True)
    for path in library.index.videos.path:
        (library.folder / path).write_bytes(f"video {path} ".encode() * 100)
    (library.folder / "secret.txt").write_text("secret")
    (library.folder / "secret.mp4").write_text("secret")  # a video, but not of the manifest
    listening = socket.create_server(("127.0.0.1", 0))
    app = serve.application(project, "zero_shot", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join()


def test_it_answers_as_the_library_does(project, site):
    for variant in ("zero_shot", "rap"):
        library = Library.open(project, variant)
        for split in ("all", "test"):
            said = requests.get(f"{site}/search", {"query": "a red ball", "split": split, "variant": variant, "top": 3})
            assert said.json()["hits"] == [hit.values() for hit in library.text("a red ball", 3, split)]
        said = requests.get(f"{site}/search", {"like": "v3", "variant": variant}).json()
        assert said["hits"] == [hit.values() for hit in library.like("v3", 12)] and said["variant"] == variant
    assert requests.get(f"{site}/choices").json()["variants"] == ["zero_shot", "rap"]


def test_videos_are_sent_from_the_byte_that_a_player_asks_for(site):
    whole = requests.get(f"{site}/video/v5")
    assert whole.content == b"video v5.mp4 " * 100 and whole.headers["content-type"] == "video/mp4"
    part = requests.get(f"{site}/video/v5", headers={"Range": "bytes=13-25"})
    assert part.status_code == 206 and part.content == b"video v5.mp4 "
    assert part.headers["content-range"] == "bytes 13-25/1300"
    poster = requests.get(f"{site}/poster/v5")
    assert poster.headers["content-type"] == "image/jpeg" and poster.content[:2] == b"\xff\xd8"


@pytest.mark.parametrize("kind", ["video", "poster"])
@pytest.mark.parametrize(
    "name",
    ["secret.txt", "secret.mp4", "secret", "..%2F..%2Fparams.yaml", "%2Fetc%2Fpasswd", "v5.mp4", "v5%00", "", "v99"],
)
def test_nothing_is_served_that_is_not_in_the_manifest(site, kind, name):
    said = requests.get(f"{site}/{kind}/{name}")
    assert said.status_code == 404 and b"secret" not in said.content and b"variants:" not in said.content


def test_a_request_in_the_name_of_another_host_is_refused(site):
    assert requests.get(f"{site}/search", {"query": "x"}, headers={"Host": "evil.example"}).status_code == 400
    assert requests.get(f"{site}/choices", headers={"Host": "localhost:8000"}).status_code == 200


@pytest.mark.parametrize(
    ("asked", "status", "said"),
    [
        ({"query": " "}, 400, "the query is empty"),
        ({"query": "x", "split": "tset"}, 400, "did you mean 'test'"),
        ({"query": "x", "variant": "rpa"}, 400, "did you mean 'rap'"),
        ({"query": "x", "variant": "lorm"}, 400, "not trained yet"),
        ({"query": "x", "top": "-1"}, 400, "give a number from 1 to 100"),
        ({"like": "/etc/passwd"}, 404, "no such video"),
    ],
)
def test_a_mistake_is_one_sentence(site, asked, status, said):
    found = requests.get(f"{site}/search", asked)
    assert found.status_code == status and said in found.json()["error"] and "\n" not in found.json()["error"]


def test_the_page_needs_no_network_and_lets_no_other_code_in(site):
    page = requests.get(site)
    assert not re.search(r"https?://|src=|@import|innerHTML", page.text)
    assert "default-src 'none'" in page.headers["content-security-policy"]


@pytest.mark.slow
def test_in_a_browser_a_search_shows_its_hits_and_a_name_with_html_stays_text(project, site):
    """The page as Chromium has it after its scripts ran."""
    if not (chromium := shutil.which("chromium") or shutil.which("google-chrome")):
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    query = "<img src=x onerror=alert(1)> a red ball"
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--virtual-time-budget=5000"]
    address = f"{site}/?{urlencode({'query': query})}"
    shown = subprocess.run([chromium, *options, "--dump-dom", address], capture_output=True, text=True, timeout=120)
    hits = Library.open(project, "zero_shot").text(query, 12)
    names = re.findall(r'class="file">\d+\. ([^<]+)<', shown.stdout)
    assert names == [hit.file for hit in hits] and f"{len(hits)} results for" in shown.stdout
    assert "onerror=alert" in shown.stdout and "<img" not in shown.stdout  # as text, escaped
    errors = [line for line in shown.stderr.splitlines() if "CONSOLE" in line]
    assert not errors


def test_the_command_says_where_it_serves_and_ends_with_ctrl_c(project):
    command = Path(sys.executable).with_name("rap")
    asked = [command, *("rap", "serve", "--port", "0")[1:]]
    with subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        address = re.match(r"http://127\.0\.0\.1:\d+/", server.stdout.readline())[0]
        assert "<form" in requests.get(address).text
        found = requests.get(f"{address}search", {"query": "a red ball"}).json()
        assert found["variant"] == "zero_shot" and "rap is not trained yet" in found["note"]
        server.send_signal(signal.SIGINT)
        said, errors = server.communicate(timeout=30)
    assert server.returncode == 0 and said == "stopped\n" and "Traceback" not in errors


def test_a_port_that_is_taken_is_one_line(project):
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UserError, match=r"--port \d+: .*name another"):
        serve.run(project, "zero_shot", 0, "127.0.0.1", taken.getsockname()[1])
