"""Provenance: what the digest of code sees, what makes a result stale, and that no damage passes for a number."""

from pathlib import Path

import do
import pytest
import tiny
import yaml
from sealed import damage

from rap import params as parameters
from rap import paths, provenance, verify
from rap.errors import UserError
from rap.jobs import Job, jobs
from rap.provenance import Provenance, Record

CACHED = (provenance.code, provenance.closure, provenance._imports, provenance._tree, provenance._syntax)


def forget() -> None:
    for function in CACHED:
        function.cache_clear()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An empty package in place of rap; returns a function that writes a module and forgets what was read before."""
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path / "pack")

    def write(name: str, text: str = "") -> None:
        file = tmp_path / "pack" / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        forget()

    write("__init__")
    yield write
    forget()


CODE = '"""A module."""\nLIMIT = 3\n\n\ndef double(x=2):\n    """Twice x."""\n    return 2 * x\n'


@pytest.mark.parametrize(
    ("old", "new", "seen"),
    [
        ("A module", "Another text", False),
        ("Twice x", "x, twice", False),
        ("LIMIT = 3", "LIMIT = 3  # why", False),
        ("\n\n\ndef", "\n\n\n\n# a remark\ndef", False),
        ("2 * x", "(2 * x)", False),
        ("LIMIT = 3", "LIMIT = 4", True),
        ("x=2", "x=3", True),
        ("2 * x", "x * 2", True),
        ("def double", "@staticmethod\ndef double", True),
    ],
)
def test_the_digest_of_code_sees_what_runs_and_nothing_else(package, old, new, seen):
    package("a", CODE)
    before = provenance.code("pack.a")
    assert old in CODE
    package("a", CODE.replace(old, new))
    assert (provenance.code("pack.a") != before) == seen


def test_the_closure_follows_every_import_that_can_run_and_no_other(package):
    text = "from typing import TYPE_CHECKING\nimport pack.b\nfrom pack import c\nfrom . import d\nimport numpy\n"
    text += "def f():\n    from pack.sub.e import g\nif TYPE_CHECKING:\n    from pack import unused\n"
    package("a", text)
    for name in ("b", "c", "d", "sub/__init__", "sub/e", "unused", "beside"):
        package(name)
    found = set(provenance.closure("pack.a"))
    assert found == {"pack", "pack.a", "pack.b", "pack.c", "pack.d", "pack.sub", "pack.sub.e"}


def test_a_training_depends_on_its_own_method_and_on_no_report(monkeypatch):
    monkeypatch.chdir(tiny.ROOT)
    job = Job(parameters.load(), "train", {"variant": "lorm", "seed": 0})
    found = provenance.closure(job.about.module, *job.about.plugins(job.params, job.item))
    assert {"rap.adapters.lorm", "rap.clip.towers", "rap.shards", "rap.retrieval.loss"} <= found.keys()
    others = ("rap.adapters.vpt", "rap.adapters.asa", "rap.report", "rap.frames", "rap.cli", "rap.stages", "rap.jobs")
    assert not [name for name in found if name.startswith(others) and not name.startswith("rap.clip")]


def test_no_flipped_byte_of_a_record_passes(tmp_path):
    record = Record("train", {"seed": 0}, Provenance("p", "c", {"a": "b"}), "content", {"f": "0"}, {"steps": 3})
    file = tmp_path / "run.json"
    record.write(file)
    assert Record.read(file) == record
    for offset in range(0, file.stat().st_size - 1, 5):
        damage(file, offset)
        with pytest.raises(UserError, match=r"run.json: damaged"):
            Record.read(file)
        damage(file, offset)
    assert Record.read(file) == record


@pytest.fixture
def project(tmp_path, monkeypatch) -> parameters.Params:
    monkeypatch.chdir(tmp_path)
    settings = tiny.project(tmp_path)
    tiny.cache(settings)
    do.train(settings, "ssf", 0)
    do.evaluate(settings, "ssf", 0)
    return settings


def changed(**sections) -> parameters.Params:
    """params.yaml with changes, without touching any result."""
    values = yaml.safe_load(Path("params.yaml").read_text())
    for path, value in sections.items():
        *parents, key = path.split("__")
        place = values
        for parent in parents:
            place = place[parent]
        place[key] = value
    Path("params.yaml").write_text(yaml.safe_dump(values))
    return parameters.load()


@pytest.mark.parametrize(
    "change",
    [
        {"variants__ssf__label": "another label"},
        {"variants__lora__lora": {"rank": 2}},
        {"variants__lora__train": {"lr": 0.5}},
        {"tracking__uri": "sqlite:///other.db"},
        {"runtime__workers": 7},
        {"evaluation__bank": 7},
    ],
)
def test_what_a_training_does_not_depend_on_leaves_it_alone(project, change):
    assert "up to date" in do.train(changed(**change), "ssf", 0)


@pytest.mark.parametrize(
    "change",
    [{"variants__ssf__ssf": {"sites": ["qkv"]}}, {"train__lr": 0.5}, {"variants__ssf__train": {"epochs": 1}}],
)
def test_a_parameter_of_a_training_trains_again_and_stops_what_follows(project, change):
    settings = changed(**change)
    with pytest.raises(UserError, match=r"run.json: made with other parameters; run `rap train --variant ssf"):
        do.evaluate(settings, "ssf", 0)
    assert "steps" in do.train(settings, "ssf", 0)
    assert "up to date" in do.train(settings, "ssf", 0)


def test_other_source_code_makes_everything_stale_that_runs_it(project, monkeypatch):
    real = provenance.code
    other = lambda *modules: real(*modules) + ("2" if "rap.features.stage" in modules else "")  # noqa: E731
    monkeypatch.setattr(provenance, "code", other)
    with pytest.raises(UserError, match=r"shard-0.json: made by other source code; run `rap features"):
        do.train(project, "lora", 0)
    assert " 4 computed" in do.features(project, "video-0", 0)


DAMAGED = {
    "frames/shard-0.npy": "rap frames --shard 0",
    "frames/shard-1.parquet": "rap frames --shard 1",
    "features/video-0/shard-0.npy": "rap features --cache video-0 --shard 0",
    "features/text-ids/shard-1.json": "rap features --cache text-ids --shard 1",
    "manifest/captions.parquet": "rap download",
    "weights.safetensors": "rap backbone",
    "adapter.safetensors": "rap train --variant ssf --seed 0",
    "metrics.json": "rap evaluate --variant ssf --seed 0",
    "ranks.parquet": "rap evaluate --variant ssf --seed 0",
    "similarity.npy": "rap evaluate --variant ssf --seed 0",
}


def test_verify_names_every_damaged_file_with_the_command_that_mends_it(project):
    assert "undamaged" in verify.run(project)
    for name, command in DAMAGED.items():
        (file,) = [path for path in Path().rglob(Path(name).name) if str(path).endswith(name)]
        offset = file.stat().st_size - 40
        damage(file, offset)
        with pytest.raises(UserError, match=rf"{name}.*: damaged.*; run `{command}`"):
            verify.run(project)
        damage(file, offset)
    assert "undamaged" in verify.run(project)


def test_a_stage_mends_its_damaged_result_and_stops_at_a_damaged_input(project):
    adapter = paths.run("ssf", 0) / "adapter.safetensors"
    before = adapter.read_bytes()
    for offset in range(60):
        damage(adapter, adapter.stat().st_size - 100 + offset)
    with pytest.raises(UserError, match=r"adapter.safetensors: damaged"):
        (paths.run("ssf", 0) / "evaluation.json").unlink()
        do.evaluate(project, "ssf", 0)
    assert "steps" in do.train(project, "ssf", 0) and adapter.read_bytes() == before
    damage(f"{paths.features(project.dataset.name, 'video-0', 0)}.npy", offset=200)  # in the row of a training video
    with pytest.raises(UserError, match=r"video-0/shard-0.npy: a row is damaged"):
        do.train(project, "lora", 0)
    assert " 1 computed" in do.features(project, "video-0", 0)
    assert "steps" in do.train(project, "lora", 0)


def test_a_missing_input_is_named_with_its_command(project):
    Path(f"{paths.features(project.dataset.name, 'video-0', 0)}.json").unlink()
    with pytest.raises(UserError, match=r"video-0/shard-0.json: not there"):
        do.train(project, "lora", 0)


def test_every_record_belongs_to_one_job(project):
    records = [job.record for job in jobs(project)]
    assert len(records) == len(set(records))
