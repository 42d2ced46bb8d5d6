"""Re-ranking: post-processing of a similarity matrix by the scores of other queries. Off by default.

Each method gets its own rows in a table. DSL reads all test queries at once. A search engine that answers one query
at a time does not have them, so rows of DSL use test-set information. QB-norm reads a bank of training queries instead.
"""

import numpy as np
import torch

from rap.params import Params, Post
from rap.retrieval.corpus import Corpus, Split
from rap.retrieval.model import Retriever
from rap.retrieval.scoring import score

BETA = 20.0  # inverse temperature of QB-norm in its authors' code

# Cosines of training captions with the videos of a split [bank, V], and of its captions with training videos [Q, bank].
Bank = tuple[np.ndarray, np.ndarray]


def bank(name: Post, model: Retriever, corpus: Corpus, split: Split, params: Params) -> Bank | None:
    """The further inputs of a method besides the cosines of the split: the bank of QB-norm; none for DSL."""
    if name == "dsl":
        return None
    captions, videos = training_queries(corpus, params.evaluation.bank)
    opened, batch = (model, corpus.video, corpus.text), params.features.batch
    texts = score(*opened, split.videos, captions, batch)
    return texts, score(*opened, videos, split.captions.caption_id.tolist(), batch)


def apply(name: Post, scale: float, similarity: np.ndarray, bank: Bank | None) -> tuple[np.ndarray, np.ndarray]:
    """Scores for text to video and for video to text, both float64 [Q, V], from cosines [Q, V] of a split.

    `scale`: the logit scale of the model, which DSL needs; `bank`: that of QB-norm.
    """
    if bank is None:
        return dual_softmax(similarity, scale), dual_softmax(similarity.T, scale).T
    texts, clips = bank
    return querybank_norm(similarity, texts), querybank_norm(similarity.T, clips.T).T


def dual_softmax(similarity: np.ndarray, scale: float) -> np.ndarray:
    """DSL at inference (Cheng et al., arXiv 2109.04290, section 3.3): logits times their softmax over the queries.

    `similarity`: cosines [queries, gallery]; `scale`: the logit scale. A gallery item that another query prefers loses
    score.
    """
    logits = scale * torch.from_numpy(similarity.astype(np.float64))
    return _settled((logits * logits.softmax(0)).numpy())


def querybank_norm(similarity: np.ndarray, bank: np.ndarray) -> np.ndarray:
    """QB-norm with the dynamic inverted softmax (Bogolin et al., CVPR 2022, section 3), in logarithms.

    `similarity` [queries, gallery] and `bank` [bank queries, gallery]: cosines. If the best item of a query is also the
    best item of some bank query, the score of every item is divided by the bank's total for that item; scores of other
    queries are unchanged.
    """
    hubs = torch.from_numpy(bank.astype(np.float64)).mul(BETA).logsumexp(0).numpy()
    active = np.isin(similarity.argmax(1), bank.argmax(1))
    return _settled(np.where(active[:, None], BETA * similarity.astype(np.float64) - hubs, similarity))


def _settled(scores: np.ndarray) -> np.ndarray:
    """Rounded to ten significant digits, so that equal cosines give equal scores for any order of summation."""
    mantissa, exponent = np.frexp(scores)
    return np.ldexp(mantissa.round(10), exponent)


def training_queries(corpus: Corpus, most: int) -> tuple[list[str], list[str]]:
    """Ids of at most `most` training captions and as many training videos, evenly spaced over the split."""
    train = corpus.split("train")
    return _evenly(train.captions.caption_id.tolist(), most), _evenly(train.videos, most)


def _evenly(ids: list[str], most: int) -> list[str]:
    places = np.linspace(0, len(ids) - 1, min(most, len(ids))).round().astype(int)
    return [ids[place] for place in places]
