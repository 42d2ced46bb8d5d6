"""The train stage: an adapter learns from the cache, exactly as it would from frames."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from rap.errors import UserError
from rap.features.cache import Batch
from rap.files import atomic, read_json, write_json
from rap.params import Params, Train
from rap.retrieval import metrics
from rap.retrieval import pretrained as portable
from rap.retrieval.loss import info_nce
from rap.retrieval.scoring import score
from rap.runtime import distributed
from rap.runtime.device import autocast
from rap.runtime.prefetch import prefetch
from rap.training import costs
from rap.training.run import Experiment, Split

FILES = ("adapter.safetensors", "history.csv", "costs.json", "run.json")  # run.json last: it says that all are there
SETTLE = 10  # steps after which a GPU is waited for, to look at the losses
COLUMNS = ["step", "epoch", "lr", "loss", "grad_norm"]


def run(params: Params, variant: str, seed: int) -> str:
    """Train one variant with one seed; write results/runs/VARIANT/seed-S/ (FILES).

    A run whose parameters, data, weights and code have not changed is left as it is. A killed run goes on from its
    last checkpoint and ends with the same bytes. Of several processes the first one writes.
    """
    experiment = Experiment(params, variant, seed)
    finished = up_to_date(experiment)
    distributed.wait()  # nobody writes before all have looked
    if finished:
        for name in FILES:
            (experiment.folder / name).touch()
        return f"{experiment.folder}: up to date"
    data = Pairs(experiment.split("train"), experiment)
    state = State.begin(experiment, data)
    fit(experiment, data, state)
    if not distributed.is_main():
        return ""
    record(experiment, data, state)
    last = f", loss {state.history[-1][3]:.3f}" if state.history else ""
    return (
        f"{experiment.folder}: {experiment.adapter.count:,} trainable parameters, {data.steps} steps on "
        f"{len(data.captions)} pairs from {experiment.names['video']}{last}"
    )


def up_to_date(experiment: Experiment) -> bool:
    files = [experiment.folder / name for name in FILES]
    return all(file.exists() for file in files) and read_json(files[-1])["digests"] == experiment.digests


class Pairs:
    """Pairs of a caption and its clip, in an order that depends on the seed and the epoch alone."""

    def __init__(self, split: Split, experiment: Experiment):
        self.captions, self.owners = split.captions.caption_id.tolist(), split.captions.video_id.tolist()
        self.numbers = torch.from_numpy(pd.factorize(split.captions.video_id)[0])  # of the owners
        self.units = units(split.captions, experiment.manifest.videos, experiment.train.twins)
        self.videos = len(split.videos)
        self.video, self.text, self.seed = experiment.video, experiment.text, experiment.seed
        self.batch = min(experiment.train.batch, len(self.captions))
        self.epochs = experiment.train.epochs if experiment.adapter.count else 0
        if self.videos < 2:
            raise UserError("train: fewer than two usable training videos; contrast needs at least two")

    @property
    def steps(self) -> int:
        return self.epochs * self.per_epoch

    @property
    def per_epoch(self) -> int:
        return math.ceil(len(self.captions) / self.batch)

    def batches(self, start: int) -> Iterator[tuple[int, Batch, Batch, Tensor]]:
        """From step `start` on, read ahead: step, clips, captions, and which of them belong together [B, B].

        Of several processes each gets its share of the clips and captions of a step, and the whole of the last.
        """
        return prefetch(self._batches(start))

    def _batches(self, start: int) -> Iterator[tuple[int, Batch, Batch, Tensor]]:
        order: list[int] = []
        for step in range(start, self.steps):
            epoch, number = divmod(step, self.per_epoch)
            if number == 0 or not order:
                order = self._order(epoch)
            chosen = order[number * self.batch : (number + 1) * self.batch]
            numbers, own = self.numbers[chosen], distributed.share(chosen)
            clips = self.video.batch([self.owners[i] for i in own]).pinned()
            captions = self.text.batch([self.captions[i] for i in own]).pinned()
            yield step, clips, captions, numbers[:, None] == numbers

    def _order(self, epoch: int) -> list[int]:
        """Rows of the captions in the order of an epoch."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        shuffled = torch.randperm(len(self.units), generator=generator).tolist()
        return [row for unit in shuffled for row in self.units[unit]]


