"""Datasets by file: adding a file adds a dataset, and params.yaml is checked without importing any."""

import subprocess
import sys
from pathlib import Path

import pytest

from rap.data import datasets, registry
from rap.errors import UserError

ALONE = '''"""A dataset."""

from rap.data.manifest import Manifest
from rap.data.registry import DatasetInfo

DATASET = DatasetInfo(frames=7)


def prepare(params, videos):
    return Manifest.build([{"video_id": "x", "path": "x.mp4", "split": "test"}], [])
'''


@pytest.fixture
def added(tmp_path, monkeypatch):
    """A dataset `mine`: one more file on the package's path."""
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets/mine.py").write_text(ALONE)
    monkeypatch.setattr(datasets, "__path__", [*datasets.__path__, str(tmp_path / "datasets")])
    yield "mine"
    sys.modules.pop("rap.data.datasets.mine", None)


def test_a_file_is_all_that_a_dataset_needs(project, added):
    settings = project(dataset={"name": added})
    assert added in datasets.names() and datasets.module(added) == "rap.data.datasets.mine"
    assert registry.videos_folder(settings) == Path("videos")
    assert list(registry.prepare(settings).videos.video_id) == ["x"]
    assert registry.departures(settings) == ["frames.count is 8; published results on mine use 7"]


@pytest.mark.parametrize("name", datasets.names())
def test_every_dataset_has_its_information_and_a_folder_of_videos(project, name):
    assert isinstance(registry.info(name), registry.DatasetInfo)
    settings = project(dataset={"name": name, "videos": None, "annotations": "mine/list.csv"})
    usual = Path("mine") if name == "folder" else Path("data") / name / "videos"
    assert registry.videos_folder(settings) == usual


def test_the_demo_needs_no_annotations(project):
    demo = {"train": 1, "val": 1, "test": 1, "seed": 0}
    settings = project(dataset={"name": "demo", "annotations": None, "videos": None, "demo": demo})
    assert len(registry.prepare(settings).videos) == 6


@pytest.mark.parametrize("name", ["folder", "msvd"])
def test_a_dataset_that_needs_annotations_says_so_in_one_line(project, name):
    Path("videos").mkdir(exist_ok=True)
    with pytest.raises(UserError, match=f"^dataset.annotations: {name} needs annotations; .*`rap dataset use {name}`"):
        registry.prepare(project(dataset={"name": name, "annotations": None}))


def test_params_and_dataset_init_import_neither_torch_nor_pandas():
    code = "import sys, rap.params, rap.data.datasets, rap.download.init_csv; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "pandas", "numpy", "rap.data.datasets.msvd"} & set(loaded)
