"""The page: it answers as the library does, plays files of the manifest from any byte, and serves nothing else."""

import html
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import chdir
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlencode

import do
import pytest
import requests
import uvicorn
from browser import shown
from starlette.responses import HTMLResponse
from starlette.routing import Route

from rap import paths
from rap.data.manifest import Manifest
from rap.errors import UserError
from rap.jobs import Job
from rap.search import serve
from rap.search.library import Library

HOSTILE = "<img src=x onerror=alert(1)>.mp4"  # a file name


@pytest.fixture(scope="module")
def project(cached, tmp_path_factory):
    """The working directory of all tests here."""
    folder, params = cached
    with chdir(shutil.copytree(folder, tmp_path_factory.mktemp("served"), dirs_exist_ok=True)):
        yield params


@pytest.fixture(scope="module")
def site(project):
    """The address of a running server; its videos are bytes that say which they are. v7 is a span of a file."""
    do.train(project, "rap", 0)
    manifest = Manifest.read(paths.manifest(project.dataset.name))
    manifest.videos.loc[manifest.videos.video_id == "v7", ["path", "start", "end"]] = [HOSTILE, 1.5, 2.5]
    manifest.write(paths.manifest(project.dataset.name), Job(project, "download", {}).result)
    library = Library.open(project, "zero_shot")
    library.folder.mkdir(parents=True, exist_ok=True)
    for path in library.index.videos.path:
        (library.folder / path).write_bytes(f"video {path} ".encode() * 100)
    (library.folder / "secret.txt").write_text("secret")
    (library.folder / "secret.mp4").write_text("secret")  # a video, but not of the manifest
    listening = socket.create_server(("127.0.0.1", 0))
    app = serve.application(project, "zero_shot", 0)
    app.routes.append(Route("/used", lambda request: HTMLResponse(page_in_use())))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    for path in ("choices", "video/v6"):  # what the server imports late must not meet pytest's own parsing of modules
        requests.get(f"{address}/{path}").raise_for_status()
    yield address
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


def test_a_damaged_adapter_leaves_the_other_variants(project, site):
    file = paths.run("rap", 0) / "adapter.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert requests.get(f"{site}/choices").json()["variants"] == ["zero_shot"]
    file.write_bytes(whole)
    assert requests.get(f"{site}/choices").json()["variants"] == ["zero_shot", "rap"]


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


def files_shown(page: str) -> list[str]:
    return [html.unescape(name) for name in re.findall(r'class="file">\d+\. ([^<]+)<', page)]


@pytest.mark.slow
def test_in_a_browser_a_search_shows_its_hits_and_a_name_with_html_stays_text(project, site):
    """The page as Chromium has it after its scripts ran."""
    query = "<img src=x onerror=alert(1)> a red ball"
    page, said = shown(f"{site}/?{urlencode({'query': query})}")
    hits = Library.open(project, "zero_shot").text(query, 12)
    assert files_shown(page) == [hit.file for hit in hits] and f"{len(hits)} results for" in page
    assert any(hit.file.endswith(HOSTILE) for hit in hits) and "<img" not in page  # as text, escaped
    assert not said


USE = """<script>
const seen = [], wait = seconds => new Promise(done => setTimeout(done, 1000 * seconds));
const until = async holds => { while (!holds()) await wait(0.05); };
const answered = async act => {
  const before = list.firstChild;
  act();
  await until(() => list.firstChild !== before);
  seen.push([...document.querySelectorAll(".file")].map(one => one.textContent), said.textContent);
};
(async () => {
  await until(() => form.variant.options.length);
  form.query.value = "a red ball"; form.split.value = "test";
  await answered(() => form.requestSubmit());
  form.variant.value = "rap";
  await answered(() => form.requestSubmit());
  await answered(() => document.querySelector("li button").click());
  seen.push(location.search);
  form.split.value = "all"; await ask({ query: "x" }, "");
  for (const id of ["v6", "v7"]) {
    const player = document.querySelector(`video[poster="/poster/${id}"]`);
    player.preload = "auto"; await player.play(); await until(() => player.currentTime > 0);
    seen.push([player.getAttribute("src"), player.currentTime, player.videoWidth]);
    player.pause();
  }
  document.title = JSON.stringify(seen);
})();
</script>"""


def page_in_use() -> str:
    """The page with a script that uses its controls and puts what it saw into the title."""
    page = files("rap.search").joinpath("page.html").read_text(encoding="utf-8")
    return page.replace("<title>", "<title>-</title><template>", 1).replace("</title>", "</template>", 1) + USE


@pytest.mark.slow
def test_in_a_browser_the_controls_choose_split_and_model_hits_play_and_the_address_keeps_all(project, site, clips):
    """A hit that is a span plays from its start, through the server's ranges."""
    zero, rap = Library.open(project, "zero_shot"), Library.open(project, "rap")
    for file in ("v6.mp4", HOSTILE):
        shutil.copy(clips / "steady.mp4", zero.folder / file)
    after, _ = shown(f"{site}/used", "--autoplay-policy=no-user-gesture-required", seconds=3000)
    seen = json.loads(html.unescape(re.search("<title>(.*?)</title>", after)[1]))
    found, by, adapted, by_rap, similar, like, address, whole, span = seen

    def names(hits: list) -> list[str]:
        return [f"{rank}. {hit.file}" for rank, hit in enumerate(hits, 1)]

    assert found == names(zero.text("a red ball", 12, "test")) and "by zero_shot" in by
    best = rap.text("a red ball", 12, "test")
    assert adapted == names(best) and "by rap" in by_rap
    alike = rap.like(best[0].id, 12, "test")
    assert similar == names(alike) and f"like {best[0].file}" in like
    kept, _ = shown(f"{site}/{address}")
    assert files_shown(kept) == [hit.file for hit in alike] and "by rap." in kept
    assert whole[0] == "/video/v6" and 0 < whole[1] < 1.5 and whole[2] > 0
    assert span[0] == "/video/v7#t=1.5,2.5" and 1.5 <= span[1] < 2.5 and span[2] > 0


@pytest.mark.slow
def test_in_a_browser_a_kept_search_by_a_model_that_is_gone_says_so(site):
    page, _ = shown(f"{site}/?{urlencode({'query': 'x', 'variant': 'lorm'})}")
    assert "not trained yet" in page and not files_shown(page)


@pytest.mark.slow
def test_the_command_says_where_it_serves_and_ends_with_ctrl_c(cached, tmp_path):
    folder = shutil.copytree(cached[0], tmp_path, dirs_exist_ok=True)
    command = Path(sys.executable).with_name("rap")
    asked = [command, *("rap", "serve", "--port", "0")[1:]]
    with subprocess.Popen(asked, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        address = re.match(r"http://127\.0\.0\.1:\d+/", server.stdout.readline())[0]
        assert "<form" in requests.get(address).text
        found = requests.get(f"{address}search", {"query": "a red ball"}).json()
        assert found["variant"] == "zero_shot" and "is not trained yet, so zero-shot CLIP searched" in found["note"]
        server.send_signal(signal.SIGINT)
        said, errors = server.communicate(timeout=30)
    assert server.returncode == 0 and said == "stopped\n" and "Traceback" not in errors


def test_a_port_that_is_taken_is_one_line(project):
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UserError, match=r"--port \d+: .*name another"):
        serve.run(project, "zero_shot", 0, False, "127.0.0.1", taken.getsockname()[1])
