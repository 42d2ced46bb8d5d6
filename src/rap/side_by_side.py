"""Runs the jobs of one command side by side, `runtime.jobs` at a time: the seeds of a variant, the shards of a cache.

Each job has its own process. The processes are forked after the import of the stage, which takes seconds.
"""

import io
import multiprocessing
import os
import signal
import sys
from importlib import import_module
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess

from rap.__main__ import main
from rap.errors import UserError
from rap.jobs import Job, up_to_date
from rap.params import Params
from rap.runtime.signals import Ended, end_with_parent
from rap.stages import STAGES, Item, axes

FORK = multiprocessing.get_context("fork")


def run(params: Params, stage: str, item: Item) -> str:
    """Run the jobs of all values of the axis that `item` lacks; return the summaries of those that were up to date.

    Jobs that are computed print their summaries when they end. A job that fails does not stop the others. Raises
    UserError if a process was killed, and SystemExit with the exit status of a failed process.
    """
    axis = STAGES[stage].together
    summaries, waiting = [], []
    for job in (Job(params, stage, item | {axis: value}) for value in axes(params)[axis]):
        if said := up_to_date(job):
            summaries.append(said)
        else:
            waiting.append(job)
    statuses = _processes(waiting, params.runtime.jobs)
    for job, status in zip(waiting, statuses, strict=True):
        if status < 0:
            raise UserError(f"`{job.command}` was killed by signal {-status}; if memory is short, lower runtime.jobs")
    if any(statuses):
        sys.exit(max(statuses))
    return "\n".join(summaries)


def _processes(jobs: list[Job], most: int) -> list[int]:
    """The exit statuses of the jobs, each in its own process, `most` at once. An exception here ends the processes."""
    if jobs:
        import_module(jobs[0].about.module)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a parent that ignores it hides how processes end
    started: list[ForkProcess] = []
    running: list[ForkProcess] = []
    try:
        for job in jobs:
            running = _unfinished(running, most - 1)
            process = FORK.Process(target=_work, args=(job, min(most, len(jobs)) > 1, os.getpid()))
            process.start()
            running.append(process)
            started.append(process)
        _unfinished(running, 0)
    except BaseException:
        for process in started:
            process.kill()
        for process in started:
            process.join()
        raise
    return [process.exitcode or 0 for process in started]


def _unfinished(running: list[ForkProcess], most: int) -> list[ForkProcess]:
    """Wait until at most `most` processes run; return these."""
    while len(running) > most:
        wait([process.sentinel for process in running])
        running = [process for process in running if process.is_alive()]
    return running


def _work(job: Job, several: bool, parent: int) -> None:
    """Run the command of a job in this process. If `several` run at once, lines replace progress bars."""
    end_with_parent()
    if os.getppid() != parent:  # it ended before the kernel knew
        sys.exit(1)
    if several:
        raw = io.FileIO(2, "w", closefd=False)
        sys.stderr = LogStream(raw, sys.stderr.encoding, "backslashreplace", line_buffering=True)
        if job.params.runtime.processes > 1:  # their bars would mix
            os.environ["TQDM_DISABLE"] = "1"
    sys.argv = job.command.split()
    try:
        main()
    except Ended as ended:
        sys.exit(ended.status)


class LogStream(io.TextIOWrapper):
    """A text stream that does not report to be a terminal.

    It writes whole lines, so that the lines of several processes do not mix.
    """

    def isatty(self) -> bool:
        return False
