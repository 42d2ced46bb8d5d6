"""Methods for the same work, measured in turns, so that other load on the machine affects all of them.

`take` measures in this process. With `measure=apart` every measurement is a fork of a process that has only imported
the stages; its own memory is RssAnon, which excludes the pages of mapped files (Linux only).
"""

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

PAUSE = 0.002  # seconds between two readings of a process's memory
IMPORTS = ["rap.training.stage", "rap.evaluation.stage", "rap.report.table"]

Taken = dict[str, list[float]]  # seconds of each way, turn by turn


@dataclass(frozen=True)
class Cost:
    """Seconds of a piece of work, and the peak of its process's additional own memory, in MB."""

    seconds: float
    megabytes: float


def take(ways: dict[str, Any], repeats: int, title: str = "turns", measure: Callable | None = None) -> dict[str, list]:
    """The costs of each way in `repeats` turns, by `measure` (default: `timed`); a first turn is not counted."""
    taken: dict[str, list] = {name: [] for name in ways}
    for turn in tqdm(range(repeats + 1), desc=title, leave=False):
        for name, way in ways.items():
            cost = (measure or timed)(way)
            if turn:
                taken[name].append(cost)
    return taken


def timed(way: Callable[[], object]) -> float:
    """Seconds of `way()`, including its asynchronous work on a GPU."""
    settle()
    began = time.perf_counter()
    way()
    settle()
    return time.perf_counter() - began


def settle() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def median(taken: Taken, name: str) -> float:
    return statistics.median(taken[name])


def ratio(taken: Taken, over: str, under: str) -> float:
    """The median over turns of the ratio of the seconds of two methods in the same turn."""
    return statistics.median(a / b for a, b in zip(taken[over], taken[under], strict=True))


def costs(ways: dict[str, Callable[[], Callable]], repeats: int) -> dict[str, Cost]:
    """Median costs of `prepare()()` for each `prepare` in `ways`, each in its own processes; see `apart`."""
    return {
        name: Cost(statistics.median(c.seconds for c in found), statistics.median_high(c.megabytes for c in found))
        for name, found in take(ways, repeats, measure=apart).items()
    }


def apart(prepare: Callable[[], Callable]) -> Cost:
    """The cost of `prepare()()` without that of `prepare()`, in its own process.

    `prepare` is pickled: a function of a module, or a partial of one. Raises RuntimeError if the process fails.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTS)
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(there, os.getcwd(), prepare))
    process.start()
    there.close()
    try:
        here.recv()
        before = peak = memory(process.pid)[0]
        here.send(None)
        while not here.poll(PAUSE):
            peak = max(peak, memory(process.pid)[0])
        return Cost(here.recv(), (peak - before) / 1e6)
    except EOFError:
        raise RuntimeError(f"{prepare}: the process failed; its error is above") from None
    finally:
        process.join()


def _work(pipe: Connection, folder: str, prepare: Callable[[], Callable]) -> None:
    os.chdir(folder)
    work = prepare()
    pipe.send(None)
    pipe.recv()
    pipe.send(timed(work))


def memory(process: int) -> tuple[int, int]:
    """Bytes of a process: its present own memory, and its peak resident memory with mapped files; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0, 0
    found = dict(line.split(":", 1) for line in lines if ":" in line)
    own, peak = (1024 * int(found.get(name, "0").split()[0]) for name in ("RssAnon", "VmHWM"))
    return own, peak
