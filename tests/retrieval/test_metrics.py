"""Ranks against a brute-force oracle that enumerates all ways of breaking ties."""

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rap.errors import UserError
from rap.retrieval import metrics


@st.composite
def problems(draw):
    """A small similarity matrix, often with ties, and the owner of each caption; every video has a caption."""
    videos = draw(st.integers(1, 5))
    extra = draw(st.lists(st.integers(0, videos - 1), max_size=4))
    owner = np.array(draw(st.permutations([*range(videos), *extra])))
    score = st.integers(0, 2).map(float) if draw(st.booleans()) else st.floats(-1, 1)
    rows = draw(st.lists(st.lists(score, min_size=videos, max_size=videos), min_size=len(owner), max_size=len(owner)))
    return np.array(rows, dtype=np.float64), owner


def played_out(scores, relevant):
    """Ranks of `relevant` in the gallery `scores` [M], for every input order of a stable sort."""
    ranks = []
    for order in itertools.permutations(range(len(scores))):
        ranking = sorted(order, key=lambda item: -scores[item])
        ranks.append(ranking.index(relevant) + 1)
    return np.array(ranks)


def galleries(similarity, owner, direction):
    """The two protocols in plain loops: one (scores, relevant) per query."""
    if direction == "t2v":
        return [(similarity[q], owner[q]) for q in range(len(owner))]
    videos = range(similarity.shape[1])
    best = [[max(similarity[q, v] for q in range(len(owner)) if owner[q] == w) for w in videos] for v in videos]
    return [(best[v], v) for v in videos]


@pytest.mark.parametrize("direction", ["t2v", "v2t"])
@settings(max_examples=80, deadline=None)
@given(problem=problems())
def test_every_figure_is_its_average_over_all_ways_of_breaking_ties(direction, problem):
    similarity, owner = problem
    rank = metrics.text_to_video if direction == "t2v" else metrics.video_to_text
    ranks = rank(similarity, owner)
    oracle = [played_out(*gallery) for gallery in galleries(similarity, owner, direction)]
    assert np.allclose(ranks.expected, [r.mean() for r in oracle])
    for k in range(1, 7):
        assert np.allclose(ranks.within(k), [(r <= k).mean() for r in oracle])
    found = metrics.summary(ranks)
    for k in metrics.CUTOFFS:
        assert found[f"R@{k}"] == pytest.approx(100 * np.mean([(r <= k).mean() for r in oracle]), abs=1e-6)
    assert found["MnR"] == pytest.approx(np.mean([r.mean() for r in oracle]), abs=1e-6)
    assert found["MdR"] == pytest.approx(np.median([r.mean() for r in oracle]), abs=1e-6)


@pytest.mark.parametrize("rank", [metrics.text_to_video, metrics.video_to_text])
def test_equal_scores_are_chance_not_success(rank):
    found = metrics.summary(rank(np.zeros((20, 20), np.float32), np.arange(20)))
    assert found == {"R@1": 5.0, "R@5": 25.0, "R@10": 50.0, "MdR": 10.5, "MnR": 10.5}


@pytest.mark.parametrize("rank", [metrics.text_to_video, metrics.video_to_text])
def test_chunks_change_nothing(rank, monkeypatch):
    rng = np.random.default_rng(0)
    owner = rng.permutation(np.arange(90) % 30)
    similarity = rng.integers(0, 9, (90, 30)).astype(np.float32)
    whole = rank(similarity, owner)
    monkeypatch.setattr(metrics, "CHUNK", 100)
    parts = rank(similarity, owner)
    assert all(np.array_equal(getattr(whole, f), getattr(parts, f)) for f in ("query", "above", "ties"))


