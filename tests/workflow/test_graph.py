"""The two descriptions of the pipeline: that they agree, miss nothing that a stage reads, and refuse bad parameters."""

import json
from pathlib import Path

import pytest
import yaml
from clones import ROOT, clone, edit, run
from workflow_graphs import by_dvc, by_snakemake, imported

pytestmark = pytest.mark.engine

MODULES = {
    "download": "rap.download.stage",
    "backbone": "rap.clip.backbone",
    "frames": "rap.frames.stage",
    "features": "rap.features.stage",
    "train": "rap.training.stage",
    "evaluate": "rap.evaluation.stage",
    "table": "rap.report.table",
}
PLUMBING = {  # sets up, says, writes, reports; what a result is does not depend on them
    f"src/rap/{name}.py" for name in ("__init__", "errors", "files", "tracking")
}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """The project with the parameters that it ships with."""
    return clone(tmp_path_factory.mktemp("project"), small=False)


@pytest.fixture(scope="module")
def graphs(project):
    return by_dvc(project), by_snakemake(project)


def covers(path: str, name: str) -> bool:
    """Whether DVC's dependency `path`, a file or a folder, holds the file `name`."""
    return name == path or name.startswith(path.rstrip("/") + "/")


def before(command: str, graph: dict) -> set[str]:
    """A job and all that must be done before it."""
    found, waiting = set(), {command}
    while waiting:
        found |= waiting
        read = {path for name in waiting for path in graph[name].inputs}
        made_by = {
            name for name, job in graph.items() if any(covers(path, out) for path in read for out in job.outputs)
        }
        waiting = made_by - found
    return found


def test_both_engines_have_the_same_jobs(graphs):
    dvc, snakemake = graphs
    assert dvc.keys() == snakemake.keys()
    for command, job in dvc.items():
        assert job.outputs == snakemake[command].outputs, command
        assert job.keys == snakemake[command].keys, command


def test_both_engines_wait_for_the_same_files(graphs):
    """In Snakemake, a job also has the source files of the jobs before it as inputs."""
    dvc, snakemake = graphs
    for command, job in dvc.items():
        files = snakemake[command].inputs
        assert [path for path in job.inputs if not any(covers(path, file) for file in files)] == [], command
        extra = {file for file in files if not any(covers(path, file) for path in job.inputs)}
        source = {path for name in before(command, dvc) for path in dvc[name].inputs if path.startswith("src/")}
        assert [file for file in extra if not any(covers(path, file) for path in source)] == [], command


def test_a_job_of_snakemake_sees_what_every_job_before_it_sees(graphs):
    """So that a failed job leaves nothing behind it that looks up to date."""
    dvc, snakemake = graphs
    for command, job in snakemake.items():
        for name in before(command, dvc):
            assert {file for file in snakemake[name].inputs if file.startswith("src/")} <= job.inputs, (command, name)
            assert snakemake[name].keys <= job.watched, (command, name)


def test_every_module_that_a_stage_imports_is_among_its_inputs(graphs):
    for command, job in graphs[1].items():
        stage = command.split()[1]
        read = imported(MODULES[stage], ROOT / "src")
        needed = {str(file.relative_to(ROOT)) for file in read} - PLUMBING
        assert needed <= job.inputs, f"add to dvc.yaml: stages.{stage}.deps"


def test_every_table_has_its_job_in_both_engines(graphs):
    tables = {f"rap table --table {name}" for name in yaml.safe_load((ROOT / "params.yaml").read_text())["tables"]}
    for graph in graphs:
        assert {command for command in graph if "table" in command} == tables, "dvc.yaml: stages.table.matrix.number"


def test_snakefiles_are_linted_and_formatted(project):
    assert "good condition" in run(project, "snakemake", "--lint")
    run(project, "snakefmt", "--check", "Snakefile", "workflow/rules")


def test_a_typo_in_params_yaml_is_one_clear_line_of_snakemake(project, tmp_path):
    typo = clone(tmp_path)
    edit(typo, lambda params: params["train"].update(epoch=3))
    said = run(typo, "snakemake", "--dry-run", fails=True)
    assert "params.yaml: train.epoch: unknown key; did you mean 'epochs'?" in said
    assert "Traceback" not in said


def test_the_ablations_have_the_stages_of_the_default_run():
    """workflow/ablations/dvc.yaml repeats dvc.yaml's last stages, over `ablations` in place of `variants`."""
    whole, part = (
        yaml.safe_load((ROOT / name).read_text())["stages"] for name in ("dvc.yaml", "workflow/ablations/dvc.yaml")
    )
    for name, stage in part.items():
        assert stage.pop("wdir") == "../.."
        if name == "table":
            assert set(whole[name]["matrix"]["number"]).isdisjoint(stage["matrix"].pop("number"))
            whole[name]["matrix"].pop("number")
            stage["deps"].remove("results/ablations/")
            stage["params"].remove("ablations")
        else:
            stage["params"].remove("variants")
            text = json.dumps(stage).replace("ablations", "variants").replace("results/variants", "results/runs")
            stage = json.loads(text)
        assert stage == whole[name], name
