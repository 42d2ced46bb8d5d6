"""A real browser without a window: Chromium."""

import shutil
import subprocess

import pytest

ALWAYS = ("--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr")


def shown(address: str, *options: str, seconds: int = 5) -> tuple[str, list[str]]:
    """A page after its scripts ran for so many seconds of their own clock: its HTML, and what they said in the console.

    Skips the test on a machine without Chromium.
    """
    if not (chromium := shutil.which("chromium") or shutil.which("google-chrome")):
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    command = [chromium, *ALWAYS, *options, f"--virtual-time-budget={1000 * seconds}", "--dump-dom", address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]
