"""Frames: our stage's way from a video to T pictures, against what a user would take instead, on one core.

    python benchmarks/decoders.py [--seconds 20] [--repeats 5]

Roads: ours (one pass of one ffmpeg process), PyAV (decode all, pick by time, resize with PIL), OpenCV (the same, where
it is installed), and the one of the peers: ffmpeg writes a JPEG for every second, PIL opens, resizes and crops them.
Every road ends with the same T instants at the same size, but the peers', which has one a second. The clips are made by
ffmpeg: H.264 with moving detail and noise, 240p and 720p. The roads take turns, so that what else the machine does
falls on all of them; figures are medians.
"""

import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import report
import torch
import typer
from PIL import Image

from rap.data import ffmpeg as tool
from rap.data.frames import Recipe, decode
from rap.params import Frames

SIZE, COUNT = 224, 12
HEIGHTS = (240, 720)
RECIPE = Recipe(Frames(count=COUNT), SIZE, "bicubic")

Road = Callable[[Path, Path], int]  # a video and a folder for what is left on disk -> bytes left


def ours(video: Path, folder: Path) -> int:
    return decode(video, RECIPE).nbytes


def pyav(video: Path, folder: Path) -> int:
    with av.open(str(video)) as opened:
        stream = opened.streams.video[0]
        stream.thread_type = "NONE"
        times, pictures = [], []
        for picture in opened.decode(stream):
            times.append(picture.time)
            pictures.append(picture)
        length = times[-1] + (times[-1] - times[0]) / max(1, len(times) - 1)
        chosen = [np.searchsorted(times, at, side="right") - 1 for at in middles(times[0], length)]
        return sum(resized(pictures[place].to_image()).nbytes for place in chosen)


def opencv(video: Path, folder: Path) -> int:
    import cv2

    cv2.setNumThreads(1)
    opened, pictures = cv2.VideoCapture(str(video)), []
    while (read := opened.read())[0]:
        pictures.append(read[1])
    chosen = [int((n + 0.5) / COUNT * len(pictures)) for n in range(COUNT)]
    return sum(resized(Image.fromarray(pictures[place][:, :, ::-1])).nbytes for place in chosen)


def jpegs(video: Path, folder: Path) -> int:
    command = [tool.binary(), "-v", "error", "-nostdin", "-threads", "1", "-i", str(video), "-vf", "fps=1", "-q:v", "2"]
    subprocess.run([*command, "-threads", "1", str(folder / "%04d.jpg")], check=True)
    files = sorted(folder.glob("*.jpg"))
    for file in files:
        with Image.open(file) as picture:
            resized(picture.convert("RGB"))
    return sum(file.stat().st_size for file in files)


def middles(start: float, end: float) -> np.ndarray:
    return start + (np.arange(COUNT) + 0.5) / COUNT * (end - start)


def resized(picture: Image.Image) -> np.ndarray:
    """CLIP's own transform: shortest side to SIZE, centre crop."""
    scale = SIZE / min(picture.size)
    picture = picture.resize([int(scale * side + 1e-6) for side in picture.size], Image.Resampling.BICUBIC)
    left, top = ((side - SIZE) // 2 for side in picture.size)
    return np.asarray(picture.crop((left, top, left + SIZE, top + SIZE)))


ROADS: dict[str, Road] = {"ours": ours, "PyAV": pyav, "OpenCV": opencv, "JPEG, then PIL": jpegs}


def main(seconds: int = 20, repeats: int = 5, results: Path = report.RESULTS) -> None:
    """`seconds`: the length of the clips."""
    torch.set_num_threads(1)
    about, figures, rows = report.machine(), {}, []
    with tempfile.TemporaryDirectory() as place:
        for height in HEIGHTS:
            video = film(Path(place) / f"{height}.mp4", height, seconds)
            figures[str(height)] = measured(video, available(), repeats)
            rows += summary(height, figures[str(height)])
    report.write(
        results.resolve(),
        "decoders",
        {"machine": about, "seconds": seconds, "repeats": repeats, "roads": figures},
        report.sentence(about),
        f"H.264 of {seconds} s at 25 pictures a second to {COUNT} frames of {SIZE} px, one process, one core; medians "
        f"of {repeats} turns. The peers' road keeps one picture a second, as JPEG.",
        report.table(rows),
        doc=report.ROOT / "docs/performance.md",
    )


def available() -> dict[str, Road]:
    try:
        import cv2  # noqa: F401
    except ImportError:
        return {name: road for name, road in ROADS.items() if road is not opencv}
    return ROADS


def film(path: Path, height: int, seconds: int) -> Path:
    """A clip with moving detail and some noise, as a camera's: flat test pictures decode faster than anything real."""
    width = height * 16 // 9 // 2 * 2
    source = f"testsrc2=size={width}x{height}:rate=25:duration={seconds},noise=alls=12:allf=t"
    encode = ["-c:v", "libx264", "-preset", "medium", "-crf", "26", "-pix_fmt", "yuv420p"]
    subprocess.run([tool.binary(), "-v", "error", "-f", "lavfi", "-i", source, *encode, str(path)], check=True)
    return path


def measured(video: Path, roads: dict[str, Road], repeats: int) -> dict[str, dict]:
    """Median seconds of each road, and the bytes that it leaves on disk. The first turn is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in roads}
    left = {}
    for _ in range(repeats + 1):
        for name, road in roads.items():
            with tempfile.TemporaryDirectory() as folder:
                began = time.perf_counter()
                left[name] = road(video, Path(folder))
                taken[name].append(time.perf_counter() - began)
    return {name: {"seconds": statistics.median(times[1:]), "bytes": left[name]} for name, times in taken.items()}


def summary(height: int, found: dict[str, dict]) -> list[dict]:
    base = found["ours"]["seconds"]
    return [
        {
            "road": name,
            "height": f"{height}p",
            "videos per second": f"{1 / figures['seconds']:.2f}",
            "speed, ours = 1": f"{base / figures['seconds']:.2f}",
            "MB a video on disk": f"{figures['bytes'] / 1e6:.2f}",
        }
        for name, figures in found.items()
    ]


if __name__ == "__main__":
    typer.run(main)
