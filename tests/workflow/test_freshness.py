"""A change is never missed, and runs nothing that it does not concern: whichever engine ran, whichever is asked."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from clones import clone, edit, run
from engines import planned

pytestmark = pytest.mark.engine

INSTALLED = ("--old-file", ".venv/installed")  # the clones use the packages that the tests use
WEIGHTS = "data/my-weights.safetensors"
RUNS = {f"rap {stage} --variant {name} --seed 0" for stage in ("train", "evaluate") for name in ("ssf", "lorm", "rap")}
REPORT = {"rap report"}
TABLES = {"rap table --table table1", "rap table --table table2"} | REPORT
FEATURES = {f"rap features --cache {cache} --shard {k}" for cache in ("video-0", "text-ids") for k in (0, 1)}
FRAMES = {f"rap frames --shard {k}" for k in (0, 1)}
LORM = {
    "rap train --variant lorm --seed 0",
    "rap evaluate --variant lorm --seed 0",
    "rap table --table table1",
} | REPORT


def rewrite(file: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / file).read_text()
        assert old in text, file
        (folder / file).write_text(text.replace(old, new, 1))

    return change


def add(file: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_text(text)


def together(*changes: Callable[[Path], None]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for one in changes:
            one(folder)

    return change


def set_rank(folder: Path) -> None:
    edit(folder, lambda params: params["variants"]["lorm"]["lorm"].update(rank=3))


def set_label(folder: Path) -> None:
    edit(folder, lambda params: params["tracking"].update(uri="sqlite:///other.db"))


def replace_weights(folder: Path) -> None:
    """Other weights under the same name."""
    from safetensors.torch import load_file, save_file

    state = load_file(folder / WEIGHTS)
    state["visual.conv1.weight"] *= 1.5
    save_file(state, folder / WEIGHTS)


# What changes, and the jobs that must run, no more and no fewer.
CHANGES = {
    "a parameter of one variant": (set_rank, LORM),
    "a parameter that no result depends on": (set_label, set()),
    "the arithmetic of the towers": (
        rewrite("src/rap/clip/plain.py", "x = self.conv1(", "x = 1.5 * self.conv1("),
        {"rap backbone"} | FRAMES | FEATURES | RUNS | TABLES,
    ),
    "the training": (rewrite("src/rap/training/optimiser.py", "0.5 * (1 +", "0.4 * (1 +"), RUNS | TABLES),
    "the method of one variant": (
        rewrite("src/rap/adapters/ssf.py", "clip.text, ssf.sites)", "clip.text, ssf.sites[:1])"),
        {job for job in RUNS if "ssf" in job} | TABLES,
    ),
    "a file beside a module that reads it": (rewrite("src/rap/report/page/report.html", "lang=", "class="), REPORT),
    "an input under its old name": (replace_weights, {"rap backbone"} | FRAMES | FEATURES | RUNS | TABLES),
    "what no result of these depends on": (
        together(
            rewrite("src/rap/adapters/lorm.py", '"""LoRM:', '"""LoRM, which is:'),  # a docstring
            rewrite("src/rap/training/loop.py", "    model.train()\n", "    model.train()  # once\n"),
            rewrite("src/rap/adapters/vpt.py", "sqrt(6", "sqrt(7"),  # a method that no variant uses
            rewrite("src/rap/report/methods.py", "of CLIP", "of it"),  # a view of the methods
            add("src/rap/adapters/new.py", "X = 1\n"),
            add("src/rap/data/datasets/new.py", "X = 1\n"),
        ),
        set(),
    ),
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> dict[str, Path]:
    """Clones by what ran in them: Snakemake alone, Snakemake followed by `make sync`, and DVC.

    DVC finds the results that Snakemake made, without Snakemake's own files, so that its stages need not compute them.
    """
    folder = clone(tmp_path_factory.mktemp("snakemake"))
    (folder / "data").mkdir()
    for end in ("safetensors", "json"):
        shutil.copy(folder / f"src/rap/demo/demo-vit.{end}", (folder / WEIGHTS).with_suffix(f".{end}"))
    edit(folder, lambda params: params["backbone"].update(weights=WEIGHTS))
    run(folder, "snakemake", "--cores", "2", "all")
    bare = copy(folder, folder.with_name("bare"))
    shutil.rmtree(bare / ".snakemake")
    both = copy(folder, folder.with_name("both"))
    run(both, "make", "sync", *INSTALLED)
    run(bare, "dvc", "repro")
    return {"snakemake": folder, "dvc": bare, "snakemake, then sync": both}


def copy(folder: Path, target: Path) -> Path:
    return Path(shutil.copytree(folder, target, symlinks=True))


LATER = {  # DVC plans these when a job before them has written other files; their own parameters and code are as before
    "the arithmetic of the towers": FRAMES,
    "the training": {job for job in RUNS if "evaluate" in job} | REPORT,
    "the method of one variant": REPORT,
    "an input under its old name": FRAMES | FEATURES | RUNS | TABLES,
}
KINDS = (
    "a parameter of one variant",
    "the training",
    "an input under its old name",
    "what no result of these depends on",
)
CASES = [("dvc", what) for what in CHANGES] + [
    (ran, what) for ran in ("snakemake", "snakemake, then sync") for what in KINDS
]


@pytest.mark.parametrize(("engine", "what"), CASES)
def test_a_change_is_never_missed_and_concerns_no_other_job(ran, tmp_path, engine, what):
    """After Snakemake alone, DVC has no list of its own: it runs everything, and the stages answer "up to date".

    Else DVC names exactly the jobs whose own parameters, code or inputs changed; the others follow.
    """
    change, concerned = CHANGES[what]
    folder = copy(ran[engine], tmp_path / "clone")
    change(folder)
    assert planned(folder, "snakemake") == concerned
    if engine == "snakemake":
        assert planned(folder, "dvc") >= concerned
    else:
        assert planned(folder, "dvc") == concerned - LATER.get(what, set())


def test_a_dry_run_writes_nothing(ran, tmp_path):
    folder = copy(ran["dvc"], tmp_path / "clone")
    set_rank(folder)
    before = {path: path.stat().st_mtime_ns for path in tracked(folder)}
    for options in (("--dry-run",), ("--lint",), ("--dag",)):
        run(folder, "snakemake", "--cores", "1", *options)
    assert {path: path.stat().st_mtime_ns for path in tracked(folder)} == before


def tracked(folder: Path) -> list[Path]:
    """Every file but Snakemake's own and compiled Python."""
    skipped = {".snakemake", "__pycache__", ".git"}
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and not skipped & set(path.parts)]


def test_dvc_yaml_that_does_not_fit_params_yaml_is_one_line(ran, tmp_path):
    folder = copy(ran["dvc"], tmp_path / "clone")
    rewrite("params.yaml", "    - rap\n    baseline: ssf", "    baseline: ssf")(folder)
    said = run(folder, "dvc", "repro", fails=True)
    assert "dvc.yaml: does not fit params.yaml any more; run `rap graph --write`" in said
