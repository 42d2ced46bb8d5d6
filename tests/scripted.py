"""A real HTTP server on this machine: serves files well, or as badly as a test says, and remembers what was asked."""

import hashlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Step = Callable[["Handler", bytes], None]


class Server(ThreadingHTTPServer):
    """`files` by path; `script`: what to do at the next requests for a path, before it is served well."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.script: dict[str, list[Step]] = defaultdict(list)
        self.asked: list[tuple[str, str | None]] = []  # path, Range
        self.types: dict[str, str] = {}

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"

    def count(self, path: str) -> int:
        return sum(asked == path for asked, _ in self.asked)

    def handle_error(self, request, address) -> None:
        """A client that went away is no news."""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        server.asked.append((self.path, self.headers["Range"]))
        if self.path not in server.files and not server.script[self.path]:
            status(404)(self, b"")
            return
        step = server.script[self.path].pop(0) if server.script[self.path] else well
        step(self, server.files.get(self.path, b""))

    def head(self, code: int, **headers) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def log_message(self, *_) -> None: ...


def tag(body: bytes) -> str:
    return f'"{hashlib.sha256(body).hexdigest()[:16]}"'


def well(handler: Handler, body: bytes) -> None:
    """As RFC 9110 has it: ranges, and If-Range by ETag."""
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
    """Hang up when so many bytes of the file are out."""
    return lambda handler, body: _send(handler, body, after)


def stall(after: int, seconds: float = 30) -> Step:
    """Say nothing more for a while, once so many bytes are out."""

    def step(handler: Handler, body: bytes) -> None:
        _send(handler, body, after)
        handler.wfile.flush()
        time.sleep(seconds)

    return step


def status(code: int, **headers) -> Step:
    return lambda handler, body: handler.head(code, Content_Length=0, **headers)


def redirect(to: str) -> Step:
    return status(302, Location=to)


def rangeless(handler: Handler, body: bytes) -> None:
    """All of it, whatever range was asked for, and no word on which version it is."""
    handler.head(200, Content_Length=len(body))
    handler.wfile.write(body)


def rangeless_drop(after: int) -> Step:
    def step(handler: Handler, body: bytes) -> None:
        handler.head(200, Content_Length=len(body), ETag=tag(body))
        handler.wfile.write(body[:after])

    return step


def careless(handler: Handler, body: bytes) -> None:
    """The range of whatever lies there now: If-Range is not looked at."""
    start = int(handler.headers["Range"].removeprefix("bytes=").rstrip("-"))
    span = f"bytes {start}-{len(body) - 1}/{len(body)}"
    handler.head(206, Content_Range=span, Content_Length=len(body) - start, ETag=tag(body))
    handler.wfile.write(body[start:])


def lengthless(handler: Handler, body: bytes) -> None:
    """No Content-Length: the end of the connection is the end of the file."""
    handler.head(200)
    handler.wfile.write(body)


@contextmanager
def serving() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
