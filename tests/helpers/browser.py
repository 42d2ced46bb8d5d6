"""A real browser without a window: Chromium."""

import shutil
import subprocess
import tempfile

import pytest

ALWAYS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",  # a page as large as MLflow's crashes where /dev/shm is small, as in a container
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--enable-logging=stderr",
)


def shown(address: str, *options: str, seconds: int = 5) -> tuple[str, list[str]]:
    """A page after its scripts ran for so many seconds of their own clock: its HTML, and what they said in the console.

    Skips the test on a machine without Chromium.
    """
    if not (chromium := shutil.which("chromium") or shutil.which("google-chrome")):
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    clock = f"--virtual-time-budget={1000 * seconds}"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:  # two may not share one
        command = [chromium, *ALWAYS, f"--user-data-dir={profile}", *options, clock, "--dump-dom", address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]
