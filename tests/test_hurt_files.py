"""Every file of a finished project, hurt in every way: each job ends in one line, or makes the same bytes again."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rap.cli import REMEDIES
from rap.errors import UserError
from rap.files import digest
from rap.jobs import Job, jobs, perform
from rap.params import Params

MADE = ("features", "train", "evaluate", "table")  # by the tiny project, which has no videos


def newer(file: Path) -> None:
    """A record as a later version might write it; other files have no version of their own."""
    if file.name in ("run.json", "evaluation.json", "table1.json") or file.name.startswith("shard-"):
        values = json.loads(file.read_text()) if file.suffix == ".json" else {}
        values.pop("checksum", None)
        values |= {"format": 2}
        file.write_text(json.dumps(values | {"checksum": digest(values)}))


HURTS: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda file: file.write_bytes(b""),
    "cut": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "garbage": lambda file: file.write_bytes(b"\xff\x00{" * (file.stat().st_size // 3 + 1)),
    "another file": lambda file: file.write_bytes(Path("params.yaml").read_bytes()),
    "longer": lambda file: file.write_bytes(file.read_bytes() + bytes(100)),
    "another version": newer,
    "a folder": lambda file: (file.unlink(), file.mkdir()),
}


@pytest.fixture
def project(copied, monkeypatch) -> Params:
    monkeypatch.setattr("rap.report.tracking.log", lambda *_: None)
    return copied


def chosen(params: Params) -> list[Job]:
    """One job of each stage and cache: the same code makes the others."""
    others = {"shard": 1, "variant": "ssf"}
    return [job for job in jobs(params) if job.stage in MADE and not others.items() & job.item.items()]


def contents(params: Params) -> dict[str, bytes]:
    files = [file for job in jobs(params) for file in job.outputs]
    return {file: Path(file).read_bytes() for file in files if Path(file).is_file()}


def restore(folder: Path, files: list[str]) -> None:
    for file in files:
        if Path(file).is_dir():
            Path(file).rmdir()
        shutil.copy(folder / file, file)


def ends(params: Params, job: Job, expected: dict[str, bytes], hurt: str = "") -> str:
    """What is wrong with the end of a job, or nothing: it makes the expected bytes, or refuses in one line."""
    try:
        perform(params, job.stage, **job.item)
    except UserError as error:
        return "" if "\n" not in str(error) and "run `rap" in str(error) else f"said {error}"
    except OSError as error:  # the command makes a line of it
        return "" if error.errno in REMEDIES and error.filename else repr(error)
    except Exception as error:
        return repr(error)
    found = contents(params) | ({hurt: expected[hurt]} if hurt else {})
    other = [name for name in expected if found.get(name) != expected[name]]
    return f"made other bytes of {other}" if other else ""


@pytest.mark.slow
@pytest.mark.parametrize("hurt", HURTS)
def test_a_job_refuses_a_hurt_input_in_one_line_or_does_not_read_it(made, project, hurt):
    folder, expected, wrong = made[0], contents(project), []
    for job in chosen(project):
        for file in job.inputs:
            HURTS[hurt](Path(file))
            Path(job.record).unlink()  # else the job is up to date
            if said := ends(project, job, expected, file):
                wrong.append(f"{file}: `{job.command}` {said}")
            restore(folder, [file, *job.outputs])
    assert wrong == []


@pytest.mark.slow
@pytest.mark.parametrize("hurt", HURTS)
def test_a_hurt_output_is_made_again_with_the_same_bytes(made, project, hurt):
    folder, expected, wrong = made[0], contents(project), []
    for job in chosen(project):
        for file in job.outputs:
            HURTS[hurt](Path(file))
            if said := ends(project, job, expected):
                wrong.append(f"{file}: `{job.command}` {said}")
            restore(folder, job.outputs)
    assert wrong == []
