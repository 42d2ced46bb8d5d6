"""Evaluation: the figures are those of the similarity matrix, a stale adapter is refused, failed videos are counted."""

import json

import do
import numpy as np
import pandas as pd
import pytest
import tiny

from rap import paths
from rap.data.manifest import Manifest
from rap.errors import UserError
from rap.jobs import Job
from rap.shards import Item, Shard, build, seal


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = tiny.project(tmp_path)
    tiny.cache(params)
    return params


def evaluate(params, variant="rap"):
    do.train(params, variant, 0)
    do.evaluate(params, variant, 0)
    folder = paths.run(variant, 0)
    return (
        json.loads((folder / "figures.json").read_text()),
        np.load(folder / "similarity.npy"),
        pd.read_parquet(folder / "ranks.parquet"),
    )


def test_figures_are_those_of_the_matrix(project):
    figures, similarity, ranks = evaluate(project)
    captions = Manifest.read(paths.manifest(project.dataset.name)).split("test").captions
    videos = list(dict.fromkeys(captions.video_id))
    assert similarity.shape == (8, 4) and similarity.dtype == np.float32
    own = np.array([row[videos.index(id)] for row, id in zip(similarity, captions.video_id, strict=True)])
    above = (similarity > own[:, None]).sum(1)
    t2v = ranks[ranks.direction == "t2v"]
    assert t2v.id.tolist() == captions.caption_id.tolist() and t2v.above.tolist() == above.tolist()
    assert figures["t2v"]["R@1"] == pytest.approx(100 * (above == 0).mean())
    twin = {id: videos.index(f"v{int(id[1:]) ^ 1}") for id in videos}
    other = np.array([row[twin[id]] for row, id in zip(similarity, captions.video_id, strict=True)])
    assert figures["twin"]["all"] == pytest.approx(100 * (own > other).mean())
    assert (figures["videos"], figures["videos_total"], figures["queries"]) == (4, 4, 8)
    shown = {"t2v_R@1", "t2v_R@5", "t2v_R@10", "t2v_MnR", "v2t_R@1", "twin_all"}
    headlines = json.loads((paths.run("rap", 0) / "metrics.json").read_text())
    assert headlines == {name: figures[name.split("_")[0]][name.split("_")[1]] for name in shown}


@pytest.mark.parametrize("variant", ["zero_shot", "rap", "full"])
def test_two_evaluations_give_the_same_bytes(project, variant):
    evaluate(project, variant)
    folder = paths.run(variant, 0)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert "up to date" in do.evaluate(project, variant, 0)
    (folder / "evaluation.json").unlink()
    do.evaluate(project, variant, 0)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_an_adapter_trained_otherwise_is_refused(project, tmp_path):
    do.train(project, "ssf", 0)
    changed = tiny.project(tmp_path, train={"epochs": 3})
    with pytest.raises(UserError, match=r"run.json: made with other parameters; run `rap train --variant ssf"):
        do.evaluate(changed, "ssf", 0)
    with pytest.raises(UserError, match=r"run.json: not there; run `rap train --variant lora --seed 0`"):
        do.evaluate(project, "lora", 0)


def test_a_failed_test_video_is_counted_and_never_scored(project):
    stem = paths.frames(project.dataset.name, 0)
    count = project.frames.count
    blank = np.zeros((count, 32, 32, 3), np.uint8)
    keys = {"v0": "a", "v2": "b", "v4": "c", "v6": "d"}
    items = {id: Item(id, reason="torn") if id == "v2" else Item(id, blank, count) for id in keys}
    made, _ = build(stem, keys, blank.shape, "uint8", lambda ids: map(items.get, ids))
    seal(made, Job(project, "frames", {"shard": 0}).result)
    tiny.cache(project)
    figures, similarity, _ = evaluate(project)
    assert (figures["videos"], figures["videos_total"], figures["queries"]) == (3, 4, 6)
    assert similarity.shape == (6, 3)
    assert figures["twin_pairs"]["all"] == 4, "v3 has lost its twin and is no pair any more"


def test_a_method_blind_to_time_ties_twins_that_are_exact_reversals(project):
    """Summed in another order, the same frames give other last bits; that must not look like a sense of time."""
    frames = [Shard.read(paths.frames(project.dataset.name, shard)) for shard in project.shards]
    rows = {
        row.id: np.array(a) for shard in frames for row, a in zip(shard.index.itertuples(), shard.array, strict=True)
    }
    for number, shard in enumerate(frames):
        items = {id: Item(id, rows[f"v{int(id[1:]) & ~1}"][:: 1 - 2 * (int(id[1:]) % 2)], 4) for id in shard.index.id}
        stem = paths.frames(project.dataset.name, number)
        keys, shape = dict.fromkeys(items, "new"), rows["v0"].shape
        made, _ = build(stem, keys, shape, "uint8", lambda ids, items=items: map(items.get, ids))
        seal(made, Job(project, "frames", {"shard": number}).result)
    tiny.cache(project)
    for variant in ("zero_shot", "ssf"):
        assert evaluate(project, variant)[0]["twin"] == {"all": 50.0, "move": 50.0}
    similarity = evaluate(project, "rap")[1]
    assert not np.array_equal(similarity[:, ::2], similarity[:, 1::2])


def test_a_text_conditioned_variant_scores_pairs(project):
    variants = project.model_dump()["variants"]
    variants["rap"]["asa"] |= {"form": "attention", "query": "text", "top_k": 2}
    project = tiny.project(tiny.Path.cwd(), variants=variants)
    figures, similarity, _ = evaluate(project)
    assert np.isfinite(similarity).all() and figures["queries"] == 8
