"""`rap doctor` finds what is missing, and names a remedy for each."""

import os
import sys
from pathlib import Path

import pytest
import tiny

from rap import doctor
from rap.errors import UserError


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    return tiny.project(tmp_path)


def test_a_complete_machine_lacks_nothing(project, capsys):
    assert doctor.run(project).endswith("nothing is missing")
    told = capsys.readouterr().out
    assert "!!" not in told and all(codec in told for codec in doctor.CODECS)


def changed(params, section, **values):
    return params.model_copy(update={section: getattr(params, section).model_copy(update=values)})


def test_each_lack_has_its_remedy(project, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.setattr(doctor, "LOW", 1e9)
    broken = changed(project, "dataset", annotations="list.csv")
    broken = changed(changed(broken, "backbone", name="other", weights="w.pt"), "tracking", uri="sqlite:////proc/x.db")
    Path("dvc.yaml").write_text("stages: {}")
    with pytest.raises(UserError) as error:
        doctor.run(broken)
    said = str(error.value)
    for remedy in (
        "command dvc: source .venv/bin/activate",
        "mlflow: pip install 'rap-retrieval[tracking]'",
        "dvc.yaml: run `rap graph --write`",
        "free disk: make room",
        "dataset.annotations: list.csv is not there",
        "weights: w.pt is not there",
        "MLflow store: /proc cannot be written" if os.geteuid() else "",
    ):
        assert remedy in said, remedy


def test_no_ffmpeg_is_said_with_its_remedy(project, monkeypatch):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/nowhere/ffmpeg")
    doctor.ffmpeg._program.cache_clear()
    with pytest.raises(UserError, match=r"ffmpeg: .*IMAGEIO_FFMPEG_EXE"):
        doctor.run(project)
    doctor.ffmpeg._program.cache_clear()
