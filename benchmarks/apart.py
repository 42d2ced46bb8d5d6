"""Work in a process of its own: how long it takes, and how much memory beyond what the process had before it.

The processes are forks of one that has imported everything and done nothing, so none inherits what another left behind.
Own memory is RssAnon, without the pages of mapped files, which the system takes back when it needs them. Linux only.
"""

import multiprocessing
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from tqdm import tqdm

PAUSE = 0.002  # seconds between two looks at the memory of a process
IMPORTS = ["rap.training.stage", "rap.evaluation.stage", "rap.report.table"]

Prepare = Callable[..., Callable[[], object]]  # what is not measured, giving what is


@dataclass(frozen=True)
class Cost:
    """`seconds`, and at most so many `bytes` of own memory more than before."""

    seconds: float
    bytes: int


def take(works: dict[str, tuple], repeats: int) -> dict[str, Cost]:
    """Median costs of each work, a tuple of Prepare and its arguments. They take turns; the first is not counted."""
    taken: dict[str, list[Cost]] = {name: [] for name in works}
    for turn in tqdm(range(repeats + 1), desc="turns", leave=False):
        for name, (prepare, *arguments) in works.items():
            cost = measured(prepare, *arguments)
            if turn:
                taken[name].append(cost)
    return {
        name: Cost(
            statistics.median(cost.seconds for cost in costs), statistics.median_high(cost.bytes for cost in costs)
        )
        for name, costs in taken.items()
    }


def measured(prepare: Prepare, *arguments: object) -> Cost:
    """The cost of `prepare(*arguments)()`, less that of preparing it. Raises RuntimeError where it fails."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTS)
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(there, prepare, arguments))
    process.start()
    there.close()
    try:
        here.recv()
        before = peak = memory(process.pid)[0]
        here.send(None)
        while not here.poll(PAUSE):
            peak = max(peak, memory(process.pid)[0])
        seconds = here.recv()
    except EOFError:
        raise RuntimeError(f"{prepare.__name__}{arguments}: failed; see above") from None
    finally:
        process.join()
    return Cost(seconds, peak - before)


def _work(pipe: Connection, prepare: Prepare, arguments: tuple) -> None:
    work = prepare(*arguments)
    pipe.send(None)
    pipe.recv()
    began = time.perf_counter()
    work()
    pipe.send(time.perf_counter() - began)


def memory(process: int) -> tuple[int, int]:
    """Bytes of a process's own now, and at most resident so far with mapped files; zeros if it is gone."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0, 0
    found = dict(line.split(":", 1) for line in lines if ":" in line)
    return tuple(1024 * int(found.get(name, "0").split()[0]) for name in ("RssAnon", "VmHWM"))
