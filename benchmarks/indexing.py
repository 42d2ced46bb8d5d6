"""Videos to a searchable index, compared with the method of clip-video-encode.

    python benchmarks/indexing.py [--minutes 60] [--clips 100] [--seconds 15] [--height 720] [--every 10]

One recording in spans, and many short clips: H.264, 25 pictures a second, moving detail and noise, a key frame every
ten seconds, as `benchmarks/recordings.py` makes them; 12 frames of each span or clip. Ours is `rap download`, `frames`,
`features` and a first `rap search`, with frames stored and without, in float32 and in bfloat16. Theirs is
benchmarks/lib/opencv_road.py: one program with as many readers as cores. The weights are random. Memory is the peak of
the summed own memory of a method's processes. About 40 minutes on 2 cores.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import chdir
from pathlib import Path

import numpy as np
import open_clip
import psutil
import typer
from lib import report
from recordings import configure, prepare, record, run
from safetensors.torch import save_file

COUNT = 12  # frames
PAUSE = 0.05  # seconds between two readings of the memory
THEIRS = "OpenCV, PIL, open_clip"
WAYS = {  # name -> frames.store, frames.decoder, runtime.precision
    "frames stored": (True, "ffmpeg", "float32"),
    "one pass": (False, "ffmpeg", "float32"),
    "one pass, sparse": (False, "sparse", "float32"),
    "one pass, sparse, bfloat16": (False, "sparse", "bfloat16"),
}
TABLE = (
    "videos | way | seconds | hours of video in an hour | theirs = 1 | memory, MB | disk, MB | lowest cosine to theirs",
    "{videos} | {way} | {seconds:.0f} | {speed:.1f} | {ratio:.2f} | {memory:.0f} | {disk:.1f} | {cosine:.4f}",
)


def main(
    minutes: int = 60,
    clips: int = 100,
    seconds: int = 15,
    height: int = 720,
    every: int = 10,
    backbone: str = "ViT-B-32",
) -> None:
    written, rows = report.Report("indexing"), []
    works = {
        f"{minutes} minutes, spans of {every} s": (1, minutes * 60, every),
        f"{clips} clips of {seconds} s": (clips, seconds, 0),
    }
    for videos, (files, length, span) in works.items():
        with tempfile.TemporaryDirectory() as folder, chdir(folder):
            record(files, length, height)
            save_file(open_clip.create_model(backbone).state_dict(), "random.safetensors")
            found = {THEIRS: theirs(backbone, span)} | {way: ours_by(way, backbone, span) for way in WAYS}
            for way, one in found.items():
                rows.append(one | {"videos": videos, "way": way, "ratio": found[THEIRS]["seconds"] / one["seconds"]})
                rows[-1] |= {"speed": files * length / one["seconds"], "cosine": agreement(THEIRS, way)}
    text = f"{backbone} with random weights, {COUNT} frames of each span or clip, {height}p."
    written.write({"rows": rows}, text, report.table(rows, TABLE))


def theirs(backbone: str, span: int) -> dict:
    road = Path(__file__).parent / "lib/opencv_road.py"
    out = f"{THEIRS}.npy"
    arguments = ["videos", backbone, "random.safetensors", str(span), str(COUNT), out]
    return measured([[sys.executable, str(road), *arguments]], Path(out))


def ours_by(way: str, backbone: str, span: int) -> dict:
    """The four commands, after untimed one-time commands that the other method lacks too."""
    store, decoder, precision = WAYS[way]
    shutil.rmtree("data", ignore_errors=True)
    Path("videos.csv").unlink(missing_ok=True)
    prepare()
    configure(
        backbone={"name": backbone, "pretrained": None, "weights": "random.safetensors"},
        frames={"count": COUNT, "store": store, "decoder": decoder},
        features={"batch": 32, "max_words": 32},
        runtime={"precision": precision, "threads": os.cpu_count(), "workers": os.cpu_count()},
    )
    rap = [sys.executable, "-m", "rap"]
    run(*rap, "dataset", "init", "videos", *(("--every", f"{span}s") if span else ()))
    run(*rap, "backbone")
    item = ["--shard", "0"]
    commands = [["download"], ["frames", *item], ["features", "--cache", "video-all", *item], ["search", "a red ball"]]
    found = measured([[*rap, *command] for command in commands], Path("data/folder"))
    shutil.copy(next(Path("data/folder/index").glob("*.npy")), f"{way}.npy")
    return found


def own(process: psutil.Process) -> int:
    """Bytes of a process and its children that no other process has."""
    try:
        return sum(one.memory_full_info().uss for one in (process, *process.children(recursive=True)))
    except psutil.NoSuchProcess:
        return 0


def agreement(one: str, other: str) -> float:
    """The lowest cosine between the embeddings of a span by two methods."""
    a, b = (np.load(f"{way}.npy") for way in (one, other))
    return float(((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


def measured(commands: list[list[str]], made: Path) -> dict:
    """Seconds of commands in sequence, the peak memory of their processes, and the size of their outputs."""
    peak, began = 0, time.perf_counter()
    for command in commands:
        process = psutil.Popen(command, stdout=subprocess.DEVNULL)
        while process.poll() is None:
            peak = max(peak, own(process))
            time.sleep(PAUSE)
        assert not process.returncode, command
    seconds = time.perf_counter() - began
    files = made.rglob("*") if made.is_dir() else [made]
    disk = sum(file.stat().st_blocks * 512 for file in files if file.is_file())
    return {"seconds": seconds, "memory": peak / 1e6, "disk": disk / 1e6}


if __name__ == "__main__":
    typer.run(main)
