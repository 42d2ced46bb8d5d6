"""The graph is described once: what DVC and Snakemake read agrees with src/rap/stages.py, and mistakes are one line."""

import re
from pathlib import Path

import pytest
from clones import ROOT, clone, edit, run
from dvc.repo import Repo

from rap import graph, paths
from rap.jobs import Job, jobs
from rap.params import load

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """The project with the parameters that it ships with."""
    return clone(tmp_path_factory.mktemp("project"), small=False)


def by_command(folder: Path, file: str) -> dict[str, set[str]]:
    """The outputs of the jobs of a DVC file, by command, as DVC resolves it."""
    with Repo(str(folder)) as repo:
        stages = [stage for stage in repo.index.stages if stage.path_in_repo == file]
        return {stage.cmd: {out.def_path for out in stage.outs} for stage in stages}


def test_the_committed_file_of_dvc_is_what_the_stages_generate():
    text = graph.rendered(load(ROOT / "params.yaml"))[paths.DVC]
    assert (ROOT / paths.DVC).read_text() == text, "run `rap graph --write`: dvc.yaml is not up to date"


@pytest.mark.parametrize(("file", "ablations"), [("dvc.yaml", False), ("workflow/ablations/dvc.yaml", True)])
def test_dvc_resolves_its_files_to_the_jobs_of_the_stages(project, monkeypatch, file, ablations):
    monkeypatch.chdir(project)
    run(project, "rap", "graph", "--ablations")
    found = by_command(project, file)
    found.pop("rap graph --digests", None)
    expected: dict[str, set[str]] = {}
    for job in jobs(load(), ablations):
        command = re.sub(rf" --{job.about.together or '.'} \d+$", "", job.command)  # one stage for all seeds or shards
        expected.setdefault(command, set()).update(job.about.in_dvc or job.outputs)
    assert found == expected


def test_snakemake_plans_the_jobs_of_the_stages(project, monkeypatch):
    monkeypatch.chdir(project)
    printed = run(project, "snakemake", "--dry-run", "--forceall", "--printshellcmds", "--cores", "1", "all")
    commands = {
        line.partition(": ")[2].partition(" > ")[0] for line in printed.splitlines() if "Shell command:" in line
    }
    assert commands - {"None"} == {job.command for job in jobs(load(), ablations=False)}


def test_every_input_of_a_job_is_an_output_of_another_or_a_file_of_the_user(monkeypatch):
    monkeypatch.chdir(ROOT)
    params = load()
    made = {file for job in jobs(params) for file in job.outputs}
    for job in jobs(params):
        assert set(job.inputs) - set(job.about.external(params)) <= made, job.command


def test_a_config_that_nothing_reads_is_refused(project):
    said = run(project, "snakemake", "--dry-run", "--config", "dataset=msrvtt", fails=True)
    assert "--config dataset: nothing here reads it; change params.yaml instead" in said


def test_snakefiles_are_linted_and_formatted(project):
    assert "good condition" in run(project, "snakemake", "--lint")
    run(project, "snakefmt", "--check", "Snakefile", "workflow")


def test_a_typo_in_params_yaml_is_one_clear_line_of_snakemake(tmp_path):
    typo = clone(tmp_path)
    text = (typo / "params.yaml").read_text()
    (typo / "params.yaml").write_text(text.replace("  epochs: 1\n", "  epoch: 1\n"))
    said = run(typo, "snakemake", "--dry-run", fails=True)
    assert "params.yaml: train.epoch: unknown key; did you mean 'epochs'?" in said
    assert "Traceback" not in said


def test_a_typo_in_any_variant_stops_the_first_job(tmp_path):
    typo = clone(tmp_path)
    edit(typo, lambda params: params["ablations"]["rank_4"]["lorm"].update(rnk=2))
    said = run(typo, "dvc", "repro", fails=True)
    assert "ablations.rank_4.lorm: rnk: unknown key; did you mean 'rank'?" in said


def test_a_job_for_an_unknown_value_is_refused(monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(Exception, match="run: 'rpa' is not in the list; did you mean 'rap'"):
        Job(load(), "train", {"variant": "rpa", "seed": 0})
