"""The bookkeeping of 20,000 videos with 200,000 captions: seconds and additional memory of each step.

python benchmarks/manifest.py [--videos 20000] [--captions 10]
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from lib import ours, projects
from lib.projects import Size
from lib.turns import memory

from rap.clip.backbone import DEMO


@contextmanager
def timed(what: str) -> Iterator[None]:
    began, before = time.perf_counter(), memory(os.getpid())[0]
    yield
    seconds, more = time.perf_counter() - began, memory(os.getpid())[0] - before
    print(f"{seconds:8.2f} s {more / 1e6:8.0f} MB  {what}", flush=True)


def main(videos: int = 20_000, captions: int = 10) -> None:
    """`captions` of each video."""
    settings = projects.load(projects.values(DEMO, [], frames=8))
    tested = min(1000, videos // 2)
    with projects.workplace():
        with timed("captions, splits and checks"):
            found = projects.manifest(
                Size(videos - tested, captions, tested, tested * captions), validation=tested // 2
            )
        with timed("write"):
            ours.write_manifest(settings, found)
        with timed("read"):
            found = ours.read_manifest(settings)
        with timed("split train"):
            found.split("train")
        with timed("shard 0 of 8"):
            found.shard(0, 8)


if __name__ == "__main__":
    typer.run(main)