def units(captions: pd.DataFrame, videos: pd.DataFrame, twins: bool) -> list[list[int]]:
    """Rows of `captions` that stand side by side in every epoch's order: each alone or, with `twins`, the n-th caption
    of a clip and the n-th of its twin. A clip and its reversal in one batch are each other's hardest negatives."""
    if not twins:
        return [[row] for row in range(len(captions))]
    twin = videos.set_index("video_id").twin
    scene = captions.video_id.map(lambda id: min(id, twin[id] or id))
    number = captions.groupby("video_id").cumcount()
    return [rows.tolist() for rows in captions.groupby([scene, number]).indices.values()]


@dataclass
class State:
    """What a checkpoint holds: all that the next step depends on, and what was learnt on the way."""

    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    step: int = 0
    seconds: float = 0.0
    history: list[list] = field(default_factory=list)
    best: tuple[float, int, dict] | None = None  # R@1 on the split that selects, its epoch, the weights
    recent: list[tuple[list, Tensor]] = field(default_factory=list)  # steps whose loss and norm are still on the device

    @classmethod
    def begin(cls, experiment: Experiment, data: Pairs) -> "State":
        """Fresh, or from the checkpoint of a killed run with the same digests."""
        optimizer = torch.optim.AdamW(groups(experiment), lr=experiment.train.lr)
        shape = rate(data.steps, experiment.train)
        state = cls(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, shape))
        path = checkpoint(experiment)
        if path.exists():
            saved = torch.load(path, map_location=experiment.device, weights_only=True)
            if saved["digests"] == experiment.digests:
                experiment.adapter.load_state_dict(saved["adapter"])
                optimizer.load_state_dict(saved["optimizer"])
                state.schedule.load_state_dict(saved["schedule"])
                state.step, state.seconds = saved["step"], saved["seconds"]
                state.history, state.best = saved["history"], saved["best"]
        return state

    def settle(self, experiment: Experiment) -> None:
        """Take the recent steps into the history; a GPU is waited for. Raises UserError if a loss is no number."""
        for row, figures in self.recent:
            self.history.append([*row, *figures.tolist()])
            if not math.isfinite(self.history[-1][3]):
                where = experiment.params.path(experiment.variant)
                raise UserError(f"params.yaml: {where}: the loss is no number at step {row[0]}; lower train.lr")
        self.recent.clear()

    def save(self, experiment: Experiment) -> None:
        if not distributed.is_main():
            return
        with atomic(checkpoint(experiment)) as path:
            values = {
                "digests": experiment.digests,
                "adapter": experiment.adapter.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
            }
            fields = {name: getattr(self, name) for name in ("step", "seconds", "history", "best")}
            torch.save(values | fields, path)


def checkpoint(experiment: Experiment) -> Path:
    return experiment.folder / "checkpoint.pt"


def groups(experiment: Experiment) -> list[dict]:
    """Weight decay on matrices only: not on scales, shifts, biases and gates, as CLIP was trained."""
    weights = [p for p in experiment.adapter.parameters() if p.requires_grad]
    flat = [p for p in weights if p.ndim < 2]
    return [
        {"params": [p for p in weights if p.ndim >= 2], "weight_decay": experiment.train.weight_decay},
        {"params": flat or [torch.nn.Parameter(torch.zeros(()))], "weight_decay": 0.0},
    ]


def rate(steps: int, train: Train):
    """The learning rate's shape over the steps: a linear rise, then a cosine down to zero."""
    rise = max(1, round(train.warmup * steps))

    def shape(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))

    return shape


