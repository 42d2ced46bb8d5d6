"""Post-processing: DSL and QB-norm against plain loops, their limits, and labelled rows beside the plain ones."""

import json
from pathlib import Path

import do
import numpy as np
import pandas as pd
import pytest
import tiny
import torch

from rap import params, paths
from rap.errors import UserError
from rap.evaluation import rerank
from rap.report import table as tables
from rap.retrieval.corpus import open_corpus
from rap.retrieval.model import new_model

random = np.random.default_rng(0)
COSINES = random.uniform(-0.2, 0.4, (12, 7)).round(5)
BANK = random.uniform(-0.2, 0.4, (30, 7)).round(5)


def test_dual_softmax_is_each_logit_times_its_share_of_the_column():
    found = rerank.dual_softmax(COSINES, 50.0)
    for (row, column), cosine in np.ndenumerate(COSINES):
        share = np.exp(50 * cosine) / sum(np.exp(50 * other) for other in COSINES[:, column])
        assert found[row, column] == pytest.approx(50 * cosine * share, rel=1e-8)


def test_one_query_alone_is_ranked_as_without_dual_softmax():
    alone = rerank.dual_softmax(COSINES[:1], 50.0)
    assert alone.argsort().tolist() == COSINES[:1].argsort().tolist()


def test_querybank_norm_divides_by_the_bank_where_the_best_item_is_a_best_of_the_bank():
    bank = BANK[BANK.argmax(1) < 4]  # so that some queries are left alone
    found, hubs = rerank.querybank_norm(COSINES, bank), set(bank.argmax(1))
    touched = [row.argmax() in hubs for row in COSINES]
    assert 0 < sum(touched) < len(touched)
    for query, row in enumerate(COSINES):
        divided = [np.exp(20 * s) / sum(np.exp(20 * b) for b in bank[:, item]) for item, s in enumerate(row)]
        assert np.exp(found[query]) == pytest.approx(divided if touched[query] else np.exp(row), rel=1e-8)


def test_a_query_answers_alike_whoever_else_asks_with_a_bank_but_not_with_dual_softmax():
    assert (rerank.querybank_norm(COSINES, BANK)[:3] == rerank.querybank_norm(COSINES[:3], BANK)).all()
    assert (rerank.dual_softmax(COSINES, 50.0)[:3] != rerank.dual_softmax(COSINES[:3], 50.0)).any()


@pytest.mark.parametrize("width", [7, 9, 33, 130])  # the last columns of a row go other ways through the processor
def test_equal_cosines_stay_equal(width):
    cosines = np.repeat(random.uniform(-0.2, 0.4, (40, 1)).round(5), width, axis=1)
    bank = np.repeat(random.uniform(-0.2, 0.4, (40, 1)).round(5), width, axis=1)
    for found in (rerank.dual_softmax(cosines, 100.0), rerank.querybank_norm(cosines, bank)):
        assert (found == found[:, :1]).all()


@pytest.fixture
def project(tmp_path, monkeypatch) -> params.Params:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tables.tracking, "log", lambda *_: None)
    table = {"table1": {"title": "Title", "variants": ["zero_shot", "lorm"], "baseline": "zero_shot"}}
    settings = tiny.project(tmp_path, tables=table, evaluation={"post": ["dsl", "qb_norm"], "bank": 3})
    tiny.cache(settings)
    for variant in table["table1"]["variants"]:
        for seed in settings.seeds:
            do.train(settings, variant, seed)
            do.evaluate(settings, variant, seed)
    return settings


@pytest.mark.slow
def test_rows_of_their_own_beside_plain_rows_that_do_not_change(project):
    do.table(project, "table1")
    rows = pd.read_csv("results/table1.csv", keep_default_na=False).set_index("variant")
    names = ["zero_shot", "zero_shot+dsl", "zero_shot+qb_norm", "lorm", "lorm+dsl", "lorm+qb_norm"]
    assert rows.index.tolist() == names and rows.post.tolist() == ["", "dsl", "qb_norm"] * 2
    assert rows.label.tolist()[1:3] == [f"{rows.label['zero_shot']} + {name}" for name in ("DSL", "QB-norm")]
    assert "test-set information" in Path("results/table1.md").read_text()
    assert len(pd.read_csv("results/costs1.csv")) == 2
    found = json.loads((paths.run("lorm", 0) / "figures.json").read_text())
    similarity = np.load(paths.run("lorm", 0) / "similarity.npy")
    plain = project.model_copy(update={"evaluation": project.evaluation.model_copy(update={"post": ()})})
    do.evaluate(plain, "lorm", 0)
    again = json.loads((paths.run("lorm", 0) / "figures.json").read_text())
    assert again == found | {"post": {}}
    assert (np.load(paths.run("lorm", 0) / "similarity.npy") == similarity).all()
    with pytest.raises(
        UserError, match=r"evaluation.json: made with other parameters; run `rap evaluate --variant lorm"
    ):
        do.table(project, "table1")
    for variant in ("zero_shot", "lorm"):
        for seed in project.seeds:
            do.evaluate(plain, variant, seed)
    do.table(plain, "table1")
    bare = pd.read_csv("results/table1.csv", keep_default_na=False).set_index("variant")
    same = [name for name in bare if not name.endswith("_p")]  # fewer comparisons, other corrections
    assert bare[same].equals(rows.loc[["zero_shot", "lorm"], same])


@pytest.mark.slow
def test_the_bank_is_of_training_captions_and_clips_alone(project):
    corpus = open_corpus(project, new_model(project, "lorm", 0, torch.device("cpu"))[0])
    train, (captions, videos) = corpus.split("train"), rerank.training_queries(corpus, project.evaluation.bank)
    assert len(captions) == len(videos) == 3
    assert set(captions) <= set(train.captions.caption_id) and set(videos) <= set(train.videos)
