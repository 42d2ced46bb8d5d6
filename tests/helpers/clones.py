"""Copies of the project, as a fresh clone would have them, in which tests run the real engines on a small demo."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
GIT = ("git", "-c", "user.name=test", "-c", "user.email=test@localhost")
LISTING = ("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z")
VARIANTS = ("ssf", "lorm", "rap")
TABLES = {
    "table1": {"title": "All", "variants": list(VARIANTS), "baseline": "ssf"},
    "table2": {"title": "Two", "variants": ["ssf", "rap"], "baseline": "rap"},
    "table3": {"title": "Ablation", "variants": ["rap", "rank_4"], "baseline": "rap"},
}


def clone(folder: Path, small: bool = True) -> Path:
    """Copy what git would commit to `folder`, a git repository of its own, and make the job small or leave it."""
    listed = subprocess.run(LISTING, cwd=ROOT, check=True, capture_output=True, text=True)
    for name in listed.stdout.split("\0"):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    if small:
        shutil.rmtree(folder / "results")  # and the lock: they are of the whole job
        (folder / "dvc.lock").unlink(missing_ok=True)
        edit(folder, reduce)
    return folder


def reduce(params: dict) -> None:
    """Three variants, one seed, one epoch, a few scenes."""
    params["dataset"]["demo"] |= {"train": 8, "val": 2, "test": 5}
    params["features"]["caches"] = ["video-0", "text-ids"]
    params["train"]["epochs"] = 1
    params["seeds"] = [0]
    params["variants"] = {name: params["variants"][name] for name in VARIANTS}
    params["ablations"] = {"rank_4": params["ablations"]["rank_4"]}
    params["run"], params["tables"] = VARIANTS, TABLES


def edit(folder: Path, change: Callable[[dict], None]) -> None:
    """Change params.yaml, and dvc.yaml with it."""
    file = folder / "params.yaml"
    params = yaml.safe_load(file.read_text())
    change(params)
    file.write_text(yaml.safe_dump(params, sort_keys=False, allow_unicode=True))
    run(folder, "rap", "graph", "--write")


def run(folder: Path, *command: str, fails: bool = False) -> str:
    """Run a command in a clone, on the clone's own code; its output, both streams."""
    result = subprocess.run(
        command, cwd=folder, env=environment(folder), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert bool(result.returncode) == fails, f"{' '.join(command)}: {result.returncode}\n{result.stdout[-5000:]}"
    return result.stdout


def start(folder: Path, *command: str) -> subprocess.Popen:
    """Start a command in a clone, and leave it running."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, cwd=folder, env=environment(folder), start_new_session=True, **quiet)


def kill(process: subprocess.Popen) -> None:
    """End what `start` started, and all that it started, by the signal that nothing can catch."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def environment(folder: Path) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return os.environ | {"PATH": path, "PYTHONPATH": str(folder / "src")}
