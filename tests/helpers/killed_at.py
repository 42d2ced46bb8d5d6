"""`python killed_at.py N ARGUMENTS`: `rap ARGUMENTS`, killed before its Nth operation on files; 0: counts them.

An operation opens a file under data/ or results/ for writing, renames one or removes one.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

FOLDERS = ("data", "results")


def rap(folder: Path, point: int, *arguments: str) -> subprocess.CompletedProcess:
    """Run this file as a program."""
    command = [sys.executable, __file__, str(point), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


class Watch:
    """An audit hook that counts operations."""

    def __init__(self, point: int):
        self.point, self.done = point, 0
        self.folders = tuple(os.path.abspath(name) for name in FOLDERS)

    def __call__(self, event: str, arguments: tuple) -> None:
        writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if not (writes or event in ("os.rename", "os.remove")) or not isinstance(arguments[0], str | Path):
            return
        if os.path.abspath(arguments[0]).startswith(self.folders):
            self.done += 1
            if self.done == self.point:
                os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    from rap.__main__ import main

    watch = Watch(int(sys.argv.pop(1)))
    sys.addaudithook(watch)
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, ended.code
    print(f"operations {watch.done}")
