"""The notebook runs from its first cell to its last in a finished project, and is kept without outputs."""

import json
import subprocess
import sys

import do
import pytest
import tiny
from clones import edit

CELLS = json.loads((tiny.ROOT / "docs/quickstart.ipynb").read_text())["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A tiny project whose params.yaml runs two variants, with their table."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rap.report.tracking.log", lambda params, folders: None)
    tiny.project(tmp_path)
    edit(tmp_path, lambda values: values.update(run=["zero_shot", "rap"], seeds=[0]))
    settings = tiny.params.load()
    tiny.cache(settings)
    for variant in settings.run:
        do.train(settings, variant, 0)
        do.evaluate(settings, variant, 0)
    do.table(settings, "table1")
    return settings


@pytest.mark.slow
def test_every_cell_runs(project, tmp_path):
    done = subprocess.run([sys.executable, "-c", "\n\n".join(CODE)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len([line for line in done.stdout.splitlines() if line.endswith(".mp4")]) == 3
    assert (tmp_path / "found.png").stat().st_size > 1000


def test_it_is_kept_without_outputs():
    assert len(CODE) == 6 and all(not cell.get("outputs") and not cell.get("execution_count") for cell in CELLS)
