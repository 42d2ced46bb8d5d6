"""Provenance: what counts as source code, what a record promises, when a job runs, and what it refuses."""

import dataclasses
import re
import shutil
from pathlib import Path

import do
import numpy as np
import pytest
from sealed import damage

from rap import paths, provenance, verify
from rap.data.registry import videos_folder
from rap.errors import UserError
from rap.files import digest_file, write_checked
from rap.jobs import Job
from rap.params import Params, Variant
from rap.provenance import Provenance, Record
from rap.search.library import Library
from rap.shards import Item, Shard, build, seal

CACHED = (
    provenance.code,
    provenance.closure,
    provenance._imports,
    provenance._tree,
    provenance._syntax,
    provenance._data,
)
WORK = "@mark\ndef work(value=1):\n    return value + 2\n"
D, B, RUN = "data/demo", "data/backbones/demo-vit", "results/runs/lorm/seed-0"


def forget() -> None:
    for function in CACHED:
        function.cache_clear()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """`package({"toy/a.py": text})` writes files; the folder toy is the package that provenance looks into."""
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path / "toy")

    def write(files: dict[str, str]) -> None:
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        forget()

    write({"toy/__init__.py": ""})
    yield write
    forget()


def code_of(package, text: str) -> str:
    package({"toy/a.py": text})
    return provenance.code("toy.a")


@pytest.mark.parametrize(
    "text",
    [
        "# why\n\n@mark  # how\ndef work(value=1):\n    # what\n    return value + 2\n",
        '"""A module."""\n@mark\ndef work(value=1):\n    """Do it."""\n    return value + 2\n',
        "\n\n\n@mark\ndef work(\n    value=1,\n):\n\n    return (value\n            + 2)\n",
    ],
    ids=["comments", "docstrings", "layout"],
)
def test_comments_docstrings_and_layout_are_not_code(package, text):
    assert code_of(package, text) == code_of(package, WORK)


@pytest.mark.parametrize(
    ("old", "new"), [("+ 2", "+ 3"), ("value=1", "value=2"), ("@mark", "@other"), ("+ 2", "+ 2.0")]
)
def test_constants_defaults_and_decorators_are_code(package, old, new):
    assert code_of(package, WORK.replace(old, new)) != code_of(package, WORK)


def test_a_file_beside_a_module_counts_if_the_module_names_it(package):
    named = 'from importlib.resources import files\npage = files("toy") / "page.html"\n'
    package({"toy/page.html": "<p>", "toy/other.html": "<p>"})
    before = code_of(package, named)
    package({"toy/other.html": "<h1>"})
    assert code_of(package, named) == before
    package({"toy/page.html": "<h1>"})
    assert code_of(package, named) != before


def test_code_is_that_of_the_imported_modules_too(package):
    package({"toy/b.py": "x = 1", "toy/unused.py": "x = 1"})
    before = code_of(package, "from toy.b import x")
    package({"toy/unused.py": "x = 2"})
    assert provenance.code("toy.a") == before
    package({"toy/b.py": "x = 2"})
    assert provenance.code("toy.a") != before


IMPORTS = """
import json
import toy.plain
from typing import TYPE_CHECKING
from elsewhere import thing
from toy import packaged
from . import sibling
from .deep.inner import name

if TYPE_CHECKING:
    from toy import typed
else:
    from toy import untyped


def work():
    if name:
        from toy.nested import x
"""


def test_the_closure_follows_every_import_of_the_package_and_nothing_else(package):
    names = ("plain", "packaged", "sibling", "typed", "untyped", "nested", "up", "parent", "beside", "deep/beside")
    package({f"toy/{name}.py": "" for name in names} | {"elsewhere.py": "from toy import beside"})
    package({"toy/deep/__init__.py": "from .. import parent", "toy/deep/inner.py": "from ..up import name"})
    package({"toy/a.py": IMPORTS})
    found = ["a", "deep", "deep.inner", "nested", "packaged", "parent", "plain", "sibling", "untyped", "up"]
    assert list(provenance.closure("toy.a")) == ["toy", *(f"toy.{name}" for name in found)]


def test_the_code_of_a_training_is_its_method_and_no_other():
    forget()
    found = set(provenance.closure("rap.training.stage", "rap.adapters.lorm"))
    assert {"rap.adapters.lorm", "rap.clip.towers", "rap.training.loop"} <= found
    others = {
        "rap.adapters.vpt",
        "rap.cli",
        "rap.stages",
        "rap.jobs",
        "rap.runtime.monitor",
        "rap.runtime.mlflow_settings",
    }
    assert not found & others and not [name for name in found if name.startswith(("rap.report", "rap.frames"))]


