"""The benchmarks of features, steps and epochs, at toy size: what is compared does the same work, counted right."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rap.clip.backbone import DEMO, load, open_clip_config
from rap.features.stage import prefix
from rap.files import read_json
from rap.frames import stage as frames
from rap.retrieval.model import Retriever
from rap.shards import Shard
from rap.training.costs import flops_per_clip
from rap.training.run import Experiment

ROOT = Path(__file__).resolve().parents[2]
FOREIGN = ("open_clip", "ffmpeg", "imageio_ffmpeg", "av", "mlflow", "dvc", "ruamel", "torchvision", "matplotlib")


@pytest.fixture(autouse=True)
def scripts(monkeypatch, tmp_path):
    """benchmarks/ on the path, as a script there has it, and an empty folder to work in."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.chdir(tmp_path)


def test_ways_take_turns_and_are_compared_turn_by_turn(monkeypatch):
    import turns

    taken, clock = [], iter([1, 1, 10, 2, 10, 4, 40, 8])
    monkeypatch.setattr(turns, "timed", lambda way: way() or next(clock))
    found = turns.take({"a": lambda: taken.append("a"), "b": lambda: taken.append("b")}, 3)
    assert taken == ["a", "b"] * 4 and found == {"a": [10, 10, 40], "b": [2, 4, 8]}
    assert turns.median(found, "b") == 4 and turns.ratio(found, "a", "b") == 5


def test_a_floor_is_the_longer_of_arithmetic_and_bytes():
    import ceilings

    limits = ceilings.Ceilings({"float32": 10.0, "bfloat16": 40.0}, bandwidth=5.0)
    assert (limits.floor(20, 5), limits.floor(20, 50), limits.floor(20, 0, "bfloat16")) == (2, 10, 0.5)


def test_ceilings_are_taken_at_the_shapes_of_a_block():
    import ceilings
    import synthetic

    clip = synthetic.random_clip(DEMO)
    assert ceilings.shapes(clip.visual) == [(128, 384), (128, 128), (128, 512), (512, 128)]
    found = ceilings.measure(clip, repeats=1)
    assert set(found.flops) == {"float32", "bfloat16"} and min(*found.flops.values(), found.bandwidth) > 1e8


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-B-16"])
def test_what_is_kept_of_a_backbone_is_what_open_clip_says(name):
    import synthetic

    assert (synthetic.BACKBONES / f"{name}.json").exists()
    assert synthetic.config(name) == open_clip_config(name, "openai")


def test_the_stage_makes_all_rows_every_time_and_the_bare_pass_goes_over_as_many_batches(monkeypatch):
    import features

    settings = features.project(DEMO, clips=7, frames=2, batch=2)
    clip = load(settings.backbone_folder)[0]
    for _ in range(2):
        features.stage(settings, "video-2")
        made = Shard.read(settings.data / "features/video-2/shard-0").array
        pixels = torch.from_numpy(np.array(Shard.read(settings.data / "frames/shard-0").array))
        assert pixels.float().std() > 50
        expected = prefix(clip.visual, pixels, torch.full((7,), 2), 2).numpy()
        np.testing.assert_allclose(made, expected, atol=0.01, rtol=0.01)  # kept with 16 bits
        np.save(settings.data / "features/video-2/shard-0.npy", np.zeros_like(made))
    seen = []
    monkeypatch.setattr(clip.visual, "run", lambda x, start, stop, *rest: seen.append((x.shape, start, stop)))
    monkeypatch.setattr(features, "HELD", 2)
    features.bare(settings, clip, "video-2")()
    assert seen == [((2, 2, 64, 64, 3), -1, 2)] * 4


def test_features_are_reported(tmp_path):
    import features

    features.main((DEMO, DEMO), clips=2, frames=2, batch=1, repeats=1, results=tmp_path / "results")
    found = read_json(tmp_path / "results/features.json")["stages"]
    assert [(one["cache"], one["clips"]) for one in found] == [
        (cache, clips) for clips in (2, 32) for cache in ("video-0", "video-2", "video-all")
    ]
    for one in found:
        assert one["rate"] == pytest.approx(2 * one["clips"] / one["work"]) and one["floor"] > 0
        assert one["work"] == pytest.approx(one["stage"] - one["start"])
        assert one["share"] == pytest.approx(one["bare"] / one["work"])


@pytest.mark.parametrize("depth", [0, 2, 4])
def test_the_bare_step_goes_back_to_the_tokens_and_its_arithmetic_is_that_of_the_suffix_twice(depth):
    import step
    import synthetic

    settings = synthetic.load(step.values(DEMO, depth, batch=3, frames=2))
    synthetic.project(settings, train=settings.train.batch)
    synthetic.noise(settings)
    experiment = Experiment(settings, "LoRM", 0)
    suffix, own, before = step.arithmetic(experiment, depth)
    clips = len(experiment.split("train").videos)
    whole = clips * flops_per_clip(Retriever(experiment.model.clip, step.Adapter()), 2)
    cosines = 2 * clips**2 * experiment.model.clip.embed_dim
    assert clips == 3 * (step.LARGE if depth == 4 else 1)
    assert 2 <= (suffix - 2 * cosines) / (whole - before) < 2.03  # attention has two factors to go back to
    assert 1 < own / suffix < (1.2 if depth == 4 else 1.01)  # LoRM adds products of its small factors
    assert all(weight.grad is None for weight in experiment.model.parameters())


