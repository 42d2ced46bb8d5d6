"""Make deliberate faults in a copy of the sources, one at a time, and see the tests that must go red.

    python tests/mutations [NAME ...]

Each line of the result says "killed" or "SURVIVED"; the exit status is 1 if one survived. A few minutes for all.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from faults import FAULTS, ROOT, Fault, mutated


def killed(fault: Fault, folder: Path) -> bool:
    """Whether a test of the fault fails on a copy of the sources that has it."""
    sources = folder / "src"
    shutil.copytree(ROOT / "src", sources, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    (folder / fault.file).write_text(mutated(fault))
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *fault.tests]
    environment = os.environ | {"PYTHONPATH": str(sources)}
    status = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True).returncode
    if status not in (0, 1):
        raise RuntimeError(f"{fault.name}: pytest ended with {status}: {' '.join(command)}")
    return status == 1


def main(names: list[str]) -> int:
    survived = 0
    for fault in FAULTS:
        if names and fault.name not in names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            dead = killed(fault, Path(folder))
        survived += not dead
        print(f"{'killed' if dead else 'SURVIVED':9}{fault.name}", flush=True)
    return int(survived > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
