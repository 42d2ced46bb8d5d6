"""Files over HTTP: whatever the server does, the result is the complete file or none, and no byte is fetched twice."""

import random
import time
from threading import Event

import pytest
from scripted import (
    chunked,
    compressed,
    drop,
    drop_without_ranges,
    endless,
    ignore_if_range,
    ignore_ranges,
    redirect,
    stall,
    status,
    tag,
    without_length,
)
from shipped import shipped

from rap.download.http import Http, refused
from rap.download.retry import FetchError
from rap.files import digest_file

BODY = random.Random(0).randbytes(300_000)
OTHER = random.Random(1).randbytes(300_000)


@pytest.fixture
def fetch(server, tmp_path):
    """Fetch `/file` with some parameters; returns the target."""
    server.files["/file"] = BODY
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)

    def run(path="/file", parameters=None, **wanted):
        settings = shipped("download", **{"retries": 2, "backoff": 0.001, "timeout": 0.3, **(parameters or {})})
        target = tmp_path / "target"
        url = path if "://" in path else server.url(path)
        Http(settings, work, Event()).fetch(url, target, **wanted)
        assert list(work.iterdir()) == []  # nothing is left behind
        return target

    return run


def test_a_dropped_connection_resumes(server, fetch):
    server.script["/file"] = [drop(100_000), drop(250_000)]
    assert fetch().read_bytes() == BODY
    assert server.asked == [("/file", None), ("/file", "bytes=100000-"), ("/file", "bytes=250000-")]


def test_a_stalled_transfer_resumes(server, fetch):
    server.script["/file"] = [stall(100_000)]
    assert fetch().read_bytes() == BODY
    assert server.asked[-1] == ("/file", "bytes=100000-") and server.waited_out == []


def test_the_next_run_resumes(server, fetch):
    server.script["/file"] = [drop(50_000), drop(50_000), drop(50_000)]
    with pytest.raises(FetchError, match="interrupted after 50000 of 300000 bytes") as caught:
        fetch()
    assert caught.value.again and not caught.value.dead
    assert fetch().read_bytes() == BODY
    assert server.asked[-1] == ("/file", "bytes=50000-") and len(server.asked) == 4


