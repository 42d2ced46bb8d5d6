"""Frames: our stage's ways from a video to T pictures, against what a user would take instead.

    python benchmarks/decoders.py [--seconds 15] [--repeats 3]

About 4 minutes on 2 cores. Roads: ours by either value of `frames.decoder`; PyAV, OpenCV and torchcodec, each made to
convert no more than the chosen pictures, then PIL (OpenCV and torchcodec where they are installed; torchcodec needs the
system's ffmpeg libraries); and the road of the peers: ffmpeg writes a JPEG for every second, PIL opens, resizes and
crops them. Every road ends with the same T instants at the same size, but the peers', which has one a second. Beside
them stands the floor of the roads that decode everything: decoding alone, by one thread, and nothing kept.

Each road has one core, then all cores as its user would take them: ours in the stage's pool of threads, the others in
as many processes. The clips are H.264 with moving detail and noise; of the two kinds, one has a key frame every 10 s,
as x264 puts them by itself, the other every 2 s, as sites that stream want them. The roads take turns, so that what
else the machine does falls on all of them; figures are medians, ratios are medians of the ratios within a turn.
"""

import multiprocessing
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

import av
import numpy as np
import report
import typer
from PIL import Image

from rap.frames import ffmpeg as tool
from rap.frames.decode import Recipe, decode
from rap.params import Frames

SIZE, COUNT = 224, 12
RATE = 25  # pictures a second
KEYS = {"10 s": 10 * RATE, "2 s": 2 * RATE}  # pictures from one key frame to the next at most
JPEG = "JPEG, then PIL"

Road = Callable[[Path, Path], np.ndarray]  # a video and a folder for files -> [T, SIZE, SIZE, 3] uint8


def by_ffmpeg(video: Path, folder: Path) -> np.ndarray:
    return decode(video, Recipe(Frames(count=COUNT, decoder="ffmpeg"), SIZE, "bicubic"))


def by_sparse(video: Path, folder: Path) -> np.ndarray:
    return decode(video, Recipe(Frames(count=COUNT, decoder="sparse"), SIZE, "bicubic"))


def by_pyav(video: Path, folder: Path) -> np.ndarray:
    with av.open(str(video)) as opened:
        stream = one_thread(opened)
        waiting, chosen, shown = middles(float(stream.duration * stream.time_base)).tolist(), [], None
        for picture in opened.decode(stream):
            while waiting and picture.time > waiting[0]:
                chosen.append(resized(shown.to_image()))
                waiting.pop(0)
            shown = picture
        return np.stack(chosen + [resized(shown.to_image())] * len(waiting))


