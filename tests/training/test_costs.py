"""Counted costs against closed forms."""

import pytest
import tiny
import torch

from rap.adapters import registry
from rap.params import Variant
from rap.retrieval.model import Retriever
from rap.training import costs

T, N, D, L, E, PATCH = 4, 17, 24, 3, 16, 3 * 8 * 8  # frames, tokens, width, blocks, joint space, numbers in a patch


@pytest.fixture
def make(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = tiny.project(tmp_path)

    def build(name: str, **options) -> Retriever:
        chosen = settings.model_copy(update={"variants": {name: Variant(adapter=name, **options)}, "run": (name,)})
        clip = tiny.clip()
        return Retriever(clip, registry.build(clip, chosen, name))

    return build


def test_flops_of_zero_shot_are_the_closed_form(make):
    block = 2 * (12 * N * D * D) + 2 * (2 * N * N * D)  # projections and MLP, then scores and their weighted sum
    last = 2 * (2 * N + 10) * D * D + 2 * (2 * N * D)  # only one token has a query and passes the MLP
    frame = 2 * (N - 1) * PATCH * D + (L - 1) * block + last + 2 * D * E
    assert costs.flops_per_clip(make("none"), T) == T * frame


@pytest.mark.parametrize("method", registry.names())
def test_every_method_is_counted(make, method):
    assert costs.flops_per_clip(make(method), T) > 0


def test_the_added_operations_of_a_method_are_counted(make):
    lora = make("lora", lora={"rank": 2})
    qkv, out = 2 * (D + 3 * D) * 2, 2 * (D + D) * 2
    added = T * (L * N * qkv + ((L - 1) * N + 1) * out)
    assert costs.flops_per_clip(lora, T) - costs.flops_per_clip(make("none"), T) == added


@pytest.mark.parametrize(
    ("head", "added"), [("lstm", 2 * T * 8 * E * E), ("transformer", 2 * T * (12 * E + 2 * T) * E)]
)
def test_a_head_on_the_frame_embeddings_is_counted(make, head, added):
    model = make("sequential", sequential={"head": head, "tune": "none"})
    assert costs.flops_per_clip(model, T) - costs.flops_per_clip(make("none"), T) == added


def test_an_index_holds_embeddings_or_the_tokens_of_a_text_conditioned_method(make):
    assert costs.index_bytes_per_video(make("rap"), T) == 4 * E
    text = make("asa", asa={"form": "attention", "query": "text", "top_k": 2, "blocks": [1]})
    assert costs.index_bytes_per_video(text, T) == 4 * T * N * D
    assert costs.flops_per_clip(text, T) > costs.flops_per_clip(make("none"), T)
    assert torch.is_grad_enabled()
