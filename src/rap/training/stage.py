"""The train stage: one variant with one seed."""

import time
from typing import TYPE_CHECKING

import pandas as pd
import torch

from rap import paths
from rap.features.cache import deeper
from rap.files import atomic, digest, digest_file, write_checked
from rap.params import Params
from rap.retrieval import adapter_file
from rap.retrieval.adapter_file import Header
from rap.retrieval.corpus import Corpus, open_corpus, records
from rap.retrieval.loss import refuse_unfit
from rap.retrieval.model import Retriever, new_model
from rap.runtime import distributed
from rap.runtime.device import setup
from rap.training import costs
from rap.training.batches import Pairs
from rap.training.loop import COLUMNS, fit
from rap.training.optimiser import optimiser
from rap.training.run import Costs, Run
from rap.training.state import State

if TYPE_CHECKING:
    from rap.jobs import Job


def run(job: "Job", variant: str, seed: int) -> str:
    """Write adapter.safetensors, history.csv, costs.json and the record run.json to results/runs/VARIANT/seed-S/.

    A killed training continues from its last checkpoint and ends with the same bytes. With several processes, the main
    process writes.
    """
    began, params, settings = time.time(), job.params, job.params.training(variant)
    device = setup(params.runtime)
    model, config = new_model(params, variant, seed, device)
    job.reads(paths.backbone(params.backbone.name).record)
    for record in records(params, model):
        job.reads(record)
    refuse_unfit(settings.loss, model.clip)
    corpus = open_corpus(params, model)
    if not model.adapter.count:
        settings = settings.model_copy(update={"epochs": 0})
    pairs = Pairs(corpus, settings, seed)
    weights = [p for p in model.adapter.parameters() if p.requires_grad]
    state = State(model.adapter, *optimiser(weights, pairs.steps, settings))
    checkpoint, provenance = paths.run(variant, seed).checkpoint, job.provenance.digest
    state.resume(checkpoint, provenance, device)

    def save() -> None:
        if distributed.is_main():
            state.save(checkpoint, provenance)

    fit(model, pairs, state, settings, params.runtime, f"{variant} seed {seed}", save)
    if not distributed.is_main():
        return ""
    if state.best is not None:
        model.adapter.load_state_dict(state.best[2])
    header = adapter_file.header(params, variant, seed, config)
    facts = _facts(params, header, config, model, pairs, state)
    _write(job, header, facts, model, corpus, state, began)
    checkpoint.unlink(missing_ok=True)
    deep = deeper(corpus.video.name, "video", model.clip.visual, model.adapter.video.first_block)
    hint = f"; with {deep} in features.caches, it would compute less" if deep and state.history else ""
    last = f", loss {state.history[-1][3]:.3f}" if state.history else ""
    return (
        f"{paths.run(variant, seed)}: {facts.parameters:,} trainable parameters, {facts.steps} steps on "
        f"{facts.pairs} pairs from {facts.caches['video']}{last}{hint}"
    )


def _facts(params: Params, header: Header, config: dict, model: Retriever, pairs: Pairs, state: State) -> Run:
    corpus, settings = pairs.corpus, params.training(header.trained.variant)
    return Run(
        **header.trained.model_dump(),
        adapter=header.adapter,
        options=header.options,
        frames=header.frames.model_dump(mode="json"),
        train=settings.model_dump(mode="json"),
        caches={"video": corpus.video.name, "text": corpus.text.name},
        backbone=config["name"],
        weights=config["digest"],
        parameters=model.adapter.count,
        selected=settings.select,
        selected_epoch=state.best[1] if state.best else pairs.epochs - 1,
        epochs=pairs.epochs,
        steps=pairs.steps,
        videos=pairs.videos,
        pairs=len(pairs.captions),
    )


def _write(
    job: "Job", header: Header, facts: Run, model: Retriever, corpus: Corpus, state: State, began: float
) -> None:
    """Write the files of a finished training, its record last."""
    params, folder = job.params, paths.run(facts.variant, facts.seed)
    folder.record.unlink(missing_ok=True)
    adapter_file.save_pretrained(model.adapter, header, folder.adapter)
    with atomic(folder.history) as path:
        pd.DataFrame(state.history, columns=COLUMNS).to_csv(path, index=False, lineterminator="\n")
    device = model.clip.logit_scale.device
    measured = Costs(
        began=round(began, 3),
        ended=round(time.time(), 3),
        train_seconds=round(state.seconds, 3),
        peak_memory_bytes=costs.peak_memory(device),
        cache_bytes=corpus.video.nbytes + corpus.text.nbytes,
        flops_per_clip=costs.flops_per_clip(model, params.frames.count),
        index_bytes_per_video=costs.index_bytes_per_video(model, params.frames.count),
        device=torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
    )
    write_checked(folder.costs, measured.model_dump())
    files = {file.name: digest_file(file) for file in folder.trained}
    said = facts.model_dump(mode="json")
    job.result(digest([files, said]), files, **said).write(folder.record)
