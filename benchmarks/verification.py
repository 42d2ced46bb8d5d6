"""The cost of verifying the rows of shards in a training step and in the features stage.

    python benchmarks/verification.py [--repeats 5]

`rap.shards.verify` checks the xxh3_64 checksum of every row that is read. The same work runs in turns with this
function and with one that does nothing. Rows are float32 [8, 17, 128] of the demo's backbone, 32 in a step, and float16
[12, 50, 768] of ViT-B/32, 128 in a step if memory allows, otherwise 32. A step of ViT-B/32 trains the last block: rows
have the same size at every block, and training from a lower block spends a smaller share on them. The features stage
makes video-0, which has the least arithmetic for the frames that it reads.

`share` is the time inside `verify` as a share of the whole: an upper bound, since rows are read ahead while the model
computes. The claim is that both stay below 2 %. About four minutes on two cores.
"""

import os
import time
from functools import partial

import numpy as np
import typer
from lib import ours, projects, report, turns
from lib.projects import Size

from rap.clip.backbone import DEMO
from rap.params import Params

LIMIT = 1.02  # the largest ratio that the claim allows
STEP_BYTES = 16e6  # memory of a step in the last block of ViT-B/32, per clip
TABLE = (
    "backbone | work | rows | row, KB | verified, s | unverified, s | verified / unverified | share of verify, %",
    "{backbone} | {work} | {rows} | {kilobytes:,.0f} | {verified:.3g} | {unverified:.3g} | {ratio:.3f} | {share:.2f}",
)


def main(
    backbones: tuple[str, str] = (DEMO, "ViT-B-32"), batches: tuple[int, int] | None = None, repeats: int = 5
) -> None:
    """`batches`: clips in a step and in the features stage, for each backbone."""
    out, found = report.Report("verification"), []
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    batches = batches or (32, 128 if free > 2 * 128 * STEP_BYTES else 32)
    for backbone, frames, depth, batch, steps in zip(backbones, (8, 12), (0, -1), batches, (8, 2), strict=True):
        with projects.workplace():
            settings = project(backbone, frames, depth % projects.blocks(backbone), batch, steps)
            run, first = ours.OpenedRun(settings, "LoRM"), settings.features.caches[0]
            ways = {
                f"{steps} steps": (run.train, first),
                "features": (partial(ours.remake_cache, settings, "video-0"), "frames"),
            }
            for work, (way, read) in ways.items():
                found.append({"backbone": backbone, "work": work, **compared(way, ours.rows(settings, read), repeats)})
    out.write(
        {"repeats": repeats, "works": found},
        f"Random weights; medians of {repeats} turns. The claim is a ratio below {LIMIT}.",
        report.table(found, TABLE),
    )


def project(backbone: str, frames: int, depth: int, batch: int, steps: int) -> Params:
    """A project of one batch, with the cache of `depth` and that of block 0, in the working directory."""
    values = projects.methods(projects.values(backbone, [depth], frames), depth)
    values["features"] |= {
        "caches": list(dict.fromkeys([f"video-{depth}", "video-0", "text-all"])),
        "dtype": "float32" if backbone == DEMO else "float16",
    }
    values["train"] |= {"batch": batch, "epochs": steps, "checkpoint_every": 1000}
    values["runtime"]["threads"] = os.cpu_count()
    settings = projects.make(projects.load(values), Size(trained=batch))
    ours.write_noise(settings)
    return settings


def compared(way: ours.Work, rows: np.ndarray, repeats: int) -> dict:
    """Seconds of `way` with and without verification, their ratio, and the share of the time inside `verify`."""
    inside, verify = [], ours.verifier()

    def timed_verify(rows: np.ndarray, checksums: list[str], where: str) -> None:
        began = time.perf_counter()
        verify(rows, checksums, where)
        inside[-1] += time.perf_counter() - began

    def verified() -> None:
        inside.append(0.0)
        with ours.verification(timed_verify):
            way()

    def unverified() -> None:
        with ours.verification(None):
            way()

    taken = turns.take({"verified": verified, "unverified": unverified}, repeats)
    shares = [part / whole for part, whole in zip(inside[1:], taken["verified"], strict=True)]
    if not any(shares):
        raise RuntimeError("no row was verified: the stages do not call rap.shards.verify")
    return {
        "rows": len(rows),
        "kilobytes": rows[0].nbytes / 1e3,
        **{name: turns.median(taken, name) for name in taken},
        "ratio": turns.ratio(taken, "verified", "unverified"),
        "share": 100 * float(np.median(shares)),
    }


if __name__ == "__main__":
    typer.run(main)
