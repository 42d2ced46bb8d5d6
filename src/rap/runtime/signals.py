"""SIGTERM and SIGHUP end a command as Ctrl-C does. The processes that it started end with it, also after SIGKILL."""

import ctypes
import os
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1  # of prctl(2)
NAMES = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "the terminal was closed"}


class Ended(BaseException):
    """A signal arrived. Not caught by `except Exception`, nor by a library's handling of KeyboardInterrupt."""

    def __init__(self, number: int):
        super().__init__(NAMES[signal.Signals(number)])
        self.status = 128 + number


def obey() -> None:
    """Raise Ended on each of the signals, except signals that the parent process ignores, as `nohup` does."""
    for number in NAMES:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


def _end(number: int, frame: Any) -> None:
    end_children()
    raise Ended(number)


def tied(command: list[str]) -> list[str]:
    """The command, such that the kernel kills its process when the starting thread ends; Linux only."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", *command] if setpriv else command


def end_with_parent() -> None:
    """Make the kernel kill this process when the thread that forked it ends; Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def end_children() -> None:
    """Kill the child processes, such as ffmpeg, because threads would wait for them to finish."""
    for task in Path(f"/proc/{os.getpid()}/task").glob("*/children"):  # only Linux has this folder
        with suppress(OSError):
            for child in task.read_text().split():
                os.kill(int(child), signal.SIGKILL)
