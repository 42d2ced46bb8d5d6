"""The files that say what to install agree, the lock names no host, and extras are optional."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import random_clip
import yaml
from clones import ROOT, clone, edit
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHONS = ("3.11", "3.12", "3.13")
EXTRAS = PROJECT["optional-dependencies"]
LOCKED = Requirement(EXTRAS["all"][0]).extras  # what `make install` installs
ENGINES = ("dvc", "snakemake", "mlflow")


def locked(python: str) -> dict[str, str]:
    """The lock's versions by name, for Linux and a version of Python."""
    lines = (line for line in (ROOT / "requirements.lock").read_text().splitlines() if re.match(r"\w", line))
    pins = [Requirement(line) for line in lines]
    here = default_environment() | {"python_version": python, "python_full_version": f"{python}.0"}
    chosen = [pin for pin in pins if pin.marker is None or pin.marker.evaluate(here)]
    return {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in chosen}


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_satisfies_every_range_of_pyproject(python):
    pins = locked(python)
    extras = [text for name in LOCKED for text in EXTRAS[name]]
    for text in PROJECT["dependencies"] + extras:
        wanted = Requirement(text)
        assert wanted.specifier.contains(pins[canonicalize_name(wanted.name)]), f"{wanted}: make the lock again"


def test_the_extra_all_is_everything_but_what_slows_or_competes():
    assert {"all", *LOCKED, "bench", "docs", "hub", "slurm"} == EXTRAS.keys()


def test_the_base_has_no_engine():
    base = {canonicalize_name(Requirement(text).name) for text in PROJECT["dependencies"]}
    assert base.isdisjoint({*ENGINES, "yt-dlp"})
    names = {extra: {canonicalize_name(Requirement(text).name) for text in EXTRAS[extra]} for extra in EXTRAS}
    assert {"dvc", "snakemake"} <= names["pipeline"] and "mlflow" in names["tracking"] and "yt-dlp" in names["download"]


@pytest.mark.slow
def test_the_package_imports_without_extras():
    modules = ("rap", "rap.cli", "rap.retrieval.pretrained", "rap.search.query", "rap.report.table")
    blocked = (*ENGINES, "yt_dlp")
    code = f"import sys; sys.modules |= dict.fromkeys({blocked!r}); import {', '.join(modules)}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_a_built_wheel_works_in_an_empty_environment(tmp_path, clips):
    """Without a checkout: the lines of the README, from a folder of videos to a search, and the data of the page."""
    uv, source, place = (
        Path(sys.executable).with_name("uv"),
        clone(tmp_path / "source", small=False),
        tmp_path / "empty",
    )
    subprocess.run([uv, "build", "--quiet", "--wheel", "--out-dir", tmp_path, source], check=True)
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, place], check=True)
    wheel = f"{next(tmp_path.glob('*.whl'))}[serve]"
    lock = ("--constraint", ROOT / "requirements.lock")
    subprocess.run([uv, "pip", "install", "--quiet", "--python", place / "bin/python", *lock, wheel], check=True)
    rap, mine = place / "bin/rap", tmp_path / "mine"
    shutil.copytree(clips, mine / "my-videos")
    use = ("dataset", "use", "folder", "--backbone", random_clip.SMALL)
    subprocess.run([rap, *use], cwd=mine, check=True)
    assert not (mine / "dvc.yaml").exists()
    edit(mine, lambda params: params["backbone"].update(weights=str(random_clip.weights(tmp_path / "w.safetensors"))))
    for line in (("dataset", "init", "my-videos"), ("index",)):
        subprocess.run([rap, *line], cwd=mine, check=True)
    found = subprocess.check_output([rap, "search", "a dog jumps", "--top", "99"], text=True, cwd=mine)
    assert found.count("my-videos/") == len(list(clips.iterdir()))
    files = ("demo/demo-vit.safetensors", "demo/demo-vit.json", "search/page.html", "report/page/report.html")
    code = "import rap.search.serve, importlib.resources as r; f = r.files('rap'); "
    code += f"print(*[(f / n).is_file() for n in {files}])"
    commands = (
        [place / "bin/rap", "--version"],
        [place / "bin/rap", "search", "--help"],
        [place / "bin/python", "-c", code],
    )
    version, told, data = (subprocess.check_output(command, text=True, cwd=tmp_path) for command in commands)
    assert version == f"rap {PROJECT['version']}\n" and "holiday.jpg" in told
    assert data == "True True True True\n"


@pytest.mark.parametrize(("file", "root"), [("environment.yml", "."), ("workflow/envs/rap.yaml", "../..")])
def test_conda_environments_agree_with_pyproject(file, root):
    *packages, pip = yaml.safe_load((ROOT / file).read_text())["dependencies"]
    python = next(name.partition("=")[2] for name in packages if name.startswith("python="))
    assert SpecifierSet(PROJECT["requires-python"]).contains(f"{python}.0")
    assert python in PYTHONS and "pip" in packages
    options = [line.split() for line in pip["pip"]]
    base = (ROOT / file).parent
    assert [option for option, _ in options] == ["-r", "-e"]
    assert (base / options[0][1]).samefile(ROOT / "requirements.lock")
    assert (base / root).samefile(base / options[1][1]) and (base / root).samefile(ROOT)


def test_the_lock_names_no_host():
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text and "index" not in re.sub(r"^\s*#.*", "", text, flags=re.M)


def test_an_old_python_is_one_clear_line(tmp_path: Path):
    old = tmp_path / "old-python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    command = ["make", "install", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode != 0 and not (tmp_path / "venv").exists()
    assert f"{old} is absent or older than Python 3.11" in result.stderr.splitlines()[0]


def test_the_citation_has_the_version_and_licence_of_the_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    assert "Apache License" in (ROOT / "LICENSE").read_text()


def test_the_forge_runs_the_script_of_ci_on_every_python():
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    job = jobs["test"]
    assert tuple(job["strategy"]["matrix"]["python"]) == PYTHONS
    classifiers = {text.rpartition(" ")[2] for text in PROJECT["classifiers"] if "Python :: 3." in text}
    assert classifiers == set(PYTHONS)
    assert job["steps"][-1]["run"] == ".ci/run" and jobs["docs"]["steps"][-1]["run"] == "make docs"


def test_ci_runs_the_command_of_the_readme():
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    assert "make test" in script.read_text().splitlines() and "make test" in (ROOT / "README.md").read_text()
