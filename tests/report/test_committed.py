"""The tables that git keeps are those of their records, and name the digests of the records."""

from pathlib import Path

import pytest

from rap import params
from rap.jobs import Job
from rap.provenance import Record

ROOT = Path(__file__).parents[2]
RECORDS = sorted((ROOT / "results").glob("table*.json"))


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_table_is_intact_and_names_what_its_record_says(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    record = Record.read(path)
    assert record.damaged(path.parent) == []
    foot = path.with_suffix(".md").read_text().splitlines()[-1]
    assert all(f"{name} `{digest[:12]}`" in foot for name, digest in record.facts.items())
    job = Job(params.load(), record.stage, record.item)
    if record.provenance.code == job.code:  # between a change of the code and the next run, `rap verify` says "stale"
        assert record.facts["code"] == job.code
