"""`snakemake --profile profiles/slurm` on a real Slurm, with this machine as its one node.

    pip install -e '.[slurm]'
    python benchmarks/slurm.py

For root on Debian, best in a container, with 2 cores and 8 GB of memory. Installs Slurm's daemons from Debian's
packages, starts them, runs the tests' small demo with and without Slurm, and compares the tables byte by byte. One
training is cancelled as an administrator would cancel it; Snakemake has to submit it again.
"""

import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import typer
from lib import report

sys.path.append(str(report.ROOT / "tests/helpers"))
from clones import clone, run

PACKAGES = ("munge", "slurm-client", "slurmctld", "slurmd")
SETTINGS = Path("/etc/slurm/slurm.conf")  # job steps ignore SLURM_CONF, so the file must be in the default place
TARGET = "results/table1.csv"
# Without accounting sacct is installed, but fails.
OPTIONS = ("--slurm-status-command", "squeue", "--slurm-no-account", "--slurm-init-seconds-before-status-checks", "5")


def main() -> None:
    out = report.Report("slurm")
    install()
    with tempfile.TemporaryDirectory() as folder, slurm(Path(folder)):
        here, queued = (clone(Path(folder) / name) for name in ("here", "queued"))
        run(here, "snakemake", "--cores", "2", TARGET)
        threading.Thread(target=cancel_a_training, daemon=True).start()
        start = time.monotonic()
        printed = run(queued, "snakemake", "--profile", "profiles/slurm", *OPTIONS, TARGET)
        seconds = time.monotonic() - start
        same = (here / TARGET).read_bytes() == (queued / TARGET).read_bytes()
    figures = {
        "slurm": output("slurmctld", "-V").split()[-1],
        "snakemake": version("snakemake"),
        "plugin": version("snakemake-executor-plugin-slurm"),
        "submitted": printed.count("has been submitted with SLURM jobid"),
        "restarted": printed.count("Trying to restart job"),
        "seconds": round(seconds),
        "verdict": "the same bytes as without Slurm" if same else "NOT THE SAME as without Slurm",
    }
    text = (
        "Slurm {slurm}, Snakemake {snakemake}, its plugin {plugin}: {submitted} jobs submitted in {seconds} s, "
        "{restarted} of them again after it was cancelled. " + TARGET + ": {verdict}."
    )
    out.write(figures, text.format(**figures))
    sys.exit(not (same and figures["restarted"]))


def install() -> None:
    if os.geteuid():
        sys.exit("slurm: installing and starting Slurm needs root; run this in a container")
    if SETTINGS.exists():
        sys.exit(f"slurm: {SETTINGS} exists: this machine has its own Slurm; run this in a container")
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    command = ("apt-get", "install", "--yes", "--no-install-recommends", *PACKAGES)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=quiet)


@contextmanager
def slurm(folder: Path) -> Iterator[None]:
    """Run munge and Slurm's two daemons inside the block, with all their files except SETTINGS in `folder`."""
    folder.chmod(0o755)  # munged refuses a socket that other users cannot reach
    door = folder / "munge.socket"
    munge = [f"--{name}-file={folder / f'munge.{name}'}" for name in ("key", "pid", "log", "seed")]
    subprocess.run(["mungekey", "--create", "--keyfile", folder / "munge.key"], check=True)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    SETTINGS.parent.mkdir(exist_ok=True)
    SETTINGS.write_text(settings(folder, door))
    commands = (["munged", "--foreground", f"--socket={door}", *munge], ["slurmctld", "-D", "-c"], ["slurmd", "-D"])
    daemons = []
    try:
        with (folder / "daemons.log").open("w") as log:
            for command in commands:
                daemons.append(subprocess.Popen(command, stdout=log, stderr=log))
                time.sleep(2)
        if subprocess.run(["srun", "--ntasks", "1", "true"], timeout=60).returncode:
            sys.exit((folder / "daemons.log").read_text() + "slurm: it did not start; its log is above")
        yield
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(60)
        SETTINGS.unlink()


def settings(folder: Path, door: Path) -> str:
    """slurm.conf of a one-node cluster. Processes are tracked by /proc, since a container may have no cgroups."""
    host = socket.gethostname().split(".")[0]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * 9 // 10 // 2**20
    lines = (
        "ClusterName=one",
        f"SlurmctldHost={host}(127.0.0.1)",
        "SlurmUser=root",
        f"AuthInfo=socket={door}",
        "CredType=cred/munge",
        f"StateSaveLocation={folder / 'state'}",
        f"SlurmdSpoolDir={folder / 'spool'}",
        f"SlurmctldPidFile={folder / 'slurmctld.pid'}",
        f"SlurmdPidFile={folder / 'slurmd.pid'}",
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        "MpiDefault=none",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_CPU_Memory",
        f"NodeName=node NodeHostname={host} NodeAddr=127.0.0.1 CPUs={os.cpu_count()} RealMemory={memory}",
        "PartitionName=all Nodes=ALL Default=YES State=UP",
    )
    return "\n".join(lines) + "\n"


def cancel_a_training() -> None:
    """Cancel the first training in Slurm. Snakemake writes the name of the rule into the job's comment."""
    while True:
        time.sleep(0.5)
        running = output("squeue", "--noheader", "--states=running", "--format=%i %k")
        if found := re.search(r"^(\d+) rule_train", running, re.M):
            subprocess.run(["scancel", found[1]], check=True)
            return


def output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    typer.run(main)
