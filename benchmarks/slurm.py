"""`snakemake --profile profiles/slurm` on a real Slurm, whose one node is this machine.

    pip install -e '.[slurm]'
    python benchmarks/slurm.py

For root on Debian, best in a container, with 2 cores and 8 GB of memory. Installs Slurm's daemons from Debian's
packages, starts them by hand, makes the tests' small demo on the spot and by way of sbatch, and compares the tables
byte by byte. One training is cancelled on the way, as an administrator would: Snakemake has to submit it again.
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

import report
import typer

sys.path.append(str(report.ROOT / "tests"))
from clones import clone, run

PACKAGES = ("munge", "slurm-client", "slurmctld", "slurmd")
SETTINGS = Path(
    "/etc/slurm/slurm.conf"
)  # a job step forgets SLURM_CONF, so the file has to be where Slurm looks for it
TARGET = "results/table1.csv"
# Without accounting there is no sacct to ask for a job's state, although the command is installed.
OPTIONS = ("--slurm-status-command", "squeue", "--slurm-no-account", "--slurm-init-seconds-before-status-checks", "5")


def main(results: Path = report.RESULTS) -> None:
    about = report.machine()
    install()
    with tempfile.TemporaryDirectory() as folder, slurm(Path(folder)):
        here, queued = (clone(Path(folder) / name) for name in ("here", "queued"))
        run(here, "snakemake", "--cores", "2", TARGET)
        killer = threading.Thread(target=cancel_a_training, daemon=True)
        killer.start()
        start = time.monotonic()
        printed = run(queued, "snakemake", "--profile", "profiles/slurm", *OPTIONS, TARGET)
        seconds = time.monotonic() - start
        same = (here / TARGET).read_bytes() == (queued / TARGET).read_bytes()
    figures = {
        "machine": about,
        "slurm": output("slurmctld", "-V").split()[-1],
        "snakemake": version("snakemake"),
        "plugin": version("snakemake-executor-plugin-slurm"),
        "submitted": printed.count("has been submitted with SLURM jobid"),
        "restarted": printed.count("Trying to restart job"),
        "seconds": round(seconds),
        "same_table": same,
    }
    report.write(results, "slurm", figures, words(figures), doc=report.ROOT / "docs/cluster.md")
    sys.exit(not (same and figures["restarted"]))


def words(figures: dict) -> str:
    verdict = "the same bytes as without Slurm" if figures["same_table"] else "NOT THE SAME as without Slurm"
    return (
        f"Slurm {figures['slurm']}, Snakemake {figures['snakemake']}, its plugin {figures['plugin']}: "
        f"{figures['submitted']} jobs submitted, {figures['restarted']} of them anew after it was cancelled, in "
        f"{figures['seconds']} s. {TARGET}: {verdict}. {report.sentence(figures['machine'])}"
    )


def install() -> None:
    if os.geteuid():
        sys.exit("slurm: only root can install and start Slurm; run this in a container")
    if SETTINGS.exists():
        sys.exit(f"slurm: {SETTINGS} is there; this machine has a Slurm of its own, which is left alone")
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    command = ("apt-get", "install", "--yes", "--no-install-recommends", *PACKAGES)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=quiet)


@contextmanager
def slurm(folder: Path) -> Iterator[None]:
    """Munge and Slurm's two daemons, with all their files but one in `folder`, until the block ends."""
    folder.chmod(0o755)  # munged refuses a socket that others cannot reach
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
            sys.exit((folder / "daemons.log").read_text() + "slurm: it did not start; its own words are above")
        yield
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(60)
        SETTINGS.unlink()


def settings(folder: Path, door: Path) -> str:
    """Of a cluster of one node. Processes are followed through /proc, since a container may have no cgroups to give."""
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
    """Cancel the first training that Slurm runs. Snakemake writes the rule into the job's comment."""
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
