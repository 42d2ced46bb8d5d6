"""Several ways of doing the same, in turns, so that what else the machine does falls on all of them."""

import statistics
import time
from collections.abc import Callable

import torch
from tqdm import tqdm

Taken = dict[str, list[float]]  # seconds of each way, turn by turn


def take(ways: dict[str, Callable[[], object]], repeats: int, title: str = "turns") -> Taken:
    """Seconds of each way in each of `repeats` turns. A first turn, which warms up, is not counted."""
    taken: Taken = {name: [] for name in ways}
    for turn in tqdm(range(repeats + 1), desc=title, leave=False):
        for name, way in ways.items():
            seconds = timed(way)
            if turn:
                taken[name].append(seconds)
    return taken


def timed(way: Callable[[], object]) -> float:
    """Seconds, until the GPU too is done if there is one."""
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
    """The median over turns of seconds of one way over seconds of another in the same turn."""
    return statistics.median(a / b for a, b in zip(taken[over], taken[under], strict=True))