def by_opencv(video: Path, folder: Path) -> np.ndarray:
    import cv2

    cv2.setNumThreads(1)
    opened = cv2.VideoCapture(str(video), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    count = int(opened.get(cv2.CAP_PROP_FRAME_COUNT))
    chosen = {int(place) for place in middles(count)}
    kept = [opened.retrieve()[1] for place in range(count) if opened.grab() and place in chosen]
    return np.stack([resized(Image.fromarray(picture[:, :, ::-1])) for picture in kept])


def by_torchcodec(video: Path, folder: Path) -> np.ndarray:
    from torchcodec.decoders import VideoDecoder

    opened = VideoDecoder(video, dimension_order="NHWC", num_ffmpeg_threads=1)
    pictures = opened.get_frames_played_at(middles(opened.metadata.duration_seconds).tolist()).data
    return np.stack([resized(Image.fromarray(picture.numpy())) for picture in pictures])


def by_jpegs(video: Path, folder: Path) -> np.ndarray:
    command = [tool.binary(), "-v", "error", "-nostdin", "-threads", "1", "-i", str(video), "-vf", "fps=1", "-q:v", "2"]
    subprocess.run([*command, "-threads", "1", str(folder / "%04d.jpg")], check=True)
    pictures = []
    for file in sorted(folder.glob("*.jpg")):
        with Image.open(file) as picture:
            pictures.append(resized(picture.convert("RGB")))
    return np.stack(pictures)


def floor(video: Path, folder: Path) -> np.ndarray:
    with av.open(str(video)) as opened:
        for _ in opened.decode(one_thread(opened)):
            pass
    return np.empty((0, SIZE, SIZE, 3), np.uint8)


def one_thread(opened: av.container.InputContainer) -> av.VideoStream:
    stream = opened.streams.video[0]
    stream.codec_context.thread_count = 1
    return stream


def middles(length: float) -> np.ndarray:
    return (np.arange(COUNT) + 0.5) / COUNT * length


def resized(picture: Image.Image) -> np.ndarray:
    """CLIP's own transform: shortest side to SIZE, centre crop."""
    scale = SIZE / min(picture.size)
    picture = picture.resize([int(scale * side + 1e-6) for side in picture.size], Image.Resampling.BICUBIC)
    left, top = ((side - SIZE) // 2 for side in picture.size)
    return np.asarray(picture.crop((left, top, left + SIZE, top + SIZE)))


OURS = {"ours, ffmpeg": by_ffmpeg, "ours, sparse": by_sparse}
THEIRS = {"PyAV": by_pyav, "OpenCV": by_opencv, "torchcodec": by_torchcodec, JPEG: by_jpegs, "floor": floor}
OPTIONAL = {"OpenCV": "cv2", "torchcodec": "torchcodec"}


def available() -> dict[str, Road]:
    """The roads that this machine has."""
    roads: dict[str, Road] = OURS | THEIRS
    for name, module in OPTIONAL.items():
        try:
            import_module(module)
        except (ImportError, OSError, RuntimeError):  # torchcodec, where the system has no libraries of ffmpeg
            print(f"{name} cannot be loaded and is left out")
            del roads[name]
    return roads


def main(seconds: int = 15, repeats: int = 3, heights: list[int] = [240, 720], results: Path = report.RESULTS) -> None:  # noqa: B006
    """`seconds`: the length of the clips; `heights`: theirs, in pixels."""
    about, roads, figures, rows, cores = report.machine(), available(), {}, [], os.cpu_count()
    processes = ProcessPoolExecutor(cores, multiprocessing.get_context("spawn"))
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(cores) as threads, processes:
        for height in heights:
            for keys, gap in KEYS.items():
                video = film(Path(place) / f"{height}-{gap}.mp4", height, seconds, gap)
                name = f"{height}p, key frames {keys} apart"
                print(f"{name}: {video.stat().st_size / 1e6:.1f} MB", flush=True)
                found = measured(video, roads, repeats, cores, threads, processes)
                figures[name] = {"bytes": video.stat().st_size, "roads": found}
                rows += [{"clip": name, **row} for row in summary(found)]
    report.write(
        results.resolve(),
        "decoders",
        {"machine": about, "seconds": seconds, "repeats": repeats, "count": COUNT, "size": SIZE, "clips": figures},
        report.sentence(about),
        f"H.264 of {seconds} s at {RATE} pictures a second to {COUNT} frames of {SIZE} px; medians of {repeats} turns. "
        f"The JPEG method keeps one picture a second. Speeds are videos per second per core, on one core and "
        f"with all {cores} busy.",
        report.table(rows),
        doc=report.ROOT / "docs/performance.md",
    )


def film(path: Path, height: int, seconds: int, gap: int) -> Path:
    """A clip with moving detail and some noise, as a camera's: flat test pictures decode faster than anything real."""
    width = height * 16 // 9 // 2 * 2
    source = f"testsrc2=size={width}x{height}:rate={RATE}:duration={seconds},noise=alls=12:allf=t"
    encode = ["-c:v", "libx264", "-preset", "medium", "-crf", "26", "-pix_fmt", "yuv420p", "-g", str(gap)]
    subprocess.run([tool.binary(), "-v", "error", "-f", "lavfi", "-i", source, *encode, str(path)], check=True)
    return path


def measured(
    video: Path, roads: dict[str, Road], repeats: int, cores: int, threads: Executor, processes: Executor
) -> dict[str, dict]:
    """Of each road the seconds per video and core in each turn, on one core and on all, and the bytes left on disk. The
    first turn is not counted; it says how many videos take about a second, of four at most.
    """
    found, videos = {name: {"one": [], "all": [], "bytes": 0} for name in roads}, dict.fromkeys(roads, 1)
    for _ in range(repeats + 1):
        for name, road in roads.items():
            many, pool = videos[name], threads if name in OURS else processes
            began = time.perf_counter()
            found[name]["bytes"] = on_one_core(road, video, many)
            ended = time.perf_counter()
            list(pool.map(walked, [road] * many * cores, [video] * many * cores))
            found[name]["one"].append((ended - began) / many)
            found[name]["all"].append((time.perf_counter() - ended) / many)
            videos[name] = min(4, max(1, int(1 / found[name]["one"][0])))
    return {name: {"one": f["one"][1:], "all": f["all"][1:], "bytes": f["bytes"]} for name, f in found.items()}


def on_one_core(road: Road, video: Path, many: int) -> int:
    """What a road leaves on disk of each of `many` videos, by this thread and its children on one core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        return sum(walked(road, video) for _ in range(many)) // many
    finally:
        os.sched_setaffinity(0, cores)


def walked(road: Road, video: Path) -> int:
    """Bytes on disk: of the files that a road writes, else of the frames that it gives."""
    with tempfile.TemporaryDirectory() as folder:
        frames = road(video, Path(folder))
        return sum(file.stat().st_size for file in Path(folder).iterdir()) or frames.nbytes


def summary(found: dict[str, dict]) -> list[dict]:
    def speed(name: str, way: str) -> str:
        return f"{1 / statistics.median(found[name][way]):.2f}"

    def against(other: str, name: str, way: str) -> str:
        pairs = zip(found[other][way], found[name][way], strict=True)
        return f"{statistics.median(theirs / its for theirs, its in pairs):.2f}"

    return [
        {
            "method": name,
            "one core": speed(name, "one"),
            "all": speed(name, "all"),
            "JPEG = 1, one core": against(JPEG, name, "one"),
            "all ": against(JPEG, name, "all"),
            "ours, ffmpeg = 1, all": against("ours, ffmpeg", name, "all"),
            "MB on disk": f"{figures['bytes'] / 1e6:.2f}" if figures["bytes"] else "",
        }
        for name, figures in found.items()
    ]


if __name__ == "__main__":
    typer.run(main)