@pytest.mark.parametrize("values", [{}, {"format": 1}, {"format": 1, "digest": "", "provenance": None}])
def test_a_record_whose_checksum_is_right_and_whose_content_is_not_is_refused(tmp_path, values):
    write_checked(tmp_path / "run.json", values)
    with pytest.raises(UserError, match=r"run\.json: damaged, or of another version"):
        Record.read(tmp_path / "run.json")


def test_a_record_that_is_nested_too_deeply_is_refused(tmp_path):
    (tmp_path / "run.json").write_text("[" * 200_000)
    with pytest.raises(UserError, match=r"run\.json: damaged, or of another version"):
        Record.read(tmp_path / "run.json")


def test_a_record_with_any_damaged_byte_is_refused(tmp_path):
    file = tmp_path / "run.json"
    record = Record("train", {"seed": 0}, Provenance("p", "c", {"a": "1"}), "x", {"f": "2"}, {"rate": 0.1, "ü": None})
    record.write(file)
    assert Record.read(file) == record
    whole = file.read_bytes()
    for place in range(0, len(whole), 7):
        damage(file, place)
        with pytest.raises(UserError, match=r"run\.json: damaged"):
            Record.read(file)
        file.write_bytes(whole)
    for size in range(0, len(whole) - 1, 7):
        file.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"run\.json: damaged"):
            Record.read(file)


@pytest.fixture
def project(copied) -> Params:
    return copied


def changed(params: Params, section: str, **keys) -> Params:
    return params.model_copy(update={section: getattr(params, section).model_copy(update=keys)})


def varied(params: Params, variant: str, **keys) -> Params:
    values = params.variants[variant].model_dump() | keys
    return params.model_copy(
        update={"variants": params.variants | {variant: Variant(**values)}, "run": tuple({*params.run, variant})}
    )


def trains(params: Params) -> bool:
    """Whether the training of lorm runs; afterwards it is up to date."""
    ran = "up to date" not in do.train(params, "lorm", 0)
    assert "up to date" in do.train(params, "lorm", 0)
    return ran


def rewrite(params: Params, shard: int) -> None:
    """Black frames in the first row of a shard."""
    stem = paths.frames(params.dataset.name, shard)
    old = Shard.read(stem)
    keys = dict(zip(old.index.id, old.index.key, strict=True))
    first = next(iter(keys))
    job = Job(params, "frames", {"shard": shard}, read=Record.read(f"{stem}.json").provenance.inputs)
    black = Item(first, np.zeros_like(old.array[0]), params.frames.count)
    seal(build(stem, keys | {first: "black"}, old.array.shape[1:], "uint8", lambda _: [black])[0], job.result)


def test_a_fresh_result_is_left_alone(project):
    before = {file: file.stat().st_mtime_ns for file in Path().rglob("*") if file.is_file()}
    assert not trains(project)
    for said in (do.features(project, "video-0", 0), do.evaluate(project, "ssf", 0), do.table(project, "table1")):
        assert said.endswith(": up to date")
    assert {file: file.stat().st_mtime_ns for file in Path().rglob("*") if file.is_file()} == before


@pytest.mark.parametrize(
    "change",
    [
        lambda params: changed(params, "train", weight_decay=0.5),
        lambda params: varied(params, "lorm", lorm={"rank": 3}),
        lambda params: varied(params, "lorm", train={"lr": 0.5}),
    ],
    ids=["train.weight_decay", "an option", "an own train.lr"],
)
def test_a_changed_parameter_of_the_job_runs_it_again(project, change):
    assert trains(change(project))


@pytest.mark.parametrize(
    "change",
    [
        lambda params: varied(params, "lorm", label="Another"),
        lambda params: changed(params, "tracking", uri="sqlite:///other.db"),
        lambda params: changed(params, "runtime", workers=7),
        lambda params: varied(params, "ssf", train={"lr": 0.5}),
        lambda params: varied(params, "ssf", adapter="lora", lora={"rank": 2}),
    ],
    ids=["label", "tracking.uri", "runtime.workers", "another's train", "another's options"],
)
def test_what_the_result_does_not_depend_on_runs_nothing(project, change):
    assert not trains(change(project))


def test_changed_source_code_runs_the_stage_again(project, monkeypatch):
    real = provenance.code
    monkeypatch.setattr(provenance, "code", lambda *m: "new" if "rap.training.stage" in m else real(*m))
    assert trains(project)
    assert "up to date" in do.features(project, "video-0", 0)


def test_a_changed_input_is_refused_until_it_is_made_and_then_runs_the_stage_again(project):
    rewrite(project, 0)
    for cache in ("video-0", "video-1"):
        assert " 1 computed" in do.features(project, cache, 0)
    assert trains(project)


