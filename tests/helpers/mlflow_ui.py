"""MLflow's own pages, served from a folder that has mlflow.db."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from clones import kill, start


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address, once it answers."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    options = ("--backend-store-uri", "sqlite:///mlflow.db", "--workers", "1", "--port", str(port))
    server, address = start(folder, "mlflow", "ui", *options), f"http://127.0.0.1:{port}"
    try:
        while not _healthy(address):
            assert server.poll() is None, "the server ended"
            time.sleep(0.2)
        yield address
    finally:
        kill(server)


def _healthy(address: str) -> bool:
    try:
        return requests.get(f"{address}/health", timeout=10).content == b"OK"
    except requests.RequestException:  # not there yet, or busy
        return False
