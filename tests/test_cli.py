"""The `rap` command as a user types it: help that teaches, one line for a mistake, exit status 2."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
import typer
from ruamel.yaml import YAML
from typer.testing import CliRunner

from rap import cli, errors, paths
from rap.errors import UserError

COMMANDS = [
    "download",
    "backbone",
    "frames",
    "features",
    "train",
    "evaluate",
    "table",
    "pretrain",
    "adapters",
    "track",
    "dataset",
]


def rap(*arguments, cwd=tiny.ROOT):
    command = Path(sys.executable).with_name("rap")
    return subprocess.run([command, *arguments], cwd=cwd, capture_output=True, text=True)


def test_help_names_every_stage_and_says_what_it_does():
    found = rap("--help")
    assert found.returncode == 0
    assert all(command in found.stdout for command in COMMANDS)


def commands(command, *words):
    """The words of a command and of each below it."""
    yield words
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, *words, name)


@pytest.mark.parametrize("words", list(commands(typer.main.get_command(cli.app))), ids=" ".join)
def test_every_help_has_an_example(words):
    said = CliRunner().invoke(cli.app, [*words, "--help"]).stdout.splitlines()
    assert any(line.strip().startswith(" ".join(("rap", *words))) for line in said)


def test_the_page_without_its_extra_is_one_line(monkeypatch):
    monkeypatch.setattr(errors, "installed", lambda module: module != "uvicorn")
    monkeypatch.setitem(sys.modules, "uvicorn", None)  # its import fails
    monkeypatch.delitem(sys.modules, "rap.search.serve", raising=False)
    with pytest.raises(UserError, match=r"uvicorn is not installed; run: pip install 'rap-retrieval\[serve\]'"):
        cli.serve()


@pytest.mark.parametrize("profile", sorted(tiny.ROOT.glob("profiles/*/config.yaml")), ids=lambda path: path.parent.name)
def test_a_profile_states_an_option_once(profile):
    assert YAML(typ="safe").load(profile)  # which refuses a key that stands twice


@pytest.mark.parametrize("command", ["features", "train"])
def test_each_stage_has_help_of_its_own(command):
    found = rap(command, "--help")
    assert found.returncode == 0 and "Needs:" in found.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "--variant", "rpa", "--seed", "0"), "run: 'rpa' is not in the list; did you mean 'rap'?"),
        (("train", "--variant", "rap", "--seed", "0"), "run `rap backbone` first"),
        (("evaluate", "--variant", "rap", "--seed", "0"), "run `rap backbone` first"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(tmp_path, arguments, message):
    (tmp_path / "params.yaml").write_text((tiny.ROOT / "params.yaml").read_text())
    found = rap(*arguments, cwd=tmp_path)
    assert found.returncode == 2
    assert message in found.stderr and found.stderr.count("\n") == 1 and found.stdout == ""


@pytest.mark.slow
def test_ctrl_c_in_a_stage_is_one_line_and_status_130(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.cache(tiny.project(tmp_path, train={"epochs": 1000, "checkpoint_every": 1}))
    command = [Path(sys.executable).with_name("rap"), "train", "--variant", "lorm", "--seed", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not (checkpoint := paths.run("lorm", 0) / "checkpoint.pt").exists():
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        printed, said = process.communicate()
    assert (process.returncode, printed) == (130, "")
    assert said.splitlines()[-1] == "rap: interrupted; run the same command again to continue"
    assert "Traceback" not in said and "Abort" not in said
    assert checkpoint.exists()


@pytest.mark.parametrize("number", cli.REMEDIES)
def test_what_the_operating_system_refuses_is_one_line_with_a_remedy(monkeypatch, number):
    monkeypatch.chdir(tiny.ROOT)

    def refused(params):
        raise OSError(number, "", "results/table1.csv")

    with pytest.raises(UserError, match=f"results/table1.csv: {os.strerror(number)}; {cli.REMEDIES[number]}"):
        cli._guarded(refused)


def test_another_error_is_not_hidden(monkeypatch):
    monkeypatch.chdir(tiny.ROOT)

    def failed(params):
        raise OSError(errno.EIO, "")

    with pytest.raises(OSError, match=str(errno.EIO)):
        cli._guarded(failed)


@pytest.mark.slow
def test_no_params_file_is_one_line(tmp_path):
    found = rap("adapters", cwd=tmp_path)
    assert (found.returncode, found.stderr) == (
        2,
        "rap: params.yaml: not found; run `rap` in the folder that holds it\n",
    )


@pytest.mark.slow
def test_adapters_lists_methods_and_counts(tmp_path):
    settings = tiny.project(tmp_path)
    found = rap("adapters", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert all(name in found.stdout for name in settings.variants)
    assert "Cao et al." in found.stdout and "100." not in found.stdout.split("zero_shot")[0]
