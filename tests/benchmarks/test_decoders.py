"""The benchmark of the ways from a video to frames, at toy size: all roads show the same pictures."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from rap.files import read_json

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def decoders(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("decoders")


def test_all_roads_show_the_same_pictures(decoders, tmp_path):
    """By the same instants; the peers' road takes others. Pictures next to each other differ by more."""
    video = decoders.film(tmp_path / "a.mp4", 240, 3, 25)
    roads = {name: road for name, road in decoders.available().items() if name not in (decoders.JPEG, "floor")}
    shown = {name: road(video, tmp_path).astype(float) for name, road in roads.items()}
    ours = shown["ours, ffmpeg"]
    assert len(shown) >= 3 and abs(ours[1:] - ours[:-1]).mean() > 8
    for name, frames in shown.items():
        assert frames.shape == ours.shape and abs(frames - ours).mean() < 3, name


@pytest.mark.slow
def test_a_run_measures_every_road_and_writes_its_table(decoders, tmp_path):
    options = ("--seconds", "2", "--repeats", "1", "--heights", "96", "--results", str(tmp_path))
    command = [sys.executable, str(ROOT / "benchmarks/decoders.py"), *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    clips = read_json(tmp_path / "decoders.json")["clips"]
    assert len(clips) == 2 and (tmp_path / "decoders.md").read_text().count("JPEG, then PIL |") == 2
    for clip in clips.values():
        assert clip["roads"].keys() == decoders.available().keys()
        assert (
            clip["roads"]["ours, sparse"]["bytes"] == 12 * 224 * 224 * 3 > clip["roads"]["JPEG, then PIL"]["bytes"] > 0
        )
        assert all(len(road["one"]) == len(road["all"]) == 1 for road in clip["roads"].values())
