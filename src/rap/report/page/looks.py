"""What LoRM and ASA learnt: the modulation of each frame in each block, and the places that ASA reads and writes."""

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from rap import paths
from rap.adapters.asa import ASA, Correlation
from rap.adapters.base import Stack
from rap.adapters.lorm import LoRM
from rap.clip.towers import INPUT, Context
from rap.data.manifest import Manifest
from rap.frames.pictures import Pictures
from rap.params import Params
from rap.report.plots import COLOURS, INK, PALE, style
from rap.retrieval import adapter_file
from rap.retrieval.model import Retriever, new_model

CLIPS = 4  # clips in the figure of ASA
MARKED = 3  # patches per frame that ASA changes most


def modulation(params: Params) -> Figure | None:
    """For each site of LoRM, the norm of its scale and of its shift over frames; the mean over seeds.

    The LoRM is that of the last variant of the default run that has one.
    """
    variant = _last_with(LoRM, params)
    if variant is None:
        return None
    found = [_find(_model(params, variant, seed).adapter.video, LoRM) for seed in params.seeds]
    names, frames_ = list(found[0].scale), params.frames.count
    with style():
        figure = Figure(figsize=(9.6, 1.4 + 0.42 * len(names)), layout="constrained")
        figure.suptitle(params.variant(variant).label or variant)
        panels = figure.subplots(1, 2, sharey=True)
        for axes, kind in zip(panels, ("scale", "shift"), strict=True):
            norms = torch.stack([_norms(getattr(lorm, kind), names, frames_) for lorm in found]).mean(0)
            image = axes.imshow(norms.numpy(), cmap="Purples", aspect="auto", vmin=0)
            axes.set_title(f"LoRM: size of the {kind}")
            axes.set_xticks(range(frames_), range(1, frames_ + 1))
            axes.set_xlabel("Frame")
            axes.set_yticks(range(len(names)), [name.replace("-", " of block ") for name in names])
            axes.spines[:].set_visible(False)
            figure.colorbar(image, ax=axes, shrink=0.9)
    return figure


def _norms(parts: nn.ModuleDict, names: list[str], count: int) -> Tensor:
    """The norm over channels, for each place and frame, [places, T]."""
    whole = torch.tensor([count])
    with torch.no_grad():
        rows = [parts[name](torch.zeros(1, count, 1), whole, None)[0].mean(1).norm(dim=-1) for name in names]
    return torch.stack(rows)


def where_asa_writes(params: Params) -> Figure | None:
    """Clips with the patches that ASA changes most in its last block; below each, the places that its heads read.

    The ASA is that of the last variant of the default run that has one. The clips are at even distances of the
    test split. The size of a change is the norm of ASA's addition to a patch.
    """
    variant = _last_with(ASA, params)
    if variant is None:
        return None
    model = _model(params, variant, params.seeds[0])
    asa = _find(model.adapter.video, ASA)
    split = Manifest.read(paths.manifest(params.dataset.name)).split("test").videos
    usable = split[split.status == "ok"].video_id.iloc[:: max(1, len(split) // CLIPS)][:CLIPS]
    pictures = Pictures(params)
    clips = [(id, pictures.strip(id, params.frames.count)) for id in usable]
    layer = max(map(int, asa.correlations))
    count, grid = max(len(clip) for _, clip in clips), model.clip.visual.grid
    with style():
        figure = Figure(figsize=(1.1 * count + 0.2, 1.15 * len(clips) + 2.6), layout="constrained")
        figure.suptitle(params.variant(variant).label or variant)
        rows = figure.add_gridspec(len(clips) + 1, 1, height_ratios=[1] * len(clips) + [1.9])
        for place, (_, clip) in enumerate(clips):
            changes = _changes(model, asa, layer, clip)
            cells = rows[place].subgridspec(1, count, wspace=0.02)
            for number, frame in enumerate(clip):
                _frame(figure.add_subplot(cells[number]), frame, changes[number], grid)
        _offsets(figure.add_subplot(rows[-1]), asa, layer)
    return figure


def _frame(axes, frame: np.ndarray, changes: np.ndarray, grid: int) -> None:
    axes.imshow(frame)
    axes.set_axis_off()
    side = frame.shape[0] / grid
    for rank, patch in enumerate(np.argsort(-changes)[:MARKED]):
        corner = (patch % grid * side, patch // grid * side)
        width = 2.2 - 0.6 * rank
        axes.add_patch(Rectangle(corner, side, side, fill=False, edgecolor="#FFD23F", linewidth=width + 1.2))
        axes.add_patch(Rectangle(corner, side, side, fill=False, edgecolor=INK, linewidth=width - 0.8))


def _offsets(axes, asa: ASA, layer: int) -> None:
    """One arrow for each head: frames ahead, and patches to the right; its label gives the patches down."""
    part = asa.correlations[str(layer)]
    assert isinstance(part, Correlation)
    delta = part.delta.detach().numpy()
    gamma = np.zeros((len(delta), 2)) if part.gamma is None else part.gamma.detach().numpy()
    axes.plot(0, 0, "s", color=PALE, markersize=9)
    for head, (frame, (right, down)) in enumerate(zip(delta, gamma, strict=True)):
        colour = COLOURS[head % len(COLOURS)]
        axes.annotate("", (frame, right), (0, 0), arrowprops={"arrowstyle": "->", "color": colour, "linewidth": 1.6})
        axes.annotate(
            f"head {head + 1}: down {down:+.1f}", (frame, right), (4, 6), textcoords="offset points", fontsize=8
        )
    reach = max(2.5, np.abs(delta).max() + 1), max(1.5, np.abs(gamma).max() + 0.6)
    axes.set_xlim(-reach[0], reach[0])
    axes.set_ylim(-reach[1], reach[1])
    axes.set_xlabel("Frames later")
    axes.set_ylabel("Patches to the right")
    axes.set_title(f"Where the heads of ASA read from, block {layer}")


def _changes(model: Retriever, asa: ASA, layer: int, clip: np.ndarray) -> np.ndarray:
    """The norm of ASA's addition to each patch of each frame, [T, N]."""
    taken: list[Tensor] = []
    part = asa.correlations[str(layer)]
    hook = part.register_forward_hook(lambda _, inputs, output: taken.append((output - inputs[0]).norm(dim=-1)))
    tower = model.clip.visual
    context = Context(tower, torch.tensor([len(clip)]))
    with torch.no_grad():
        tower.run(torch.from_numpy(clip)[None], INPUT, tower.all, context, model.adapter.video)
    hook.remove()
    return taken[0][0, :, tower.class_tokens :].numpy()


def _last_with(kind: type, params: Params) -> str | None:
    """The last variant of the default run whose video tower has a tuner of this kind and takes no text."""
    for variant in reversed(params.run):
        model, _ = new_model(params, variant, params.seeds[0], torch.device("cpu"))
        if not model.conditioned and _find(model.adapter.video, kind) is not None:
            return variant
    return None


def _model(params: Params, variant: str, seed: int) -> Retriever:
    """A trained variant on the CPU."""
    model, _ = new_model(params, variant, seed, torch.device("cpu"))
    _, weights = adapter_file.read(paths.run(variant, seed).adapter)
    model.adapter.load_state_dict(weights)
    return model.eval()


def _find(tuner: nn.Module, kind: type):
    parts = list(tuner.tuners) if isinstance(tuner, Stack) else [tuner]
    return next((part for part in parts if isinstance(part, kind)), None)
