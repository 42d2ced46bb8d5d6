"""What a person waits for on the page of `rap serve`: an answer over HTTP, from the query to the list of hits.

    python benchmarks/page.py [--videos 10000] [--backbone ViT-B-32]

The real application runs in a server of this process. Embeddings are noise and weights are random, which changes no
time. "ranking" is the search for what resembles a video, which encodes no text. One minute on two cores.
"""

import socket
import statistics
import time
from collections.abc import Callable
from threading import Thread

import requests
import torch
import typer
import uvicorn
from lib import ours, projects, report
from lib.projects import Size

from rap.search import serve

ASKED, WARM = 100, 5  # requests that are measured, and those before them
TABLE = ("answer | median, ms | 95 of 100 below, ms", "{answer} | {median:.1f} | {most:.1f}")


def main(videos: int = 10_000, backbone: str = "ViT-B-32", threads: int = 2) -> None:
    out = report.Report("page")
    torch.set_num_threads(threads)
    with projects.workplace():
        found = projects.values(backbone, [], frames=1)
        found["features"]["caches"] = ["video-all", "text-ids"]
        size = Size(trained=videos // 2, tested=videos - videos // 2, queries=videos // 2)
        settings = projects.make(projects.load(found), size, holes=True)
        ours.write_noise(settings)
        began = time.perf_counter()
        app = serve.application(settings, "zero_shot", 0)
        start = time.perf_counter() - began
        address = served(app)
        rows = [
            timed("to a text", lambda: requests.get(f"{address}/search", {"query": "somebody cooks in a kitchen"})),
            timed("to a video: ranking alone", lambda: requests.get(f"{address}/search", {"like": "video7"})),
        ]
    text = f"{videos:,} clips, {backbone}, {threads} threads; the first start made the index in {start:.0f} s."
    out.write({"videos": videos, "backbone": backbone, "start": start, "rows": rows}, text, report.table(rows, TABLE))


def served(app: object) -> str:
    """The address of a server of the application, which lasts as long as this process."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    Thread(target=server.run, args=([listening],), daemon=True).start()
    while not server.started:
        time.sleep(0.01)
    return f"http://127.0.0.1:{listening.getsockname()[1]}"


def timed(answer: str, ask: Callable[[], requests.Response]) -> dict:
    taken = []
    for _ in range(WARM + ASKED):
        began = time.perf_counter()
        ask().raise_for_status()
        taken.append(1e3 * (time.perf_counter() - began))
    cut = statistics.quantiles(taken[WARM:], n=20)
    return {"answer": answer, "median": statistics.median(taken[WARM:]), "most": cut[-1]}


if __name__ == "__main__":
    typer.run(main)
