"""A local HTTP server that serves files correctly, or with faults that a test scripts, and records the requests."""

import gzip
import hashlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Step = Callable[["Handler", bytes], None]


class Server(ThreadingHTTPServer):
    """`files` by path; `script`: the responses to the next requests for a path, after which it is served correctly."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.script: dict[str, list[Step]] = defaultdict(list)
        self.asked: list[tuple[str, str | None]] = []  # path, Range
        self.types: dict[str, str] = {}
        self.waited_out: list[str] = []  # paths whose client did not give up in time

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"

    def count(self, path: str) -> int:
        return sum(asked == path for asked, _ in self.asked)

    def handle_error(self, request, address) -> None:
        """Clients may disconnect: nothing to report."""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        server.asked.append((self.path, self.headers["Range"]))
        if self.path not in server.files and not server.script[self.path]:
            status(404)(self, b"")
            return
        step = server.script[self.path].pop(0) if server.script[self.path] else correct
        step(self, server.files.get(self.path, b""))

    def head(self, code: int, **headers) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def log_message(self, *_) -> None: ...


def tag(body: bytes) -> str:
    return f'"{hashlib.sha256(body).hexdigest()[:16]}"'


def correct(handler: Handler, body: bytes) -> None:
    """A correct response (RFC 9110): ranges, and If-Range with an ETag."""
    _send(handler, body, len(body))


def _send(handler: Handler, body: bytes, until: int, **headers) -> None:
    kind = handler.server.types.get(handler.path, "application/octet-stream")
    headers = {"Content_Type": kind, "ETag": tag(body), **headers}
    wanted = handler.headers["Range"]
    if wanted and handler.headers["If-Range"] in (None, tag(body)):
        start = int(wanted.removeprefix("bytes=").rstrip("-").partition("-")[0])
        span = f"bytes {start}-{len(body) - 1}/{len(body)}"
        handler.head(206, Content_Range=span, Content_Length=len(body) - start, **headers)
    else:
        start = 0
        handler.head(200, Content_Length=len(body), **headers)
    handler.wfile.write(body[start:until])


def drop(after: int) -> Step:
    """Disconnect after `after` bytes of the file."""
    return lambda handler, body: _send(handler, body, after)


def stall(after: int, seconds: float = 20) -> Step:
    """Send `after` bytes, then nothing until the next request arrives."""

    def step(handler: Handler, body: bytes) -> None:
        asked = len(handler.server.asked)
        _send(handler, body, after)
        for _ in range(int(100 * seconds)):
            time.sleep(0.01)
            if len(handler.server.asked) > asked:
                return
        handler.server.waited_out.append(handler.path)

    return step


def endless(handler: Handler, body: bytes) -> None:
    """Send up to 200 MB, until the client disconnects."""
    handler.head(200)
    for _ in range(200):
        handler.wfile.write(bytes(1_000_000))
    handler.server.waited_out.append(handler.path)


def compressed(handler: Handler, body: bytes) -> None:
    """Compress the body if the client accepts that."""
    if "gzip" in handler.headers["Accept-Encoding"]:
        body = gzip.compress(body)
    handler.head(200, Content_Length=len(body))
    handler.wfile.write(body)


def status(code: int, body: bytes = b"", **headers) -> Step:
    def step(handler: Handler, _: bytes) -> None:
        handler.head(code, Content_Length=len(body), **headers)
        handler.wfile.write(body)

    return step


def redirect(to: str) -> Step:
    return status(302, Location=to)


def ignore_ranges(handler: Handler, body: bytes) -> None:
    """Ignore ranges: send the whole file, without its version."""
    handler.head(200, Content_Length=len(body))
    handler.wfile.write(body)


def drop_without_ranges(after: int) -> Step:
    def step(handler: Handler, body: bytes) -> None:
        handler.head(200, Content_Length=len(body), ETag=tag(body))
        handler.wfile.write(body[:after])

    return step


def ignore_if_range(handler: Handler, body: bytes) -> None:
    """Ignore If-Range: send the range of the present file."""
    start = int(handler.headers["Range"].removeprefix("bytes=").rstrip("-"))
    span = f"bytes {start}-{len(body) - 1}/{len(body)}"
    handler.head(206, Content_Range=span, Content_Length=len(body) - start, ETag=tag(body))
    handler.wfile.write(body[start:])


def without_length(handler: Handler, body: bytes) -> None:
    """Send no Content-Length: the end of the connection ends the file."""
    handler.head(200)
    handler.wfile.write(body)


def chunked(ends: bool) -> Step:
    """Use chunked transfer encoding, with or without the final chunk."""

    def step(handler: Handler, body: bytes) -> None:
        handler.protocol_version, handler.close_connection = "HTTP/1.1", True
        handler.head(200, Transfer_Encoding="chunked")
        for start in range(0, len(body), 70_000):
            piece = body[start : start + 70_000]
            handler.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        handler.wfile.write(b"0\r\n\r\n" if ends else b"")

    return step


@contextmanager
def serving() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
