"""A dry run at the size of MSR-VTT: train, evaluate and table, on noise features of the right shape.

    python benchmarks/msrvtt_size.py --depth 12                # all captions; LoRM on the frame embeddings
    python benchmarks/msrvtt_size.py --depth 11 --captions 1   # the last block adapted, from 9 GB of tokens

The project has 9,000 training videos, 500 of them set aside, and 1,000 test videos, a ViT-B/32 with random weights, and
caches that the features stage wrote with noise in place of the towers' output. The commands of the pipeline then run in
their own processes, and are measured from outside: seconds, CPU seconds, and peak memory, own and with the pages of
mapped files, which the system reclaims when needed.

The whole backbone at a batch of 128 clips does not fit into memory: see docs/scaling.md. Linux only.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import typer
import yaml
from lib import ours, projects, report
from lib.projects import Size
from lib.turns import memory

from rap.params import Params

PAUSE = 0.05  # seconds between two readings of a process's memory
TABLE = (
    "stage | seconds | CPU seconds | own memory, GB | with mapped files, GB",
    "`rap {command}` | {seconds:.1f} | {cpu_seconds:.1f} | {own:.2f} | {resident:.2f}",
)


def main(
    depth: int = 12,
    captions: int = 20,
    videos: int = 9000,
    tested: int = 1000,
    frames: int = 12,
    epochs: int = 1,
    batch: int = 128,
    backbone: str = "ViT-B-32",
    scratch: Path | None = None,
) -> None:
    """`captions` of each training video; `scratch`: the folder for the caches, 10 GB at depth 11."""
    out, values = report.Report(f"msrvtt-depth-{depth}"), projects.values(backbone, [depth], frames)
    values["train"] |= {"epochs": epochs, "batch": batch}
    values["shards"], values["run"] = list(range(8)), list(values["variants"])
    with projects.workplace(scratch):
        Path("params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
        settings, size = projects.load(values), Size(videos, captions, tested, tested)
        projects.make(settings, size, validation=min(settings.dataset.validation, videos // 10), holes=True)
        ours.write_noise(settings)
        runs = [
            (stage, "--variant", name, "--seed", "0") for stage in ("train", "evaluate") for name in values["variants"]
        ]
        stages = [measured(*command) for command in (*runs, ("table", "--table", "table1"))]
        facts = describe(settings, f"depth_{depth}")
    out.write({"project": facts, "stages": stages}, sentence(facts), report.table(stages, TABLE))


def measured(*command: str) -> dict:
    """Run a command of `rap`; return its seconds, CPU seconds and peak memory in GB. Exits if the command fails."""
    began, before = time.perf_counter(), sum(os.times()[2:4])
    with open("stderr", "w") as errors:
        process = subprocess.Popen([sys.executable, "-m", "rap", *command], stderr=errors)
    own = resident = 0
    while process.poll() is None:
        now, peak = memory(process.pid)
        own, resident = max(own, now), max(resident, peak)
        time.sleep(PAUSE)
    if process.returncode:
        sys.exit(f"rap {' '.join(command)}: {Path('stderr').read_text()[-2000:]}")
    return {
        "command": " ".join(command[:3]),
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(sum(os.times()[2:4]) - before, 1),
        "own": own / 1e9,
        "resident": resident / 1e9,
    }


def describe(settings: Params, variant: str) -> dict:
    """The size of the work, as the stages recorded it, and the bytes of the caches."""
    caches = {cache: ours.cache_folder(settings, cache) for cache in settings.features.caches}
    return {
        "backbone": settings.backbone.name,
        "frames": settings.frames.count,
        "batch": settings.train.batch,
        **ours.facts(settings, variant),
        "cache_bytes": {name: sum(f.stat().st_size for f in path.glob("*.npy")) for name, path in caches.items()},
    }


def sentence(facts: dict) -> str:
    sizes = ", ".join(f"{name} {size / 1e9:.2f} GB" for name, size in sorted(facts["cache_bytes"].items()))
    return (
        "{backbone} with random weights, {frames} frames. {videos:,} training videos with {pairs:,} captions, "
        "{steps:,} steps of {batch}, from {caches[video]} and {caches[text]}; {parameters:,} trainable parameters. "
        "{tested:,} test videos, {queries:,} queries. Caches: {sizes}."
    ).format(**facts, sizes=sizes)


if __name__ == "__main__":
    typer.run(main)