def test_a_damaged_adapter_and_a_deleted_output_are_made_again_with_the_same_bytes(project):
    files = [*paths.run("lorm", 0).trained, paths.run("lorm", 0).record]
    before = [digest_file(file) for file in files]
    damage(files[0], count=60)
    assert trains(project) and [digest_file(file) for file in files] == before
    files[1].unlink()
    assert trains(project) and [digest_file(file) for file in files] == before
    assert "up to date" in do.evaluate(project, "lorm", 0), "the content is that of before"


def test_a_damaged_row_is_computed_again_and_nothing_that_reads_it(project):
    damage(f"{D}/features/video-0/shard-0.npy", count=3)
    assert " 1 computed" in do.features(project, "video-0", 0)
    assert not trains(project)


SHARD, AGAIN = f"{D}/features/video-0/shard-1", "run `rap features --cache video-0 --shard 1`"


@pytest.mark.parametrize(
    ("hurt", "file", "message"),
    [
        (Path.unlink, f"{SHARD}.json", f"shard-1.json: not there; {AGAIN} first"),
        (damage, f"{SHARD}.json", f"shard-1.json: damaged; {AGAIN} first"),
        (Path.unlink, f"{SHARD}.npy", f"shard-1.npy is missing; {AGAIN} first"),
        (damage, f"{SHARD}.parquet", f"shard-1.parquet: damaged; {AGAIN}"),
        (lambda file: damage(file, 200), f"{SHARD}.npy", "shard-1.npy: a row is damaged; `rap verify` names"),
        (Path.unlink, f"{D}/manifest/manifest.json", "manifest.json: not there; run `rap download` first"),
        (damage, f"{D}/manifest/manifest.json", "manifest.json: damaged; run `rap download` first"),
        (damage, f"{D}/manifest/captions.parquet", "captions.parquet: damaged; run `rap download`"),
        (Path.unlink, f"{B}/backbone.json", "backbone.json: not there; run `rap backbone` first"),
        (damage, f"{B}/weights.safetensors", "weights.safetensors: damaged; run `rap backbone`"),
    ],
)
def test_a_training_refuses_a_missing_or_damaged_input_with_the_command_that_makes_it(project, hurt, file, message):
    hurt(Path(file))
    Path(RUN, "run.json").unlink()
    with pytest.raises(UserError, match=re.escape(message)) as error:
        do.train(project, "lorm", 0)
    assert "\n" not in str(error.value)
    assert not Path(RUN, "run.json").exists()


def test_a_stage_refuses_a_stale_input_however_far_back(project):
    rewrite(project, 1)
    for stage in (lambda: do.train(project, "lorm", 0), lambda: do.table(project, "table1")):
        with pytest.raises(
            UserError, match=r"made from another version of data/demo/frames/shard-1\.json.*; run `rap "
        ):
            stage()
    other = changed(project, "train", weight_decay=0.5)
    said = "run.json: made with other parameters; run `rap train --variant lorm --seed 0` first"
    with pytest.raises(UserError, match=re.escape(said)):
        do.evaluate(other, "lorm", 0)


def test_an_evaluation_refuses_a_damaged_adapter(project):
    damage(f"{RUN}/adapter.safetensors", count=60)
    Path(RUN, "evaluation.json").unlink()
    with pytest.raises(UserError, match=r"adapter\.safetensors: (damaged|not an adapter of rap).*`rap train"):
        do.evaluate(project, "lorm", 0)


def test_verify_passes_on_fresh_results(project):
    assert verify.run(project) == (
        "verify: 15 results are undamaged, and made with the present parameters, code and inputs"
    )


def test_verify_checks_the_bytes_of_results_that_params_yaml_does_not_list(project):
    for folder, other in ((D, "data/old"), (B, "data/backbones/old"), ("results/runs/lorm", "results/runs/old")):
        shutil.copytree(folder, other)
    count = 1 + len(project.shards) * (1 + len(project.features.caches)) + 1 + 2  # manifest, shards, backbone, run
    assert verify.run(project).endswith(f"; {count} results that params.yaml does not list are undamaged")
    for file in (
        "data/old/frames/shard-0.npy",
        "data/backbones/old/config.json",
        "results/runs/old/seed-0/ranks.parquet",
    ):
        damage(file, 200)
    with pytest.raises(UserError, match=r"verify: 3 results are damaged") as error:
        verify.run(project)
    lines = str(error.value).splitlines()[1:]
    assert all(line.endswith("its result is damaged, and params.yaml does not list it; remove it") for line in lines)
    assert [line.split("/")[2 if "data/old" not in line else 1] for line in lines] == ["old", "old", "old"]


