"""A dry run at the size of MSR-VTT: train, evaluate and table on features of the true shape and no meaning.

    python benchmarks/msrvtt_size.py --depth 12                # all captions; LoRM on the frame embeddings
    python benchmarks/msrvtt_size.py --depth 11 --captions 1   # the last block adapted, from 9 GB of tokens

A scratch project is made: a manifest of 9,000 videos to train on (500 of them set aside) and 1,000 to test on, a
ViT-B/32 with random weights, and the caches that the features stage would make, with its keys, in its files; but noise
stands in for the arithmetic of the towers, and the frames are files of the true length with nothing in them. What runs
then are the commands of the pipeline, each in a process of its own, and is measured from outside: seconds, CPU seconds,
and peak memory, of its own and with the pages of mapped files, which the system takes back when it needs them.

The whole backbone at a batch of 128 clips does not fit this way: see docs/scaling.md. Linux only.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import report
import synthetic
import typer
import yaml
from apart import memory
from safetensors.torch import save_file

from rap.files import read_json
from rap.params import Params

TESTED = 1000  # the videos of 1k-A
PAUSE = 0.05  # seconds between two looks at the memory of a process


def main(
    depth: int = 12,
    captions: int = 20,
    videos: int = 9000,
    tested: int = TESTED,
    frames: int = 12,
    epochs: int = 1,
    batch: int = 128,
    backbone: str = "ViT-B-32",
    scratch: Path | None = None,
    results: Path = report.RESULTS,
) -> None:
    """`captions` of each training video; `scratch`: where the caches lie meanwhile, 10 GB at depth 11."""
    about, results = report.machine(), results.resolve()
    values = synthetic.values(backbone, [depth], frames)
    values["train"] |= {"epochs": epochs, "batch": batch}
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        os.chdir(folder)
        settings = project(values, videos, tested, captions)
        stages = [run("train", variant) for variant in settings.variants]
        stages += [run("evaluate", variant) for variant in settings.variants]
        stages.append(measured("table", "--table", "table1"))
        facts = describe(settings, f"depth_{depth}")
        os.chdir(results.parent)
    figures = {"machine": about, "project": facts, "stages": stages}
    report.write(
        results, f"msrvtt-depth-{depth}", figures, report.sentence(about), words(facts), report.table(rows(stages))
    )


def project(values: dict, videos: int, tested: int, captions: int) -> Params:
    """All that the train stage reads, in the present folder."""
    Path("params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    settings = synthetic.load(values)
    save_file(synthetic.random_clip(settings.backbone.name).state_dict(), "weights.safetensors")
    measured("backbone")
    aside = min(settings.dataset.validation, videos // 10)
    synthetic.manifest(videos, tested, captions, aside).write(settings.data / "manifest")
    synthetic.holes(settings)
    synthetic.noise(settings)
    return settings


def run(stage: str, variant: str) -> dict:
    return measured(stage, "--variant", variant, "--seed", "0")


def measured(*command: str) -> dict:
    """Run a stage of the pipeline; its seconds, CPU seconds and peak memory in bytes. Stops where it fails."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    program = "from rap.cli import main; main()"
    with open("stderr", "w") as errors:
        process = subprocess.Popen([sys.executable, "-c", program, *command], stderr=errors)
    own = mapped = 0
    while process.poll() is None:
        anonymous, peak = memory(process.pid)
        own, mapped = max(own, anonymous), max(mapped, peak)
        time.sleep(PAUSE)
    if process.returncode:
        sys.exit(f"rap {' '.join(command)}: {Path('stderr').read_text()[-2000:]}")
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "command": " ".join(command[:3]),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "own_bytes": own,
        "resident_bytes": mapped,
    }


def describe(settings: Params, variant: str) -> dict:
    """What the stages had to do, as they wrote it down, and the bytes of the caches."""
    folder = Path("results/runs") / variant / "seed-0"
    about, found = read_json(folder / "run.json"), read_json(folder / "metrics.json")
    caches = {cache: settings.data / "features" / cache for cache in settings.features.caches}
    return {
        "backbone": settings.backbone.name,
        "frames": settings.frames.count,
        "batch": settings.train.batch,
        **{name: about[name] for name in ("caches", "videos", "pairs", "steps", "parameters")},
        "tested": found["videos"],
        "queries": found["queries"],
        "cache_bytes": {name: sum(f.stat().st_size for f in path.glob("*.npy")) for name, path in caches.items()},
        "peak_memory_bytes": read_json(folder / "costs.json")["peak_memory_bytes"],
    }


def words(facts: dict) -> str:
    sizes = ", ".join(f"{name} {size / 1e9:.2f} GB" for name, size in sorted(facts["cache_bytes"].items()))
    return (
        "{backbone} with random weights, {frames} frames. {videos:,} videos to train on with {pairs:,} captions, "
        "{steps:,} steps of {batch}, from {read}; {parameters:,} trainable parameters. {tested:,} videos tested, "
        "{queries:,} queries. Caches: {sizes}."
    ).format(**facts, read=" and ".join(facts["caches"][kind] for kind in ("video", "text")), sizes=sizes)


def rows(stages: list[dict]) -> list[dict]:
    return [
        {
            "stage": f"`rap {stage['command']}`",
            "seconds": f"{stage['seconds']:.1f}",
            "CPU seconds": f"{stage['cpu_seconds']:.1f}",
            "own memory, GB": f"{stage['own_bytes'] / 1e9:.2f}",
            "with mapped files, GB": f"{stage['resident_bytes'] / 1e9:.2f}",
        }
        for stage in stages
    ]


if __name__ == "__main__":
    typer.run(main)
