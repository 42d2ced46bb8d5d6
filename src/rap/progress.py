"""Progress of long work: a bar on a terminal; elsewhere, such as in a log, one line every 30 seconds."""

import sys
import time
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

EVERY = 30.0  # seconds between two lines, and before the first: short work prints nothing


class Lines(tqdm):
    """A progress bar written as lines: the work done, its rate, and the remaining time."""

    FORMAT = "{desc}: {n_fmt} of {total_fmt}, {rate_fmt}, {elapsed} so far, {remaining} left{postfix}"

    def __init__(self, items: Iterable | None = None, **options: Any):
        self.shown, self.said = time.monotonic(), -1.0  # time of the last line, and the progress at that time
        super().__init__(items, bar_format=self.FORMAT, mininterval=EVERY, delay=EVERY, **options)

    @staticmethod
    def status_printer(file: Any) -> Any:
        def show(line: str) -> None:
            file.write(f"{line}\n" if line else "")
            file.flush()

        return show

    def refresh(self, nolock: bool = False, lock_args: Any = None) -> None:
        """tqdm calls this after every message and change of text; lines are written less often."""
        if time.monotonic() - self.shown >= EVERY:
            self.shown, self.said = time.monotonic(), self.n
            self.display()

    def clear(self, nolock: bool = False) -> None:
        """Do nothing: lines are not erased."""

    def moveto(self, n: int) -> None:
        """tqdm moves the cursor for a bar inside another one; lines need no cursor."""

    def close(self) -> None:
        if not self.disable and self.said not in (-1.0, self.n):
            self.display()
        self.delay = float("inf")  # tqdm then adds nothing
        super().close()


def progress(items: Iterable | None = None, desc: str = "", **options: Any) -> tqdm:
    """tqdm on a terminal, Lines elsewhere; `options` are tqdm's."""
    return (tqdm if sys.stderr.isatty() else Lines)(items, desc=desc, **options)


def note(line: str) -> None:
    """Write a line to stderr without breaking a progress bar."""
    tqdm.write(line, file=sys.stderr)