def test_verify_checks_tables_costs_indexes_and_videos_beyond_the_present_jobs(project):
    Library.open(project, "lorm")
    shutil.copytree(f"{D}/index", "data/old/index")
    for file in Path("results").glob("table1.*"):
        shutil.copy(file, f"results/other{file.suffix}")
    record = Record.read("results/table1.json")
    names = {name.replace("table1", "other"): sha for name, sha in record.files.items()}
    dataclasses.replace(record, item={"table": "other"}, files=names).write("results/other.json")
    video = videos_folder(project) / "v0.mp4"
    video.parent.mkdir(parents=True, exist_ok=True)
    assert "undamaged" in verify.run(project)
    video.write_bytes(b"another video than the manifest's")
    (index,) = Path("data/old/index").glob("*.npy")
    for file in (index, "results/other.csv", f"{RUN}/costs.json"):
        damage(file, count=3)
    with pytest.raises(UserError) as error:
        verify.run(project)
    assert sorted(line.partition(":")[0] for line in str(error.value).splitlines()[1:]) == sorted(
        [str(index.with_suffix(".json")), "results/other.json", f"{RUN}/costs.json", str(video)]
    )


def test_verify_checks_the_index_of_a_search(project):
    Library.open(project, "lorm")
    (index,) = Path(D, "index").glob("*.npy")
    damage(index, count=3)
    record = index.with_suffix(".json")
    with pytest.raises(
        UserError, match=rf"verify: 1 results .*\n{re.escape(str(record))}: its rows are damaged; remove it"
    ):
        verify.run(project)
    record.unlink()
    Library.open(project, "lorm")
    assert "undamaged" in verify.run(project)


def test_verify_passes_on_tables_that_git_brought_without_their_runs(project, monkeypatch):
    """As in a clone. A damaged table, and one whose runs have other code or parameters now, is still an error."""
    for folder in ("data", "results/runs"):
        shutil.rmtree(folder)
    assert verify.run(project) == (
        "verify: 0 results are undamaged, and made with the present parameters, code and inputs; "
        "1 tables are undamaged, but their runs are not on this machine"
    )
    for other in (
        project.model_copy(update={"seeds": (0, 1)}),
        varied(project, "lorm", lorm={"rank": 3}),
        changed(project, "train", weight_decay=0.5),
        changed(project, "frames", sampler="fps"),
    ):
        with pytest.raises(UserError, match=r"results/table1\.json: made with other parameters; run `rap table"):
            verify.run(other)
    real = provenance.code
    with monkeypatch.context() as patch:
        patch.setattr(provenance, "code", lambda *m: "new" if "rap.training.stage" in m else real(*m))
        with pytest.raises(UserError, match=r"results/table1\.json: made with other parameters; run `rap table"):
            verify.run(project)
    damage("results/table1.md", count=3)
    with pytest.raises(UserError, match=r"results/table1\.md: damaged; run `rap table --table table1`"):
        verify.run(project)


@pytest.mark.parametrize(
    ("file", "command"),
    [
        (f"{D}/frames/shard-1.npy", "frames --shard 1"),
        (f"{D}/features/text-ids/shard-0.parquet", "features --cache text-ids --shard 0"),
        (f"{D}/features/video-0/shard-0.npy", "features --cache video-0 --shard 0"),
        (f"{D}/manifest/videos.parquet", "download"),
        (f"{B}/weights.safetensors", "backbone"),
        (f"{RUN}/adapter.safetensors", "train --variant lorm --seed 0"),
        (f"{RUN}/ranks.parquet", "evaluate --variant lorm --seed 0"),
        (f"{RUN}/similarity.npy", "evaluate --variant lorm --seed 0"),
        (f"{RUN}/figures.json", "evaluate --variant lorm --seed 0"),
        (f"{RUN}/run.json", "train --variant lorm --seed 0"),
        (f"{D}/frames/shard-0.json", "frames --shard 0"),
        ("results/table1.md", "table --table table1"),
    ],
)
def test_verify_names_a_damaged_file_with_the_command_that_mends_it(project, file, command):
    damage(file, count=3)
    with pytest.raises(UserError) as error:
        verify.run(project)
    head, *lines = str(error.value).splitlines()
    assert re.fullmatch(r"verify: \d+ results are damaged or stale:", head)
    assert any(re.fullmatch(rf"{re.escape(file)}( \(.*\))?: damaged; run `rap {command}`", line) for line in lines)
    wrong = [line for line in lines if ": damaged; run" in line]
    assert len(wrong) == 1, "no other file is damaged"
