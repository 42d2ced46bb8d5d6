"""A benchmark in place of the demo: after `rap dataset use`, both engines know its files and its places."""

import re
from pathlib import Path

import pytest
from clones import clone, run
from dvc.repo import Repo

from rap.jobs import jobs
from rap.params import load

pytestmark = pytest.mark.engine


def test_both_engines_take_a_benchmark_from_its_annotations_to_its_tables(tmp_path, monkeypatch):
    folder = clone(tmp_path)
    run(folder, "rap", "dataset", "use", "msvd")
    run(folder, "rap", "graph", "--write")
    Path(folder / "data/msvd/annotations").mkdir(parents=True)
    monkeypatch.chdir(folder)
    wanted = {job.command: job for job in jobs(load(), ablations=False)}
    with Repo(str(folder)) as repo:
        stages = {stage.cmd: stage for stage in repo.index.stages if stage.path_in_repo == "dvc.yaml"}
    printed = run(folder, "snakemake", "--dry-run", "--forceall", "--printshellcmds", "--cores", "1", "all")
    assert "rap frames --shard 3" in wanted
    for command, job in wanted.items():
        by_dvc = stages[re.sub(rf" --{job.about.together or '.'} \d+$", "", command)]  # one for all seeds or shards
        assert {out.def_path for out in by_dvc.outs} >= set(job.about.in_dvc or job.outputs), command
        assert f"Shell command: {command}" in printed
        assert not any("demo/" in path for path in job.outputs), command
    assert "data/msvd/annotations" in {dep.def_path for dep in stages["rap download"].deps}
    assert "data/msvd/manifest/captions.parquet" in wanted["rap download"].outputs
    assert "data/backbones/ViT-B-32/config.json" in wanted["rap backbone"].outputs
