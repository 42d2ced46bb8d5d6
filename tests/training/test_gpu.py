"""On a GPU: the caches and the training agree with those of the CPU, and a second run gives the same bytes.

`pytest -m gpu` runs these tests where there is a GPU; `make test` leaves them out.
"""

from contextlib import chdir
from pathlib import Path

import do
import numpy as np
import pandas as pd
import pytest
import tiny
import torch

from rap import paths
from rap.clip.towers import Tower
from rap.features.cache import Cache
from rap.files import digest_file
from rap.params import Params

VARIANTS = ("full", "lora", "rap")
IDS = [f"v{i}" for i in range(8)]

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]


def ran(folder: Path, device: str) -> Params:
    """A tiny project with all caches and three trained variants, computed in float32 on a device."""
    folder.mkdir()
    with chdir(folder):
        params = tiny.project(folder, runtime={"device": device, "precision": "float32"})
        tiny.cache(params)
        for variant in VARIANTS:
            do.train(params, variant, 0)
            do.evaluate(params, variant, 0)
    return params


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory) -> tuple[Path, Params]:
    folder = tmp_path_factory.mktemp("cpu") / "project"
    return folder, ran(folder, "cpu")


@pytest.fixture(scope="module")
def on_gpu(tmp_path_factory) -> tuple[Path, Params]:
    folder = tmp_path_factory.mktemp("gpu") / "project"
    return folder, ran(folder, "cuda")


def rows(place: tuple[Path, Params], cache: str, tower: Tower) -> np.ndarray:
    folder, params = place
    with chdir(folder):
        return Cache(params, cache, tower).batch(IDS).x.float().numpy()


@pytest.mark.parametrize("cache", ["video-0", "video-1", "video-2", "video-all"])
def test_the_caches_agree_with_those_of_the_cpu(on_cpu, on_gpu, cache):
    expected, found = (rows(place, cache, tiny.clip().visual) for place in (on_cpu, on_gpu))
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-3 * np.abs(expected).max())  # stored as float16


@pytest.mark.parametrize("variant", VARIANTS)
def test_losses_and_similarities_agree_with_those_of_the_cpu(on_cpu, on_gpu, variant):
    here, there = (place[0] / paths.run(variant, 0) for place in (on_cpu, on_gpu))
    losses = [pd.read_csv(folder / "history.csv").loss for folder in (here, there)]
    np.testing.assert_allclose(*losses, rtol=2e-3)
    similarities = [np.load(folder / "similarity.npy") for folder in (here, there)]
    np.testing.assert_allclose(*similarities, rtol=0, atol=5e-3)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_second_training_gives_the_same_bytes(on_gpu, monkeypatch, variant):
    folder, params = on_gpu
    monkeypatch.chdir(folder)
    run = paths.run(variant, 0)
    first = [digest_file(file) for file in (*run.trained, run.record)]
    run.record.unlink()
    do.train(params, variant, 0)
    assert [digest_file(file) for file in (*run.trained, run.record)] == first
