"""What the profiles ask of a cluster. Slurm itself: benchmarks/slurm.py. Kubernetes has a stand-in for kubectl here."""

import json
import os
import re
import sys
from pathlib import Path

import pytest
from clones import clone, edit, run

pytestmark = [pytest.mark.engine, pytest.mark.slow]

GPU = {"features", "train", "evaluate"}
KUBECTL = f"""#!{sys.executable}
import json, os, subprocess, sys, yaml
from pathlib import Path
if sys.argv[1] == "create":
    job = yaml.safe_load(sys.stdin)
    number = len(list(Path("jobs").iterdir()))
    Path(f"jobs/{{number}}.json").write_text(json.dumps(job))
    command = job["spec"]["template"]["spec"]["containers"][0]["command"]
    clean = {{"PATH": "/usr/bin:/bin", "HOME": os.environ["HOME"], "PYTHONPATH": os.environ["PYTHONPATH"]}}
    killed = number == 0
    failed = killed or subprocess.run(command, env=clean, cwd="/", stdout=sys.stderr).returncode
    Path(f"state-{{number}}").write_text("/1" if failed else "1/")
    print(f"job.batch/rap-{{number}}")
elif sys.argv[1] == "get":
    print(Path("state-" + sys.argv[2].removeprefix("job.batch/rap-")).read_text())
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    return clone(tmp_path_factory.mktemp("project"))


def asked(folder: Path, *options: str) -> dict[str, list[dict[str, str]]]:
    """The resources of every job of a dry run, by rule."""
    printed = run(folder, "snakemake", "--dry-run", "--cores", "8", *options)
    found = re.findall(r"^rule (\w+):\n(?:    .*\n)*?(?:    threads: (.+)\n)?    resources: (.+)", printed, re.M)
    jobs = {}
    for rule, threads, resources in found:
        pairs = dict(pair.split("=") for pair in resources.split(", "))
        jobs.setdefault(rule, []).append(pairs | {"threads": threads or "1"})
    del jobs["all"]
    return jobs


@pytest.mark.parametrize("profile", [("profiles/slurm", "--executor", "local"), ("profiles/kubernetes",)])
def test_every_job_says_what_it_needs(project, profile):
    """Slurm's profile also where its plugin is not installed: a dry run needs no executor."""
    edit(project, lambda params: params["runtime"].update(device="cuda", threads=2))
    jobs = asked(project, "--profile", *profile)
    edit(project, lambda params: params["runtime"].update(device="auto", threads=1))
    assert jobs.keys() == {"download", "backbone", "frames", "features", "train", "evaluate", "table", "report"}
    for rule, needs in jobs.items():
        for need in needs:
            assert int(need["mem_mb"]) >= 2000 and int(need["runtime"]) >= 30, rule
            assert int(need.get("gpu", 0)) == (rule in GPU), rule
            assert int(need["threads"]) == (1 if rule in ("backbone", "table", "report") else 2), rule


def test_kubernetes_gets_a_job_and_after_a_failure_a_larger_one(project, tmp_path, monkeypatch):
    """The first job is killed before it begins; the second runs in an environment as bare as that of a pod."""
    (tmp_path / "kubectl").write_text(KUBECTL)
    (tmp_path / "kubectl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (project / "jobs").mkdir()
    weights = "data/backbones/demo-vit/weights.safetensors"
    profile = ("--profile", "profiles/kubernetes", "--seconds-between-status-checks", "1")
    printed = run(project, "snakemake", *profile, weights)
    assert (project / weights).exists() and "Trying to restart job" in printed
    for attempt in (1, 2):
        pod = json.loads((project / f"jobs/{attempt - 1}.json").read_text())["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert pod["activeDeadlineSeconds"] == attempt * 30 * 60
        assert container["resources"] == {
            "requests": {"cpu": 1, "memory": f"{attempt * 4000}M", "nvidia.com/gpu": 0},
            "limits": {"memory": f"{attempt * 4000}M", "nvidia.com/gpu": 0},
        }
        (volume,), (mount,) = pod["volumes"], container["volumeMounts"]
        assert volume["name"] == mount["name"] and volume["persistentVolumeClaim"]["claimName"]
