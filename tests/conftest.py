"""Fixtures of all tests: short clips of known content made by ffmpeg, and a project folder to run stages in."""

import copy
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest
import sealed
import tiny
import whole
import yaml
from scripted import Server, serving

from rap.files import write_json
from rap.frames import ffmpeg
from rap.params import Params, parse

ROOT = Path(__file__).resolve().parents[1]
COUNTER = "nullsrc=s=96x64:r=25:d=4,geq=lum=16+2*N:cb=128:cr=128"  # picture n is a plain grey: see `number`
PICTURE = "testsrc2=s=322x241:r=25:d=1"  # odd sides, sharp edges, all colours
H264 = ("-c:v", "libx264", "-preset", "veryfast", "-crf", "10", "-pix_fmt", "yuv420p", "-threads", "1")
VP9 = ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-crf", "10", "-b:v", "0", "-threads", "1")
SPARSE = ("-vf", "select='if(lt(t,2),1,not(mod(n,10)))'", "-fps_mode", "vfr")  # 25 pictures a second, then 2.5


def film(path: Path, source: str, *options: str) -> Path:
    """Encode a lavfi source to `path`."""
    ffmpeg.run([ffmpeg.binary(), "-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i", source, *options, str(path)])
    return path


def recode(path: Path, source: Path, *options: str, before: tuple = ()) -> Path:
    """Copy or encode a file into another."""
    ffmpeg.run([ffmpeg.binary(), "-nostdin", "-v", "error", "-y", *before, "-i", str(source), *options, str(path)])
    return path


def number(frames):
    """Which picture of COUNTER each frame shows: [T] int."""
    return ((frames.mean(axis=(1, 2, 3)) * 219 / 255) / 2).round().astype(int)


@pytest.fixture(scope="session")
def clips(tmp_path_factory) -> Path:
    """A folder of good clips: do not write into it."""
    folder = tmp_path_factory.mktemp("clips")
    steady = film(folder / "steady.mp4", COUNTER, *H264, "-movflags", "+faststart")
    film(folder / "steady.webm", COUNTER, *VP9)
    film(folder / "sparse.mp4", COUNTER, *SPARSE, *H264)
    film(folder / "sparse.webm", COUNTER, *SPARSE, *VP9)
    film(folder / "open.mp4", COUNTER, *H264, "-x264-params", "open-gop=1:keyint=12:bframes=3")
    film(folder / "open.mkv", COUNTER, *H264, "-x264-params", "open-gop=1:keyint=12:bframes=3")
    recode(folder / "stream.ts", steady, "-c", "copy")
    film(folder / "picture.mp4", PICTURE, *H264)
    film(folder / "portrait.mp4", "testsrc2=s=120x214:r=10:d=1", *H264)
    film(folder / "one.mp4", PICTURE, *H264, "-frames:v", "1")
    film(folder / "one.webm", PICTURE, *VP9, "-frames:v", "1")
    return folder


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty project folder as the working directory, with a backbone's config.json; returns `configure`.

    `configure(frames={"count": 4}, …)` gives the repository's parameters with changes; the dataset is `folder`, with
    videos/ and list.csv.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "videos").mkdir()
    preprocess = {"size": 32, "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"}
    write_json("data/backbones/demo-vit/config.json", {"preprocess": {**preprocess, "resize_mode": "shortest"}})
    Path("data/backbones/demo-vit/weights.safetensors").touch()
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["dataset"] |= {"name": "folder", "annotations": "list.csv", "videos": "videos"}

    def configure(**changes: dict) -> Params:
        mine = copy.deepcopy(values)
        for section, keys in changes.items():
            mine[section] = mine[section] | keys if isinstance(keys, dict) else keys
        params = parse(Params, mine, "params.yaml")
        if params.backbone.name == "demo-vit":
            sealed.backbone(params)
        return params

    return configure


@pytest.fixture(scope="session")
def cached(tmp_path_factory) -> tuple[Path, Params]:
    """The folder of a tiny project with all caches and nothing trained, not to be changed, and its parameters."""
    folder = tmp_path_factory.mktemp("cached")
    with chdir(folder):
        params = tiny.project(folder)
        tiny.cache(params)
    return folder, params


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> tuple[Path, Params]:
    """The folder of a tiny project in which every job has run, not to be changed, and its parameters."""
    folder = tmp_path_factory.mktemp("made")
    return folder, whole.project(folder)


@pytest.fixture
def copied(made, tmp_path, monkeypatch) -> Params:
    """A copy of `made` as the working directory."""
    folder, params = made
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return params


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A file system of 64 MB in memory, which can be filled or made read-only."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no right to mount a small disk: {mounted.stderr.decode().strip()}")
    yield folder
    os.chdir(tmp_path)
    subprocess.run(["umount", folder], check=True)


@pytest.fixture
def server(monkeypatch) -> Server:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving() as server:
        yield server


@pytest.fixture
def listed(project, clips, server):
    """`listed(*names, …)` lists videos that the server has under /v/, and gives parameters with quick retries."""

    def configure(*names: str, max_failed: float = 0.9, **keys) -> Params:
        rows = "".join(f'"{name}",a caption,train\n' for name in names)
        Path("list.csv").write_text("path,caption,split\n" + rows)
        server.files |= {f"/v/{name}": (clips / "one.mp4").read_bytes() for name in names}
        quick = {"videos": server.url("/v/{path}"), "retries": 1, "backoff": 0.001, "timeout": 1.0}
        return project(dataset={"max_failed": max_failed}, download=quick | keys)

    return configure


@pytest.fixture(scope="session")
def real_clips() -> list[Path]:
    """Real clips of the field, if there are any: RAP_SHARED, or a folder `shared` beside the repository."""
    folder = Path(os.environ.get("RAP_SHARED", ROOT.parent / "shared")) / "videos"
    found = sorted(folder.glob("*.mp4"))
    if not found:
        pytest.skip(f"no real clips: set RAP_SHARED to a folder with videos/*.mp4 (looked in {folder})")
    return found


@pytest.fixture
def annotations(tmp_path):
    """`annotations(name)`: a folder with the real annotation files of a benchmark, as links: files may be added.

    They are looked for where `real_clips` looks; a test without them is skipped.
    """

    def copy(name: str) -> Path:
        real = Path(os.environ.get("RAP_SHARED", ROOT.parent / "shared")) / "annotations" / name
        if not real.is_dir():
            pytest.skip(f"no annotations: set RAP_SHARED to a folder with annotations/{name} (looked in {real})")
        folder = tmp_path / name
        folder.mkdir()
        for file in real.iterdir():
            (folder / file.name).symlink_to(file)
        return folder

    return copy


def put(clips: Path, *names: str) -> None:
    """Copy clips into the project's folder of videos."""
    for name in names:
        shutil.copy(clips / name, Path("videos") / name)


def pytest_collection_modifyitems(items: list) -> None:
    """The files that take minutes start first, the longest of them before the others: the rest runs beside them."""
    items.sort(key=lambda item: (item.path.name != "test_engines.py", "workflow" not in item.path.parts))