def fit(experiment: Experiment, data: Pairs, state: State) -> None:
    """The training loop, from wherever `state` stands to the last step. All processes take the same steps."""
    assert distributed.size() == experiment.params.runtime.processes, "start it as `rap train`, or with torchrun"
    model, train, device = experiment.model.train(), experiment.train, experiment.device
    weights = [p for p in experiment.adapter.parameters() if p.requires_grad]
    began = time.perf_counter() - state.seconds
    title = f"{experiment.variant} seed {experiment.seed}"
    with tqdm(total=data.steps, initial=state.step, desc=title, unit="step", leave=False) as bar:
        for step, clips, captions, positives in data.batches(state.step):
            with autocast(experiment.params.runtime, device):
                similarity = model.similarity(clips.to(device), captions.to(device))
            loss = info_nce(similarity.float(), model.clip.logit_scale, positives.to(device))
            state.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            distributed.sum_gradients(weights)
            norm = torch.nn.utils.clip_grad_norm_(weights, train.clip_norm)
            lr = state.schedule.get_last_lr()[0]
            state.optimizer.step()
            state.schedule.step()
            state.step = step + 1
            state.recent.append(([step, step // data.per_epoch, lr], torch.stack([loss.detach(), norm])))
            epoch_ends, saves = state.step % data.per_epoch == 0, state.step % train.checkpoint_every == 0
            if epoch_ends or saves or len(state.recent) == SETTLE:
                state.settle(experiment)
                state.seconds = time.perf_counter() - began
                bar.set_postfix(loss=f"{state.history[-1][3]:.3f}", refresh=False)
            if epoch_ends:
                select(experiment, state)
            if saves:
                state.save(experiment)
            bar.update()


def select(experiment: Experiment, state: State) -> None:
    """At the end of an epoch, keep the weights if they are the best so far on the split that selects, if one does."""
    if experiment.train.select == "last":
        return
    split = experiment.split(experiment.train.select)
    columns = {id: column for column, id in enumerate(split.videos)}
    captions = split.captions.caption_id.tolist()
    found = score(experiment.model, experiment.video, experiment.text, split.videos, captions, experiment.train.batch)
    owner = split.captions.video_id.map(columns).to_numpy(int)
    recall = metrics.summary(metrics.text_to_video(found, owner))["R@1"]
    if state.best is None or recall > state.best[0]:
        weights = {name: tensor.clone() for name, tensor in experiment.adapter.state_dict().items()}
        state.best = (recall, state.history[-1][1], weights)
    experiment.model.train()


def record(experiment: Experiment, data: Pairs, state: State) -> None:
    """Write the files of a finished run, run.json last."""
    if state.best is not None:
        experiment.adapter.load_state_dict(state.best[2])
    params = experiment.params
    portable.save(experiment, experiment.folder / FILES[0])
    with atomic(experiment.folder / FILES[1]) as path:
        pd.DataFrame(state.history, columns=COLUMNS).to_csv(path, index=False, lineterminator="\n")
    write_json(
        experiment.folder / FILES[2],
        {
            "train_seconds": round(state.seconds, 3),
            "peak_memory_bytes": costs.peak_memory(experiment.device),
            "cache_bytes": experiment.video.nbytes + experiment.text.nbytes,
            "flops_per_clip": costs.flops_per_clip(experiment.model, params.frames.count),
            "index_bytes_per_video": costs.index_bytes_per_video(experiment.model, params.frames.count),
            "device": torch.cuda.get_device_name() if experiment.device.type == "cuda" else "cpu",
        },
    )
    write_json(
        experiment.folder / FILES[3],
        {
            "variant": experiment.variant,
            "seed": experiment.seed,
            "dataset": params.dataset.name,
            "parameters": experiment.adapter.count,
            **{key: portable.header(experiment)[key] for key in ("adapter", "options", "frames")},
            "train": experiment.train.model_dump(mode="json"),
            "caches": experiment.names,
            "backbone": experiment.config["name"],
            "digests": experiment.digests,
            "selected": experiment.train.select,
            "selected_epoch": state.best[1] if state.best else data.epochs - 1,
            "epochs": data.epochs,
            "steps": data.steps,
            "videos": data.videos,
            "pairs": len(data.captions),
        },
    )
    checkpoint(experiment).unlink(missing_ok=True)
