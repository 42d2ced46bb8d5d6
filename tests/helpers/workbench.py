"""The working directory of the tests of benchmarks: not in a conftest.py, because tests import that name."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def workplace(monkeypatch, tmp_path):
    """An empty working directory, with benchmarks/ on the path as for a script there. Results go to results/."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'benchmarks'}:{ROOT / 'src'}")
    monkeypatch.setenv("BENCHMARK_RESULTS", str(tmp_path / "results"))
    monkeypatch.chdir(tmp_path)
    from lib import report

    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
