"""What several processes of a training make of one batch: run by torchrun in a tiny project, written down by the first.

torchrun --nproc-per-node 2 tests/helpers/together.py OUTPUT [VARIANT ...]
"""

import sys

import torch

from rap import params
from rap.retrieval.corpus import open_corpus
from rap.retrieval.loss import LOSSES
from rap.retrieval.model import new_model
from rap.runtime import distributed
from rap.runtime.device import setup

BATCHES = (8, 7, 3)  # pairs: even, uneven, and fewer than there may be processes


def gradients(settings: params.Params, variant: str, pairs: int) -> dict[str, torch.Tensor]:
    """The loss of a batch of so many pairs of the training split, and its gradient by everything that is trained."""
    device = setup(settings.runtime)
    model, _ = new_model(settings, variant, 0, device)
    corpus = open_corpus(settings, model)
    torch.manual_seed(1)
    for weight in model.adapter.parameters():  # away from step 0, where much of a gradient is zero
        if weight.requires_grad:
            weight.data += 0.02 * torch.randn(weight.shape)
    chosen = corpus.split("train").captions.iloc[:pairs]
    own = distributed.share(range(pairs))
    owners = chosen.video_id.tolist()
    clips = corpus.video.batch([owners[i] for i in own]).to(device)
    captions = corpus.text.batch([chosen.caption_id.iloc[i] for i in own]).to(device)
    positives = torch.tensor([[a == b for b in owners] for a in owners])
    logits = model.clip.logits(model.train().similarity(clips, captions))
    loss = LOSSES[settings.training(variant).loss](logits, positives)
    loss.backward()
    trained = {name: weight for name, weight in model.adapter.named_parameters() if weight.requires_grad}
    distributed.sum_gradients(trained.values())
    return {"loss": loss.detach(), **{name: weight.grad for name, weight in trained.items() if weight.grad is not None}}


def every(settings: params.Params, variants: list[str]) -> dict[str, dict[str, torch.Tensor]]:
    return {f"{name} {pairs}": gradients(settings, name, pairs) for name in variants for pairs in BATCHES}


if __name__ == "__main__":
    found = every(params.load(), sys.argv[2:])
    if distributed.is_main():
        torch.save(found, sys.argv[1])
    torch.distributed.destroy_process_group()  # its threads abort a process that ends while they run
