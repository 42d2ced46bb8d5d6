"""Post-processing of a similarity matrix by what other queries score: rows of their own in a table, off by default.

DSL reads all test queries at once. A search engine that answers one query at a time has none of them, so its row rests
on test-set information. QB-norm reads a bank of training queries instead.
"""

import numpy as np
import torch

from rap.params import Post
from rap.retrieval.scoring import score
from rap.training.run import Experiment, Split

LABELS = {"dsl": "DSL", "qb_norm": "QB-norm"}
ABOUT = {
    "dsl": "+ DSL re-weights the scores by all test queries at once: test-set information.",
    "qb_norm": "+ QB-norm re-weights them by a bank of training captions and clips.",
}
BETA = 20.0  # inverse temperature of QB-norm in its authors' code


Bank = tuple[
    np.ndarray, np.ndarray
]  # cosines of training captions with a split's videos, of training clips with its captions


def bank(name: Post, experiment: Experiment, split: Split) -> Bank | None:
    """What a method reads beside the cosines of the split: [bank captions, V] and [Q, bank clips], or nothing."""
    if name == "dsl":
        return None
    captions, videos = training_queries(experiment)
    opened, batch = (experiment.model, experiment.video, experiment.text), experiment.params.features.batch
    texts = score(*opened, split.videos, captions, batch)
    return texts, score(*opened, videos, split.captions.caption_id.tolist(), batch)


def apply(
    name: Post, experiment: Experiment, similarity: np.ndarray, bank: Bank | None
) -> tuple[np.ndarray, np.ndarray]:
    """The scores of text to video and of video to text, both float64 [Q, V], from cosines [Q, V] of a split."""
    if name == "dsl":
        scale = float(experiment.model.clip.logit_scale.exp())
        return dual_softmax(similarity, scale), dual_softmax(similarity.T, scale).T
    texts, clips = bank
    return querybank_norm(similarity, texts), querybank_norm(similarity.T, clips.T).T


def dual_softmax(similarity: np.ndarray, scale: float) -> np.ndarray:
    """DSL at inference (Cheng et al., arXiv 2109.04290, section 3.3): logits times their softmax over the queries.

    `similarity`: cosines [queries, gallery]; `scale`: what makes logits of them. A gallery item that another query
    likes better loses.
    """
    logits = scale * torch.from_numpy(similarity.astype(np.float64))
    return _settled((logits * logits.softmax(0)).numpy())


def querybank_norm(similarity: np.ndarray, bank: np.ndarray) -> np.ndarray:
    """QB-norm with the dynamic inverted softmax (Bogolin et al., CVPR 2022, section 3), in logarithms.

    `similarity` [queries, gallery] and `bank` [bank queries, gallery]: cosines. A query whose best item is the best of
    some bank query has every item's score divided by what the bank gives to the item; other queries stay as they are.
    """
    hubs = torch.from_numpy(bank.astype(np.float64)).mul(BETA).logsumexp(0).numpy()
    active = np.isin(similarity.argmax(1), bank.argmax(1))
    return _settled(np.where(active[:, None], BETA * similarity.astype(np.float64) - hubs, similarity))


def _settled(scores: np.ndarray) -> np.ndarray:
    """To ten significant digits: equal cosines must give equal scores, in whatever order their sums were taken."""
    mantissa, exponent = np.frexp(scores)
    return np.ldexp(mantissa.round(10), exponent)


def training_queries(experiment: Experiment) -> tuple[list[str], list[str]]:
    """Ids of training captions and of training videos, at most `evaluation.bank` of each, evenly over the split."""
    train, most = experiment.split("train"), experiment.params.evaluation.bank
    captions = train.captions.caption_id.tolist()
    return _evenly(captions, most), _evenly(train.videos, most)


def _evenly(ids: list[str], most: int) -> list[str]:
    places = np.linspace(0, len(ids) - 1, min(most, len(ids))).round().astype(int)
    return [ids[place] for place in places]