def test_a_run_killed_after_the_transfer_makes_no_request(server, fetch, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("rap.download.part.Part.become", lambda part, target: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            fetch()
    assert fetch().read_bytes() == BODY
    assert len(server.asked) == 1


@pytest.mark.parametrize("ranges", [ignore_ranges, ignore_if_range])
def test_two_versions_of_a_file_are_never_mixed(server, fetch, ranges):
    def change(handler, body):
        drop(100_000)(handler, body)
        server.files["/file"] = OTHER

    server.script["/file"] = [change, ranges]
    assert fetch().read_bytes() == OTHER


def test_if_range_fetches_a_changed_file_from_the_start(server, fetch):
    def change(handler, body):
        drop(100_000)(handler, body)
        server.files["/file"] = OTHER[:1000]

    server.script["/file"] = [change]
    assert fetch().read_bytes() == OTHER[:1000]
    assert len(server.asked) == 2


def test_a_server_without_ranges_sends_the_whole_file_again(server, fetch):
    server.script["/file"] = [drop_without_ranges(100_000), ignore_ranges]
    assert fetch().read_bytes() == BODY


def test_a_file_that_became_shorter_is_fetched_from_the_start(server, fetch):
    server.script["/file"] = [drop(100_000), status(416, b"no such range", Content_Range="bytes */50000")]
    assert fetch().read_bytes() == BODY
    assert server.asked[-1] == ("/file", None)


def test_transfers_that_make_progress_are_not_failed_attempts(server, fetch):
    server.files["/file"] = BODY * 20
    server.script["/file"] = [drop(count * 1_000_000) for count in range(1, 6)]
    assert fetch().read_bytes() == BODY * 20


def test_a_large_file_that_always_starts_again_is_given_up(server, fetch):
    server.files["/file"] = BODY * 20
    server.script["/file"] = [drop_without_ranges(2_000_000)] * 9
    with pytest.raises(FetchError, match="interrupted after 2000000 of 6000000 bytes"):
        fetch()
    assert len(server.asked) == 4  # the first made progress; three more did not


@pytest.mark.parametrize("code", [429, 500, 503])
def test_temporary_errors_are_retried(server, fetch, code):
    server.script["/file"] = [status(code), status(code, Retry_After=0)]
    assert fetch().read_bytes() == BODY


def test_retry_after_is_honoured_and_too_long_a_wait_is_left_to_the_next_run(server, fetch, monkeypatch):
    waits = []
    monkeypatch.setattr("rap.download.retry.sleep_using_event", lambda stop: waits.append)
    server.script["/file"] = [status(429, Retry_After=7), status(503, Retry_After="Mon, 01 Jan 2001 00:00:00 GMT")]
    fetch()
    assert waits[0] == 7 and waits[1] < 1
    server.script["/file"] = [status(429, Retry_After=86400)]
    with pytest.raises(FetchError, match="429"):
        fetch()
    assert len(waits) == 2


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_dead_links_are_requested_once(server, fetch, code):
    server.script["/file"] = [status(code)] * 3
    with pytest.raises(FetchError, match=str(code)) as caught:
        fetch()
    assert caught.value.dead and len(server.asked) == 1


def test_size_and_digest_are_checked(server, fetch, tmp_path):
    (tmp_path / "good").write_bytes(BODY)
    good = digest_file(tmp_path / "good")
    assert fetch(size=300_000, sha256=good).read_bytes() == BODY
    server.asked.clear()
    with pytest.raises(FetchError, match="wrong size: the server has 300000 bytes, not 300001"):
        fetch(size=300_001)
    with pytest.raises(FetchError, match="wrong content: its SHA-256 is"):
        fetch(sha256="0" * 64)
    assert len(server.asked) == 2
    server.script["/file"] = [without_length]
    with pytest.raises(FetchError, match="wrong size: the server has 300000 bytes, not 299999"):
        fetch(size=299_999)


def test_a_digest_reveals_mixed_versions_and_the_file_is_fetched_again(server, fetch, tmp_path):
    def nameless(until, body=None):
        def step(handler, now):
            start = int((handler.headers["Range"] or "bytes=0-").removeprefix("bytes=").rstrip("-"))
            span = {"Content_Range": f"bytes {start}-{len(now) - 1}/{len(now)}"} if start else {}
            handler.head(206 if start else 200, Content_Length=len(now) - start, **span)
            handler.wfile.write((body or now)[start:until])

        return step

    (tmp_path / "good").write_bytes(BODY)
    server.script["/file"] = [nameless(100_000, OTHER), nameless(None)]
    assert fetch(sha256=digest_file(tmp_path / "good")).read_bytes() == BODY
    assert [asked for _, asked in server.asked] == [None, "bytes=100000-", None]


def test_without_a_version_or_a_digest_nothing_is_resumed(server, fetch):
    def nameless_drop(handler, body):
        handler.head(200, Content_Length=len(body))
        handler.wfile.write(body[:100_000])

    server.script["/file"] = [nameless_drop]
    assert fetch().read_bytes() == BODY
    assert [asked for _, asked in server.asked] == [None, None]


def test_too_large_a_file_is_stopped(server, fetch):
    for step in (ignore_ranges, endless):
        server.script["/file"] = [step]
        with pytest.raises(FetchError, match="larger than download"):
            fetch(parameters={"max_gb": 1e-4})
    assert server.waited_out == []


def test_a_chunked_body_is_complete_only_with_its_last_chunk(server, fetch):
    server.script["/file"] = [chunked(ends=False), chunked(ends=True)]
    assert fetch().read_bytes() == BODY
    assert len(server.asked) == 2


def test_transfers_are_not_compressed(server, fetch):
    server.script["/file"] = [compressed]
    assert fetch().read_bytes() == BODY


def test_web_pages_and_empty_files_are_rejected(server, fetch):
    server.types["/file"] = "text/html; charset=utf-8"
    with pytest.raises(FetchError, match="sent a web page"):
        fetch()
    server.files["/empty"] = b""
    with pytest.raises(FetchError, match="empty"):
        fetch("/empty")


def test_redirects_are_followed_but_only_to_http(server, fetch):
    server.script["/old"] = [redirect("/file"), redirect("file:///etc/hostname"), redirect("ftp://127.0.0.1/file")]
    assert fetch("/old").read_bytes() == BODY
    for _ in range(2):
        with pytest.raises(FetchError, match="No connection adapters") as caught:
            fetch("/old")
        assert caught.value.dead
    server.script["/circle"] = [redirect("/circle")] * 50
    with pytest.raises(FetchError, match="redirects"):
        fetch("/circle")


def test_a_missing_server_is_one_line(fetch):
    with pytest.raises(FetchError, match=r"^127\.0\.0\.1: no connection: Connection refused$"):
        fetch("http://127.0.0.1:9/file")


def drip(handler, body: bytes) -> None:
    """A byte at a time, each before the timeout, for as long as the client stays."""
    handler.head(200, Content_Length=len(body), ETag=tag(body), Accept_Ranges="bytes")
    for place in range(len(body)):
        handler.wfile.write(body[place : place + 1])
        handler.wfile.flush()
        time.sleep(0.05)


def test_a_server_that_drips_is_given_up_and_the_next_attempt_goes_on(server, fetch):
    server.script["/file"] = [drip]
    assert fetch().read_bytes() == BODY
    begin = int(server.asked[1][1].removeprefix("bytes=").removesuffix("-"))
    assert 0 < begin < 100


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ("https://a.org/x", "http://a.org/x", "from https to http"),
        ("https://a.org/x", "http://b.org/x", "from https to http"),
        ("http://a.org/x", "https://a.org/x", ""),
        ("https://a.org/x", "https://cdn.a.org/y", ""),
        ("https://cdn.a.org/x", "https://a.org/y", "to a.org;"),
        ("https://a.org/x", "https://evil-a.org/y", "to evil-a.org;"),
        ("https://a.org/x", "https://a.org.evil.com/y", "to a.org.evil.com;"),
        ("https://a.org/x", "https://a.org@evil.com/y", "to evil.com;"),
        ("https://a.org/x", "https://files.b.org/y", ""),
        ("http://a.org/x", "http://127.0.0.1/y", "to 127.0.0.1;"),
    ],
)
def test_a_redirect_to_another_host_or_a_lower_scheme_needs_consent(before, after, reason):
    found = refused(before, after, hosts=("b.org",))
    assert found.startswith(reason) and bool(found) == bool(reason)


def test_another_host_is_asked_for_nothing_before_consent(server, fetch):
    other = server.url("/file").replace("127.0.0.1", "localhost")
    server.script["/moved"] = [redirect(other)] * 3
    with pytest.raises(
        FetchError, match=r"redirects to localhost; if you consent, add it to download\.hosts"
    ) as caught:
        fetch("/moved")
    assert not caught.value.dead and [path for path, *_ in server.asked] == ["/moved"]
    assert fetch("/moved", {"hosts": ["localhost"]}).read_bytes() == BODY
