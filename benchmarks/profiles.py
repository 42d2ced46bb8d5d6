"""Where the time of a training step goes, by kinds of operations: with no adapter, with LoRM, with RAP.

    python benchmarks/profiles.py [--batch 2] [--frames 12]

The bare step and the train stage's step of step.py, from block 0 and in the last block, of ViT-B/32 and, with 16 times
the clips, of the demo's backbone; on one core, so that an operation's time is its own. `rest` is all that is neither of
the kinds before it: small operations, Python between them, reading rows, the optimizer. Three minutes.
"""

import tempfile
import time
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

import report
import step
import synthetic
import typer
from torch.profiler import ProfilerActivity, profile

from rap.clip.backbone import DEMO
from rap.training.run import Experiment

KINDS = {  # operations by what their names begin with, after aten::
    "products": ("mm", "addmm", "bmm", "baddbmm"),
    "attention": ("_scaled_dot_product", "_flash", "_softmax", "_safe_softmax"),
    "norms, activations": ("native_layer_norm", "gelu", "sigmoid", "silu"),
    "copies, zeros": ("copy_", "fill_", "zero_", "cat", "gather", "scatter", "index", "_index"),
    "sampling": ("grid_sampler",),
    "elementwise, sums": ("add", "addcmul", "mul", "sum", "div", "sub", "where", "all", "eq", "neg", "pow"),
}


def main(batch: int = 2, frames: int = 12, results: Path = report.RESULTS) -> None:
    """`batch`: clips of a step of ViT-B/32."""
    about, results, found = report.machine(), results.resolve(), []
    for backbone, times in (("ViT-B-32", 1), (DEMO, 16)):
        layers = synthetic.config(backbone)["model"]["vision_cfg"]["layers"]
        for depth in (0, layers - 1):
            with tempfile.TemporaryDirectory() as place, chdir(place):
                found += [{"backbone": backbone} | one for one in at_depth(backbone, depth, batch * times, frames)]
    report.write(
        results,
        "profiles",
        {"machine": about, "frames": frames, "steps": found},
        report.sentence(about),
        f"One core, {frames} frames; milliseconds of a step, of the kind of operation at the head of a column.",
        report.table([row(one) for one in found]),
        doc=report.ROOT / "docs/performance.md",
    )


def at_depth(backbone: str, depth: int, batch: int, frames: int) -> list[dict]:
    """Milliseconds by kind of a bare step and of both methods' steps, in the present folder."""
    values = step.values(backbone, depth, batch, frames)
    values["runtime"]["threads"], values["train"]["epochs"] = 1, 1
    settings = synthetic.load(values)
    synthetic.project(settings, train=batch)
    synthetic.noise(settings)
    found, ways = [], {}
    for method in ("LoRM", "RAP"):
        experiment = Experiment(settings, method, 0)
        ways |= {"none": step.bare(experiment, 1), method: step.stage(experiment)}
    for name, way in ways.items():
        found.append({"method": name, "depth": depth, "clips": batch, **profiled(way)})
    return found


def profiled(way: Callable[[], None]) -> dict[str, float]:
    """Milliseconds of the second call: in all, and by kind."""
    way()
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        began = time.perf_counter()
        way()
        whole = 1e3 * (time.perf_counter() - began)
    found = dict.fromkeys(KINDS, 0.0)
    for event in recorded.key_averages():
        if kind := kind_of(event.key):
            found[kind] += event.self_cpu_time_total / 1e3
    return {"whole": whole, **found, "rest": whole - sum(found.values())}


def kind_of(operation: str) -> str | None:
    """The kind with the longest beginning of the operation's name: addmm is no add."""
    name = operation.removeprefix("aten::")
    fits = [(len(start), kind) for kind, starts in KINDS.items() for start in starts if name.startswith(start)]
    return max(fits)[1] if fits and operation.startswith("aten::") else None


def row(one: dict) -> dict:
    return {
        "backbone": one["backbone"],
        "from block": str(one["depth"]),
        "clips": str(one["clips"]),
        "method": one["method"],
        **{name: f"{one[name]:,.0f}" for name in ("whole", *KINDS, "rest")},
    }


if __name__ == "__main__":
    typer.run(main)
