"""Runs all unfinished seeds of a variant, one process per seed, `runtime.jobs` at a time."""

import os
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor

from rap.errors import UserError
from rap.jobs import Job, perform
from rap.params import Params
from rap.runtime.signals import end_children, tied


def run(params: Params, stage: str, variant: str) -> str:
    """Run the job of every seed; return the summaries of the seeds that were up to date.

    Seeds that are computed print their summaries when they end. A seed that fails does not stop the others. Raises
    UserError if a process was killed, and SystemExit with the exit status of a failed process.
    """
    summaries, waiting = [], []
    for seed in params.seeds:
        job = Job(params, stage, {"variant": variant, "seed": seed})
        if job.done():
            summaries.append(perform(params, stage, **job.item))
        else:
            waiting.append(job)
    several = min(params.runtime.jobs, len(waiting)) > 1
    with ThreadPoolExecutor(params.runtime.jobs) as pool:
        started = [pool.submit(_process, job, several) for job in waiting]
        try:
            statuses = [process.result() for process in started]
        except BaseException:
            _end(started)
            raise
    for job, status in zip(waiting, statuses, strict=True):
        if status < 0:
            raise UserError(f"`{job.command}` was killed by signal {-status}; if memory is short, lower runtime.jobs")
    if any(statuses):
        sys.exit(max(statuses))
    return "\n".join(summaries)


def _end(started: list[Future]) -> None:
    """Start no further process, and kill the running ones; a thread may start one during the kill."""
    for process in started:
        process.cancel()
    while not all(process.done() for process in started):
        end_children()
        time.sleep(0.02)


def _process(job: Job, several: bool) -> int:
    """Run the command of a job; return its exit status. If `several` run at once, lines replace progress bars."""
    command = tied([sys.executable, "-m", "rap", *job.command.split()[1:]])
    if not several:
        return subprocess.run(command).returncode
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        for line in process.stderr or ():
            os.write(2, line)
    return process.returncode
