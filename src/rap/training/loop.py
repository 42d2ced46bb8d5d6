"""The training loop: an adapter learns from the cache, exactly as it would from frames."""

import math
import time
from collections.abc import Callable

import torch

from rap.errors import UserError
from rap.params import Runtime, Train
from rap.progress import progress
from rap.retrieval import metrics
from rap.retrieval.corpus import Corpus
from rap.retrieval.loss import LOSSES
from rap.retrieval.model import Retriever
from rap.retrieval.scoring import score
from rap.runtime import distributed
from rap.runtime.device import autocast
from rap.training.batches import Pairs
from rap.training.state import State

COLUMNS = ["step", "epoch", "lr", "loss", "grad_norm"]  # of history.csv
SETTLE = 10  # steps between two reads of the losses: a read waits for the GPU


def fit(
    model: Retriever,
    pairs: Pairs,
    state: State,
    settings: Train,
    runtime: Runtime,
    title: str,
    save: Callable[[], None],
) -> None:
    """Train from the step of `state` to the last one; `save` writes a checkpoint. All processes take the same steps.

    Raises UserError if a loss is not finite.
    """
    assert distributed.size() == runtime.processes, "start it as `rap train`, or with torchrun"
    model.train()
    device = model.clip.logit_scale.device
    weights = [p for p in model.adapter.parameters() if p.requires_grad]
    began = time.perf_counter() - state.seconds
    with progress(total=pairs.steps, initial=state.step, desc=title, unit="step", leave=False) as bar:
        for step, clips, captions, positives in pairs.batches(state.step):
            with autocast(runtime, device):
                similarity = model.similarity(clips.to(device), captions.to(device))
            loss = LOSSES[settings.loss](model.clip.logits(similarity.float()), positives.to(device))
            state.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            distributed.sum_gradients(weights)
            norm = torch.nn.utils.clip_grad_norm_(weights, settings.clip_norm)
            lr = state.schedule.get_last_lr()[0]
            state.optimiser.step()
            state.schedule.step()
            state.step = step + 1
            state.recent.append(([step, step // pairs.per_epoch, lr], torch.stack([loss.detach(), norm])))
            epoch_ends, saves = state.step % pairs.per_epoch == 0, state.step % settings.checkpoint_every == 0
            if epoch_ends or saves or len(state.recent) == SETTLE:
                settle(state)
                state.seconds = time.perf_counter() - began
                bar.set_postfix(loss=f"{state.history[-1][3]:.3f}", refresh=False)
            if epoch_ends and settings.select != "last":
                select(model, pairs.corpus, state, settings)
            if saves:
                save()
            bar.update()


def settle(state: State) -> None:
    """Move the recent steps into the history; waits for a GPU. Raises UserError if a loss is not finite."""
    for row, figures in state.recent:
        state.history.append([*row, *figures.tolist()])
        if not math.isfinite(state.history[-1][3]):
            raise UserError(f"train: the loss is not finite at step {row[0]}; lower the variant's train.lr")
    state.recent.clear()


def select(model: Retriever, corpus: Corpus, state: State, settings: Train) -> None:
    """At the end of an epoch, keep the weights if they are the best so far on the split `settings.select`."""
    split = corpus.split(settings.select)
    captions = split.captions.caption_id.tolist()
    similarity = score(model, corpus.video, corpus.text, split.videos, captions, settings.batch)
    recall = metrics.summary(metrics.text_to_video(similarity, split.owner))["R@1"]
    if state.best is None or recall > state.best[0]:
        weights = {name: tensor.clone() for name, tensor in model.adapter.state_dict().items()}
        state.best = (recall, state.history[-1][1], weights)
    model.train()