def test_steps_from_the_cache_from_frames_and_bare_are_reported(tmp_path, monkeypatch):
    import ceilings
    import step

    monkeypatch.setattr(step, "LARGE", 2)
    monkeypatch.setattr(ceilings, "measure", lambda clip: ceilings.Ceilings({"float32": 1e12}, 1e12))
    step.main(DEMO, batch=2, frames=2, repeats=1, results=tmp_path / "results")
    found = read_json(tmp_path / "results/step.json")["steps"]
    assert [(one["method"], one["depth"], one["batch"]) for one in found] == [
        ("LoRM", 0, 2), ("RAP", 0, 2), ("LoRM", 2, 2), ("RAP", 2, 2), ("LoRM, text too", 2, 2),
        ("LoRM", 3, 2), ("RAP", 3, 2), ("LoRM", 4, 4),
    ]  # fmt: skip
    predicted = [one["predicted"] for one in found if one["method"] == "LoRM" and "frames" in one]
    assert predicted == sorted(predicted) and 1 < predicted[0] < 1.2 and predicted[2] > 5
    assert all(one["over_bare"] == pytest.approx(one["cache"] / one["bare"]) for one in found)
    assert "frames" not in found[-1]


def test_both_ways_of_an_epoch_see_the_same_frames():
    import epoch
    import synthetic

    settings = synthetic.load(epoch.values(DEMO, frames=3, batch=2))
    epoch.project(settings, clips=3, seconds=1, height=120)
    frames.run(settings, 0)
    ours, theirs = Shard.read(settings.data / "frames/shard-0").array, epoch.Clips(settings)
    assert ours.any() and len(theirs) == 3
    for row, array in enumerate(ours):
        assert np.array_equal(array, theirs[row][1])


def test_an_epoch_bears_its_share_of_what_comes_before(tmp_path, monkeypatch):
    import epoch

    monkeypatch.setattr(epoch, "alone", lambda work, *arguments: work(*arguments))
    epoch.main(DEMO, clips=3, seconds=1, height=120, frames=2, batch=2, results=tmp_path / "results")
    found = read_json(tmp_path / "results/epoch.json")["ways"]
    assert set(found) == {epoch.VIDEOS, "depth_0", "depth_2", "depth_4"}
    for name, way in found.items():
        before = way["start"] + (0 if name == epoch.VIDEOS else way["frames"] + way["features"])
        assert way["spread"] == pytest.approx(way["epoch"] + before / 5)
    floors = [found[name]["floor"] for name in (epoch.VIDEOS, "depth_0", "depth_2", "depth_4")]
    assert floors == sorted(floors, reverse=True) and floors[-1] > 0


@pytest.mark.slow
def test_the_script_for_a_gpu_needs_neither_open_clip_nor_ffmpeg(tmp_path):
    script = str(ROOT / "benchmarks/gpu.py")
    start = f"""import runpy, sys
sys.modules.update(dict.fromkeys({FOREIGN!r}))
sys.path.insert(0, {str(ROOT / "benchmarks")!r})
runpy.run_path({script!r}, None, "__main__")"""
    sizes = {"backbone": DEMO, "videos": 5, "frames": 2, "batch": 4, "epochs": 2, "repeats": 1, "precision": "float32"}
    options = [text for name, value in sizes.items() for text in (f"--{name}", str(value))]
    command = [sys.executable, "-c", start, *options, "--results", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)
    assert not done.returncode, done.stdout[-3000:]
    found = read_json(tmp_path / f"gpu-{DEMO}-float32.json")
    assert [stage["cache"] for stage in found["stages"]] == ["video-0", "video-2", "video-4"]
    assert [(one["method"], one["depth"]) for one in found["trainings"]] == [
        ("LoRM", 0), ("RAP", 0), ("LoRM", 2), ("RAP", 2), ("LoRM", 4),
    ]  # fmt: skip
    assert all(one["steps"] == 4 and one["seconds"] > 0 and one["peak_bytes"] > 1e8 for one in found["trainings"])


def test_a_training_that_does_not_fit_is_said_not_to(monkeypatch):
    import gpu

    from rap.features.stage import run

    settings = gpu.project(DEMO, "float32", videos=3, frames=2, batch=2, epochs=1, depth=4)
    for cache in settings.features.caches:
        run(settings, cache, 0)

    def full(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(gpu, "fit", full)
    assert gpu.row({"method": "LoRM", "depth": 4} | gpu.training(settings, "LoRM"))["seconds"] == "does not fit"


def test_a_step_is_divided_into_kinds_of_operations():
    import profiles

    assert [profiles.kind_of(f"aten::{name}") for name in ("addmm", "add_", "native_layer_norm_backward", "view")] == [
        "products", "elementwise, sums", "norms, activations", None,
    ]  # fmt: skip
    none, lorm, rap = profiles.at_depth(DEMO, 3, batch=2, frames=2)
    assert none["sampling"] == lorm["sampling"] == 0 < rap["sampling"]
    for one in (none, lorm, rap):
        assert one["whole"] == pytest.approx(one["rest"] + sum(one[kind] for kind in profiles.KINDS))
        assert one["products"] > 0 and one["rest"] > 0


def test_a_machine_without_a_package_is_described_without_it(monkeypatch):
    import report

    monkeypatch.setattr(report, "PACKAGES", ("torch", "no-such-package"))
    assert report.sentence(report.machine()).endswith(f"torch {torch.__version__.partition('+')[0]}.")
