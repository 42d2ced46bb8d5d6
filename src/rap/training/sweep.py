"""`rap sweep`: the same tuning budget for every method, on validation data only.

Each variant is trained with the same number of learning rates, the same steps and the same seeds, and scored on the
split `val`. The rates are those of `sweep.lr`; a method that trains the backbone itself needs lower ones, given with
`--lr`. Options without a gradient, such as the window of a control, are swept in the same way. No test clips are read.
results/sweep.csv holds every point; params.yaml states the chosen values.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import pandas as pd
import torch

from rap import paths
from rap.adapters import registry
from rap.errors import UserError
from rap.jobs import Job
from rap.params import Params, hint
from rap.progress import progress
from rap.retrieval import metrics, twins
from rap.retrieval.corpus import Corpus, open_corpus, records
from rap.retrieval.model import Retriever, new_model
from rap.retrieval.scoring import DIGITS, score
from rap.runtime.device import setup
from rap.training.batches import Pairs
from rap.training.loop import fit
from rap.training.optimiser import optimiser
from rap.training.points import COLUMNS, chosen, read, write
from rap.training.state import State

SPLIT = "val"


def run(params: Params, names: list[str], rates: Sequence[float] = ()) -> str:
    """Train and score all points of the variants `names` that results/sweep.csv lacks; return the best values.

    `rates` replaces `sweep.lr`. The file is written after every point, so a killed sweep continues. Raises UserError
    for an unknown variant, for more or fewer rates than `sweep.lr` has, or if a cache is missing or stale.
    """
    if rates:
        params = with_rates(params, sorted(set(rates)))
    for name in names:
        if name not in params.all_variants:
            raise UserError(f"sweep: no variant named {name!r}{hint(name, params.all_variants)}")
    device = setup(params.runtime)
    found = read()
    if rates:  # these replace other rates of the same variants, so that each has one budget
        replaced = found.variant.isin(names) & (found.key == "train.lr") & ~found.value.isin(params.sweep.lr)
        found = found[~replaced]
    wanted = [(name, *point) for name in names or params.run for point in grid(params, name)]
    for name, key, value, seed in progress(wanted, "sweep", unit="point"):
        job = Job(changed(params, name, key, value), "train", {"variant": name, "seed": params.seeds[0]})
        point = Point(job, seed, device)
        same = (found.variant == name) & (found.key == key) & (found.value == value) & (found.seed == seed)
        if (found[same].provenance == point.provenance).any():
            continue
        row = {"variant": name, "key": key, "value": float(value), "seed": seed, **point.measure()}
        found = pd.concat([found[~same], pd.DataFrame([row], columns=COLUMNS)]).infer_objects().sort_values(COLUMNS[:4])
        write(found)
    best = chosen(found[found.variant.isin({name for name, *_ in wanted})])
    lines = [f"{name}: {key}: {value:g}" for name, (key, value) in best.items()]
    return "\n".join([*lines, f"{paths.sweep()}: {len(found)} points; put these values into params.yaml"])


def with_rates(params: Params, rates: Sequence[float]) -> Params:
    """The parameters with other rates; UserError if their number changes, because it is the budget of a method."""
    budget = len(params.sweep.lr)
    if len(rates) != budget or min(rates) <= 0:
        raise UserError(f"sweep: --lr names {len(rates)} rates; every method gets {budget}, above 0, as in sweep.lr")
    return params.model_copy(update={"sweep": params.sweep.model_copy(update={"lr": tuple(rates)})})


def grid(params: Params, name: str) -> Iterator[tuple[str, float, int]]:
    """The points of a variant: a key, its value, and a seed."""
    for part, options in params.sweep.options.items():
        if part in registry.method(params.variant(name).adapter).groups:
            for (key, values), seed in product(options.items(), params.sweep.seeds):
                yield from ((f"{part}.{key}", value, seed) for value in values)
            return
    if params.variant(name).adapter != "none":
        yield from (("train.lr", rate, seed) for rate, seed in product(params.sweep.lr, params.sweep.seeds))


def changed(params: Params, name: str, key: str, value: float) -> Params:
    """The parameters with another value of one key of a variant, such as train.lr or window.last."""
    variant, (part, option) = params.variant(name), key.split(".")
    values = variant.model_dump()
    values[part] = {**values.get(part, {}), option: value if part == "train" else int(value)}
    return params.model_copy(
        update={"variants": {**params.variants, name: type(variant)(**values)}, "run": (*params.run, name)}
    )


class Point:
    """One training of a sweep. Its `provenance` covers parameters, source code, and the content of every input."""

    def __init__(self, job: Job, seed: int, device: torch.device):
        self.job, self.seed, self.name = job, seed, job.item["variant"]
        self.model, _ = new_model(job.params, self.name, seed, device)
        job.reads(paths.backbone(job.params.backbone.name).record)
        for record in records(job.params, self.model):
            job.reads(record)

    @property
    def provenance(self) -> str:
        return self.job.provenance.digest[:16]

    def measure(self) -> dict[str, Any]:
        """Train, and score the validation split: R@1 of text to video and twin accuracy, in percent."""
        params, settings = self.job.params, self.job.params.training(self.name)
        corpus, steps = open_corpus(params, self.model), 0
        weights = [p for p in self.model.adapter.parameters() if p.requires_grad]
        if weights:
            pairs = Pairs(corpus, settings, self.seed)
            state, steps = State(self.model.adapter, *optimiser(weights, pairs.steps, settings)), pairs.steps
            last = settings.model_copy(update={"select": "last", "checkpoint_every": steps + 1})
            fit(self.model, pairs, state, last, params.runtime, f"{self.name} seed {self.seed}", lambda: None)
        return {"steps": steps, **scored(self.model, corpus, settings.batch), "provenance": self.provenance}


def scored(model: Retriever, corpus: Corpus, batch: int) -> dict[str, float]:
    """R@1 and twin accuracy of the validation split, in percent; no twins: NaN."""
    split = corpus.split(SPLIT)
    captions = split.captions.caption_id.tolist()
    similarity = score(model, corpus.video, corpus.text, split.videos, captions, batch).round(DIGITS)
    twin_of = corpus.manifest.videos.set_index("video_id").twin
    partner = twins.partners(split.videos, [twin_of[id] for id in split.videos])
    accuracy, _ = twins.accuracy(twins.wins(similarity, split.owner, partner), [""] * len(captions))
    recall = metrics.summary(metrics.text_to_video(similarity, split.owner))["R@1"]
    return {"R@1": recall, "twin": accuracy.get("all", float("nan"))}
