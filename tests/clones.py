"""Copies of the project, as a fresh clone would have them, in which tests run the real engines on a small demo."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
VARIANTS = ("ssf", "lorm", "rap")


def clone(folder: Path) -> Path:
    """Copy what git would commit to `folder`, a git repository of its own, and make the job small."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], cwd=ROOT, check=True, stdout=-1
    )
    for name in listed.stdout.decode().split("\0"):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    edit(folder, reduce)
    return folder


def reduce(params: dict) -> None:
    """Three variants, two seeds, one epoch, a few scenes."""
    params["dataset"]["demo"] |= {"train": 8, "val": 2, "test": 5}
    params["features"]["caches"] = ["video-0", "text-ids"]
    params["train"]["epochs"] = 1
    params["seeds"] = [0, 1]
    params["variants"] = {name: params["variants"][name] for name in VARIANTS}
    params["tables"]["table1"] |= {"variants": list(VARIANTS), "baseline": VARIANTS[0]}


def edit(folder: Path, change: Callable[[dict], None]) -> None:
    """Change params.yaml."""
    file = folder / "params.yaml"
    params = yaml.safe_load(file.read_text())
    change(params)
    file.write_text(yaml.safe_dump(params, sort_keys=False, allow_unicode=True))


def run(folder: Path, *command: str, fails: bool = False) -> str:
    """Run a command in a clone, on the clone's own code; its output, both streams."""
    path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(folder / "src")}
    result = subprocess.run(
        command, cwd=folder, env=os.environ | path, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert bool(result.returncode) == fails, f"{' '.join(command)}: {result.returncode}\n{result.stdout[-5000:]}"
    return result.stdout
