"""Long recordings to an index of their spans, compared with decoding every file once without output.

    python benchmarks/recordings.py [--files 10] [--minutes 60] [--every 8]

The real commands run: `rap dataset init --every`, `rap download`, `rap features` in one pass from the files to the
cache (`frames.store: false`) with each decoder, and `rap search`. A recording is one hour of H.264, 640x360, 25
pictures a second with moving detail and noise, and a key frame every ten seconds, so most spans begin between two key
frames. All recordings are the same file under other names. The floor is ffmpeg with one thread, one process per core.
About 25 minutes on 2 cores.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir
from pathlib import Path

import typer
import yaml
from lib import ours, report

SOURCE = "testsrc2=size={width}x{height}:rate=25:duration={seconds},noise=alls=12:allf=t"
PART = 600  # encoded seconds; longer recordings repeat them
ENCODE = ["-c:v", "libx264", "-preset", "veryfast", "-crf", "30", "-pix_fmt", "yuv420p", "-g", "250"]
TABLE = (
    "step | minutes | hours of video in an hour | speed, floor = 1",
    "{step} | {minutes:.1f} | {speed:.0f} | {share:.2f}",
)


def main(files: int = 10, minutes: float = 60, every: int = 8) -> None:
    written = report.Report("recordings")
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        films = record(files, round(60 * minutes))
        times = {"ffmpeg, every picture, none kept": timed(lambda: floor(films))}
        prepare()
        times["list the spans, inspect and digest the files"] = timed(lambda: (listed(every), rap("download")))
        rap("backbone")
        for decoder in ("ffmpeg", "sparse"):
            configure(frames={"decoder": decoder})
            times[f"spans to the cache, {decoder}"] = timed(index)
        times["the first search"] = timed(lambda: rap("search", "a red ball"))
        spans = Path("videos.csv").read_text().count("\n") - 1
    hours = files * minutes / 60
    rows = [row(step, seconds, times, hours) for step, seconds in times.items()]
    text = f"{files} recordings of {minutes:g} minutes in {spans:,} spans of {every} s, with 12 frames of 64 px each."
    written.write({"hours": hours, "every": every, "steps": rows}, text, report.table(rows, TABLE))


def record(files: int, seconds: int, height: int = 360) -> list[Path]:
    """One film under several names."""
    Path("videos").mkdir()
    part = min(PART, seconds)
    source = SOURCE.format(seconds=part, width=height * 16 // 9, height=height)
    run(ours.ffmpeg(), "-v", "error", "-f", "lavfi", "-i", source, *ENCODE, "part.mp4")
    films = [Path(f"videos/recording-{number}.mp4") for number in range(files)]
    again = str(seconds // part - 1)
    run(ours.ffmpeg(), "-v", "error", "-stream_loop", again, "-i", "part.mp4", "-c", "copy", str(films[0]))
    for film in films[1:]:
        os.link(films[0], film)
    return films


def prepare() -> None:
    """params.yaml for zero-shot search in the recordings."""
    values = yaml.safe_load((report.ROOT / "params.yaml").read_text())
    values["dataset"] |= {"name": "folder", "annotations": "videos.csv", "videos": "videos"}
    values |= {"shards": [0], "run": ["zero_shot"], "seeds": [0]}
    values["features"] |= {"caches": ["video-all", "text-ids"]}
    values["frames"] |= {"count": 12, "store": False}
    values["backbone"]["weights"] = str(report.ROOT / values["backbone"]["weights"])
    Path("params.yaml").write_text(yaml.safe_dump(values))


def configure(**sections: dict) -> None:
    values = yaml.safe_load(Path("params.yaml").read_text())
    for name, keys in sections.items():
        values[name] |= keys
    Path("params.yaml").write_text(yaml.safe_dump(values))


def listed(every: int) -> None:
    rap("dataset", "init", "videos", "--every", f"{every}s")


def index() -> None:
    """From the files to the cache; the first command only writes the keys of the spans' pictures."""
    rap("frames", "--shard", "0")
    rap("features", "--cache", "video-all", "--shard", "0")


def floor(films: list[Path]) -> None:
    """Decode every picture of every file once, on all cores."""

    def decode(film: Path) -> None:
        run(ours.ffmpeg(), "-v", "error", "-threads", "1", "-i", str(film), "-map", "0:V:0", "-f", "null", "-")

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(decode, films))


def rap(*arguments: str) -> None:
    run(sys.executable, "-m", "rap", *arguments)


def run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def row(step: str, seconds: float, times: dict[str, float], hours: float) -> dict:
    whole = next(iter(times.values()))
    return {"step": step, "minutes": seconds / 60, "speed": hours * 3600 / seconds, "share": whole / seconds}


if __name__ == "__main__":
    typer.run(main)
