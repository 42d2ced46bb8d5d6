"""`rap index`: every job that a search needs, one after another, without an engine."""

import time

from rap.errors import UserError
from rap.jobs import jobs, perform
from rap.params import Params

STAGES = ("download", "backbone", "frames", "features")


def run(params: Params) -> str:
    """Run the jobs of STAGES, and print a summary of each; skip finished jobs. Raises UserError."""
    if params.runtime.processes > 1:
        raise UserError("params.yaml: runtime.processes: `rap index` uses one process; set it to 1, or use an engine")
    for job in jobs(params):
        if job.stage in STAGES:
            began = time.perf_counter()
            print(f"{perform(params, job.stage, **job.item)}; {time.perf_counter() - began:.1f} s", flush=True)
    return 'prepared; now `rap search "a dog jumps"`, or `rap serve`'