@pytest.mark.parametrize("rank", [metrics.text_to_video, metrics.video_to_text])
def test_memory_is_bounded_by_the_chunk(rank, monkeypatch):
    monkeypatch.setattr(metrics, "CHUNK", 1 << 17)
    similarity = np.random.default_rng(0).random((4000, 1000), dtype=np.float32)  # 16 MB
    tracemalloc.start()
    try:
        rank(similarity, np.arange(4000) % 1000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < similarity.nbytes / 4


def test_a_video_is_ranked_among_videos_by_its_best_caption():
    similarity = np.array([[0.9, 0.8], [0.1, 0.7], [0.2, 0.6]])  # captions 0 and 1 belong to video 0, caption 2 to 1
    ranks = metrics.video_to_text(similarity, np.array([0, 0, 1]))
    assert ranks.above.tolist() == [0, 1]  # two captions of video 0 beat caption 2, but they are one distractor


def many_captions(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores without ties, shaped like MSVD: 40 videos, 18 to 81 captions each; the right video is favoured."""
    rng = np.random.default_rng(seed)
    owner = rng.permutation(np.repeat(np.arange(40), rng.integers(18, 82, 40)))
    similarity = rng.permutation(len(owner) * 40).reshape(len(owner), 40) / (len(owner) * 40)
    return similarity + 0.03 * (owner[:, None] == np.arange(40)), owner


def test_many_captions_per_video_are_scored_like_the_protocol_in_plain_loops():
    """Every caption is a query for its video; a video is a query for the video whose best caption scores highest."""
    similarity, owner = many_captions()
    text = [1 + sum(row[v] > row[owner[q]] for v in range(40)) for q, row in enumerate(similarity)]
    best = [[max(similarity[q][v] for q in np.flatnonzero(owner == w)) for w in range(40)] for v in range(40)]
    video = [1 + sum(best[v][w] > best[v][v] for w in range(40)) for v in range(40)]
    for rank, ranks in ((metrics.text_to_video, text), (metrics.video_to_text, video)):
        found = metrics.summary(rank(similarity, owner))
        oracle = {f"R@{k}": 100 * sum(r <= k for r in ranks) / len(ranks) for k in (1, 5, 10)}
        oracle |= {"MdR": np.median(ranks), "MnR": np.mean(ranks)}
        assert found == pytest.approx(oracle, abs=1e-6) and 0 < found["R@1"] < 100


def test_a_repeated_caption_adds_a_query_but_no_gallery_item():
    """MSVD has 3,730 such queries: annotators who wrote the same caption for one video."""
    similarity, owner = many_captions(1)
    again = np.arange(0, len(owner), 3)
    longer, owners = np.concatenate([similarity, similarity[again]]), np.concatenate([owner, owner[again]])
    once, twice = metrics.text_to_video(similarity, owner), metrics.text_to_video(longer, owners)
    assert np.array_equal(twice.expected, np.concatenate([once.expected, once.expected[again]]))
    once, twice = metrics.video_to_text(similarity, owner), metrics.video_to_text(longer, owners)
    assert np.array_equal(once.expected, twice.expected) and len(twice.query) == 40


def test_a_video_without_captions_is_a_distractor_for_text_and_absent_for_video():
    similarity = np.array([[0.1, 0.9, 0.5], [0.3, 0.0, 0.8]])
    owner = np.array([0, 2])
    assert metrics.text_to_video(similarity, owner).above.tolist() == [2, 0]
    ranks = metrics.video_to_text(similarity, owner)
    assert ranks.query.tolist() == [0, 2]
    assert ranks.above.tolist() == [1, 0]


@pytest.mark.parametrize("rank", [metrics.text_to_video, metrics.video_to_text])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_similarity_that_is_not_finite_is_refused_and_located(rank, value, monkeypatch):
    monkeypatch.setattr(metrics, "CHUNK", 8)
    similarity = np.zeros((4, 4), np.float32)
    similarity[2, 3] = value
    with pytest.raises(UserError, match="row 2 and video column 3: not a finite"):
        rank(similarity, np.arange(4))


def test_no_queries_have_no_summary():
    ranks = metrics.text_to_video(np.eye(3), np.arange(3))
    assert metrics.summary(ranks.only(np.array([True, False, False])))["R@1"] == 100
    with pytest.raises(ValueError, match="no queries"):
        metrics.summary(ranks.only(np.zeros(3, bool)))
