"""Cells: what a query reads, what it may miss, and how they follow their index."""

import json

import do
import numpy as np
import pytest
import tiny

from rap.errors import UserError
from rap.search import cells
from rap.search.index import best
from rap.search.library import Library

V, E = 3000, 32


def vectors(count: int, seed: int = 0) -> np.ndarray:
    """Unit vectors round 30 centres."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(9).standard_normal((30, E))
    found = centres[random.integers(0, 30, count)] + 0.5 * random.standard_normal((count, E))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def made():
    return vectors(V), cells.build(vectors(V))


def test_every_row_lies_in_one_cell_and_that_of_its_nearest_centre(made):
    embeddings, grouped = made
    assert sorted(grouped.order) == list(range(V)) and grouped.starts[-1] == V
    for cell, (start, end) in enumerate(zip(grouped.starts[:-1], grouped.starts[1:], strict=True)):
        rows = grouped.order[start:end]
        assert ((embeddings[rows] @ grouped.centres.T).argmax(1) == cell).all()


def test_the_ten_best_are_found_in_a_share_of_the_rows(made):
    embeddings, grouped = made
    everything, found, read = np.ones(V, bool), [], []
    for query in vectors(50, seed=1):
        rows = grouped.near(query, everything, 10)
        nearest = rows[best(embeddings[rows] @ query, 10)]
        found.append(len({*nearest} & {*best(embeddings @ query, 10)}) / 10)
        read.append(len(rows) / V)
    assert np.mean(found) > 0.95 and np.mean(read) < 0.5


def test_more_cells_are_read_until_enough_rows_are_usable(made):
    _, grouped = made
    usable = np.zeros(V, bool)
    usable[[5, 1000, 2999]] = True
    for query in vectors(5, seed=2):
        assert grouped.near(query, usable, 3).tolist() == [5, 1000, 2999]
        assert {*grouped.near(query, usable, 4)} == {5, 1000, 2999}


def test_they_are_the_same_in_every_call(made):
    again = cells.build(vectors(V))
    for part in cells.PARTS:
        assert np.array_equal(getattr(again, part), getattr(made[1], part))


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cells, "LEAST", 8)
    monkeypatch.setattr(cells, "SAMPLES", 1)
    params = tiny.project(tmp_path)
    tiny.cache(params)
    return params


def test_an_approximate_search_finds_what_an_exact_one_does_if_it_reads_all_cells(project):
    exact, near = (Library.open(project, "zero_shot", approximate=approximate) for approximate in (False, True))
    assert exact.cells is None and near.cells is not None
    for split in ("all", "train", "test"):
        for ask, about in (("text", "a red ball"), ("like", "v2")):
            found, wanted = (getattr(library, ask)(about, 3, split) for library in (near, exact))
            assert [hit.id for hit in found] == [hit.id for hit in wanted]
            # a product of fewer rows may differ in the last bit
            assert [hit.cosine for hit in found] == pytest.approx([hit.cosine for hit in wanted], abs=1e-6)


def test_cells_are_made_again_for_another_index_or_if_they_are_damaged(project):
    kept = Library.open(project, "zero_shot", approximate=True)
    (file,) = kept.index.stem.parent.glob("*.cells.npz")
    before = file.stat().st_mtime_ns
    Library.open(project, "zero_shot", approximate=True)
    assert file.stat().st_mtime_ns == before
    good = file.read_bytes()
    file.write_bytes(good[:-40] + bytes(40))
    Library.open(project, "zero_shot", approximate=True)
    assert file.read_bytes() == good
    record = json.loads(file.with_name(file.name.replace(".npz", ".json")).read_text())
    tiny.noise_frames(project, 0)
    do.train(project, "ssf", 0)
    other = Library.open(project, "ssf", approximate=True)
    assert other.index.stem != kept.index.stem
    assert json.loads((other.index.stem.parent / f"{other.index.stem.name}.cells.json").read_text()) != record


def test_a_small_index_needs_no_cells_and_a_large_one_needs_faiss(project, monkeypatch):
    monkeypatch.setattr(cells, "LEAST", 9)
    assert Library.open(project, "zero_shot", approximate=True).cells is None
    monkeypatch.setattr(cells, "LEAST", 8)
    monkeypatch.setattr("rap.errors.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"faiss is not installed; run: pip install 'rap-retrieval\[faiss\]'"):
        Library.open(project, "zero_shot", approximate=True)
