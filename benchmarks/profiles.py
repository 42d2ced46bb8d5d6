"""The time of a training step by kind of operation: without an adapter, with LoRM, and with RAP.

    python benchmarks/profiles.py [--batch 2] [--frames 12]

The bare step and the step of the train stage as in step.py, from block 0 and in the last block, for ViT-B/32 and, with
16 times the clips, for the demo's backbone; on one core, so that times of operations add up. `rest` is all other time:
small operations, Python, reading rows, the optimizer. Three minutes.
"""

import time
from collections.abc import Callable

import step
import typer
from lib import ours, projects, report
from torch.profiler import ProfilerActivity, profile

from rap.clip.backbone import DEMO

KINDS = {  # operations by the prefixes of their names, after aten::
    "products": ("mm", "addmm", "bmm", "baddbmm"),
    "attention": ("_scaled_dot_product", "_flash", "_softmax", "_safe_softmax"),
    "norms, activations": ("native_layer_norm", "gelu", "sigmoid", "silu"),
    "copies, zeros": ("copy_", "fill_", "zero_", "cat", "gather", "scatter", "index", "_index"),
    "elementwise, sums": ("add", "addcmul", "mul", "sum", "div", "sub", "where", "all", "eq", "neg", "pow"),
}
COLUMNS = ("whole", *KINDS, "rest")
TABLE = (
    " | ".join(("backbone", "from block", "clips", "method", *COLUMNS)),
    " | ".join(("{backbone}", "{depth}", "{clips}", "{method}", *(f"{{{name}:,.0f}}" for name in COLUMNS))),
)


def main(batch: int = 2, frames: int = 12) -> None:
    """`batch`: clips in a step of ViT-B/32."""
    out, found = report.Report("profiles"), []
    for backbone, times in (("ViT-B-32", 1), (DEMO, 16)):
        for depth in (0, projects.blocks(backbone) - 1):
            with projects.workplace():
                found += [{"backbone": backbone} | one for one in at_depth(backbone, depth, batch * times, frames)]
    out.write(
        {"frames": frames, "steps": found},
        f"One core, {frames} frames; milliseconds of a step in operations of each kind.",
        report.table(found, TABLE),
    )


def at_depth(backbone: str, depth: int, batch: int, frames: int) -> list[dict]:
    """Milliseconds by kind of a bare step and of a step of both methods, in the working directory."""
    values = step.values(backbone, depth, batch, frames)
    values["runtime"]["threads"], values["train"]["epochs"] = 1, 1
    settings = step.project(values)
    lorm, rap = (ours.OpenedRun(settings, method) for method in ("LoRM", "RAP"))
    ways = {"none": step.bare(lorm, 1), "LoRM": lorm.train, "RAP": rap.train}
    return [{"method": name, "depth": depth, "clips": batch, **profiled(way)} for name, way in ways.items()]


def profiled(way: Callable[[], None]) -> dict[str, float]:
    """Milliseconds of the second call: in total, and by kind."""
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
    """The kind with the longest matching prefix of the operation's name, so that addmm is a product."""
    name = operation.removeprefix("aten::")
    fits = [(len(start), kind) for kind, starts in KINDS.items() for start in starts if name.startswith(start)]
    return max(fits)[1] if fits and operation.startswith("aten::") else None


if __name__ == "__main__":
    typer.run(main)
