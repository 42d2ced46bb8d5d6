"""Processor, memory and GPUs during a job, on request (`tracking.system_metrics`), by MLflow's own collectors."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pandas as pd

from rap.errors import require
from rap.files import write_text
from rap.runtime.mlflow_settings import prepare


@contextmanager
def watched(every: float, file: Path) -> Iterator[None]:
    """Sample system metrics every `every` seconds while the block runs, and write `file`.

    The CSV has a row for each sample: `time` in milliseconds since 1970, and a column for each metric of MLflow.
    Raises UserError if MLflow, which is an extra, is not installed.
    """
    require("mlflow", "tracking")
    collectors, ended, rows = _collectors(), Event(), []

    def watch() -> None:
        while not ended.wait(every):
            rows.append({"time": int(1000 * time.time()), **_measured(collectors)})

    thread = Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    write_text(file, pd.DataFrame(rows).to_csv(index=False, lineterminator="\n"))


def _collectors() -> list[Any]:
    prepare()
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

    try:
        return [CPUMonitor(), GPUMonitor()]
    except Exception:  # no NVIDIA GPU, or no package that queries its driver: MLflow raises several types
        return [CPUMonitor()]


def _measured(collectors: list[Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    for collector in collectors:
        collector.collect_metrics()
        found |= collector.aggregate_metrics()
        collector.clear_metrics()
    return found
