import numpy as np

from rap.retrieval import twins


def test_a_win_counts_one_a_tie_one_half_and_each_kind_is_separate():
    videos = ["a", "a-reversed", "b", "b-reversed"]
    partner = twins.partners(videos, ["a-reversed", "a", "b-reversed", "b"])
    similarity = np.array([[0.9, 0.1, 0, 0], [0.5, 0.5, 1, 1], [0, 0, 0.2, 0.7], [0, 0, 0.1, 0.3]])
    shares, counts = twins.accuracy(twins.wins(similarity, np.arange(4), partner), ["move", "move", "size", ""])
    assert shares == {"all": 62.5, "move": 75.0, "size": 0.0}
    assert counts == {"all": 4, "move": 2, "size": 1}
    assert list(shares) == ["all", "move", "size"]


def test_a_missing_twin_is_left_out_and_a_corpus_without_twins_has_no_accuracy():
    similarity, owner = np.eye(3), np.arange(3)
    partner = twins.partners(["a", "b", "b-reversed"], ["a-reversed", "b-reversed", "b"])  # a-reversed failed
    assert partner.tolist() == [-1, 2, 1]
    assert twins.accuracy(twins.wins(similarity, owner, partner), ["x", "y", "y"]) == (
        {"all": 100.0, "y": 100.0},
        {"all": 2, "y": 2},
    )
    assert twins.accuracy(twins.wins(similarity, owner, twins.partners(["a", "b", "c"], ["", "", ""])), ["x"] * 3) == (
        {},
        {},
    )


def test_a_time_blind_model_scores_at_chance():
    blind = np.repeat(np.random.default_rng(0).random((40, 20)), 2, axis=1)  # a clip and its twin score the same
    partner = np.arange(40) ^ 1
    assert twins.accuracy(twins.wins(blind, np.arange(40), partner), [""] * 40) == ({"all": 50.0}, {"all": 40})
