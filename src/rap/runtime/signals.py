"""SIGTERM and SIGHUP end a command as Ctrl-C does. The processes that it started end with it, also after SIGKILL."""

import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

NAMES = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "the terminal was closed"}


class Ended(BaseException):
    """A signal arrived. It passes every `except Exception`, and what a library does on KeyboardInterrupt."""

    def __init__(self, number: int):
        super().__init__(NAMES[signal.Signals(number)])
        self.status = 128 + number


def obey() -> None:
    """Raise Ended on each of the signals, except those that the parent process set to be ignored, as `nohup` does."""
    for number in NAMES:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


def _end(number: int, frame: Any) -> None:
    end_children()
    raise Ended(number)


def tied(command: list[str]) -> list[str]:
    """The command of a process that the kernel kills when the thread that starts it ends; only Linux has this."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", *command] if setpriv else command


def end_children() -> None:
    """Kill the processes that this one started, such as ffmpeg: a thread would wait for them to finish."""
    for task in Path(f"/proc/{os.getpid()}/task").glob("*/children"):  # only Linux has this folder
        with suppress(OSError):
            for child in task.read_text().split():
                os.kill(int(child), signal.SIGKILL)
