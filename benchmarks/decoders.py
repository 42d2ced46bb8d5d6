"""From a video to T frames: the decoders of the frames stage compared with the usual alternatives.

    python benchmarks/decoders.py [--seconds 15] [--repeats 3]

All methods give T frames of the same size, at the same instants except the JPEG files, which hold one picture per
second. OpenCV and torchcodec run if they are installed. The floor decodes every picture and keeps none. A method runs
on one core, then on all cores: ours in threads, as in the stage, the others in processes. The clips are H.264 with
moving detail and noise, with a key frame every 10 s (x264's default) or 2 s (streaming). About 4 minutes on 2 cores.
"""

import multiprocessing
import os
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from importlib import import_module
from itertools import product
from pathlib import Path

import av
import numpy as np
import typer
from lib import ours, report, turns
from PIL import Image

from rap.params import Sampling

SIZE, COUNT = 224, 12
RATE = 25  # pictures per second
GAPS = {"10 s": 10 * RATE, "2 s": 2 * RATE}  # maximum of pictures from one key frame to the next
JPEG, OURS = "JPEG, then PIL", ("ours, ffmpeg", "ours, sparse")
TABLE = (
    "clip | method | one core | all | JPEG = 1, one core | all  | ours, ffmpeg = 1, all | MB on disk",
    "{clip} | {method} | {one:.2f} | {all:.2f} | {jpeg_one:.2f} | {jpeg_all:.2f} | {ours_all:.2f} | {megabytes:.2f}",
)

Method = Callable[[Path, Path], np.ndarray]  # a video and a folder for files -> [T, SIZE, SIZE, 3] uint8


def by_ours(video: Path, folder: Path, decoder: str) -> np.ndarray:
    preprocess = {"size": SIZE, "interpolation": "bicubic", "resize_mode": "shortest"}
    return ours.decoder(Sampling(count=COUNT, sampler="uniform", fps=1.0, decoder=decoder), preprocess)(video)


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
    command = [ours.ffmpeg(), "-v", "error", "-nostdin", "-threads", "1", "-i", str(video), "-vf", "fps=1", "-q:v", "2"]
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
    """The middles of COUNT equal segments of `length`, float64 [COUNT]."""
    return (np.arange(COUNT) + 0.5) / COUNT * length


def resized(picture: Image.Image) -> np.ndarray:
    """CLIP's own transform: the shortest side to SIZE, then a centre crop."""
    scale = SIZE / min(picture.size)
    picture = picture.resize([int(scale * side + 1e-6) for side in picture.size], Image.Resampling.BICUBIC)
    left, top = ((side - SIZE) // 2 for side in picture.size)
    return np.asarray(picture.crop((left, top, left + SIZE, top + SIZE)))


def available() -> dict[str, Method]:
    """The methods whose packages are installed."""
    methods: dict[str, Method] = {f"ours, {name}": partial(by_ours, decoder=name) for name in ("ffmpeg", "sparse")}
    methods |= {"PyAV": by_pyav, "OpenCV": by_opencv, "torchcodec": by_torchcodec, JPEG: by_jpegs, "floor": floor}
    for name, module in {"OpenCV": "cv2", "torchcodec": "torchcodec"}.items():
        try:
            import_module(module)
        except (ImportError, OSError, RuntimeError):  # torchcodec without ffmpeg libraries
            print(f"{name} cannot be imported and is left out")
            del methods[name]
    return methods


def main(seconds: int = 15, repeats: int = 3, heights: list[int] = [240, 720]) -> None:  # noqa: B006
    """`seconds` and `heights`: the duration and the heights in pixels of the clips."""
    out, methods, rows, cores = report.Report("decoders"), available(), [], os.cpu_count() or 1
    processes = ProcessPoolExecutor(cores, multiprocessing.get_context("spawn"))
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(cores) as threads, processes:
        for height, (label, gap) in product(heights, GAPS.items()):
            video = film(Path(place) / f"{height}-{gap}.mp4", height, seconds, gap)
            clip = {"clip": f"{height}p, key frames {label} apart", "bytes": video.stat().st_size}
            ways: dict[str, Callable[[], object]] = {}
            for name, method in methods.items():
                ways[f"{name}, one"] = partial(on_one_core, method, video)
                pool = threads if name in OURS else processes
                ways[f"{name}, all"] = partial(on_all_cores, pool, cores, method, video)
            taken = turns.take(ways, repeats, clip["clip"])
            rows += [clip | summary(name, taken) | disk(method, video) for name, method in methods.items()]
    out.write(
        {"seconds": seconds, "repeats": repeats, "count": COUNT, "size": SIZE, "methods": rows},
        f"H.264 of {seconds} s at {RATE} pictures per second to {COUNT} frames of {SIZE} px; medians of {repeats} "
        f"turns. The JPEG files hold one picture per second. Speeds are videos per second and core, on one core and "
        f"with all {cores} busy.",
        report.table(rows, TABLE),
    )


def film(path: Path, height: int, seconds: int, gap: int) -> Path:
    """Encode a clip with moving detail and noise; flat test pictures would decode faster than real video."""
    width = height * 16 // 9 // 2 * 2
    source = f"testsrc2=size={width}x{height}:rate={RATE}:duration={seconds},noise=alls=12:allf=t"
    encode = ["-c:v", "libx264", "-preset", "medium", "-crf", "26", "-pix_fmt", "yuv420p", "-g", str(gap)]
    subprocess.run([ours.ffmpeg(), "-v", "error", "-f", "lavfi", "-i", source, *encode, str(path)], check=True)
    return path


def on_one_core(method: Method, video: Path) -> None:
    """Run a method and its child processes on one core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        in_folder(method, video)
    finally:
        os.sched_setaffinity(0, cores)


def on_all_cores(pool: Executor, cores: int, method: Method, video: Path) -> None:
    list(pool.map(in_folder, [method] * cores, [video] * cores))


def in_folder(method: Method, video: Path) -> int:
    """Run a method; return its bytes on disk: of the files that it writes, otherwise of its frames."""
    with tempfile.TemporaryDirectory() as folder:
        frames = method(video, Path(folder))
        return sum(file.stat().st_size for file in Path(folder).iterdir()) or frames.nbytes


def disk(method: Method, video: Path) -> dict:
    size = in_folder(method, video)
    return {"megabytes": size / 1e6} if size else {}


def summary(name: str, taken: turns.Taken) -> dict:
    """Videos per second and core of a method, and its speed relative to the JPEG files and to our default."""
    return {
        "method": name,
        **{way: 1 / turns.median(taken, f"{name}, {way}") for way in ("one", "all")},
        **{f"jpeg_{way}": turns.ratio(taken, f"{JPEG}, {way}", f"{name}, {way}") for way in ("one", "all")},
        "ours_all": turns.ratio(taken, f"{OURS[0]}, all", f"{name}, all"),
    }


if __name__ == "__main__":
    typer.run(main)
