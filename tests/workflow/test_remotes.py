"""Results travel: pushed to a remote, a folder or a bucket, and pulled into a fresh clone, whole for both engines."""

import shutil
from pathlib import Path

import boto3
import pytest
from clones import GIT, clone, edit, run
from engines import planned
from moto.server import ThreadedMotoServer

pytestmark = [pytest.mark.engine, pytest.mark.slow]

BUCKET = "results"
SETTINGS = ".dvc/config.local"
TABLE = [f"results/table1.{kind}" for kind in ("csv", "md", "png")]
FILES = [
    "data/demo/frames/shard-0.npy",
    "data/demo/features/video-0/shard-0.npy",
    "results/runs/rap/seed-0/adapter.safetensors",
    "results/runs/rap/seed-0/similarity.npy",
]


def smallest(params: dict) -> None:
    """One variant, one shard."""
    params["shards"] = [0]
    params["variants"] = {"rap": params["variants"]["rap"]}
    params["run"] = ["rap"]
    params["tables"] = {"table1": {"title": "One", "variants": ["rap"], "baseline": "rap"}}
    params["ablations"] = {}


@pytest.fixture(scope="module")
def origin(tmp_path_factory) -> Path:
    """A project that DVC ran, committed."""
    folder = clone(tmp_path_factory.mktemp("origin"))
    edit(folder, smallest)
    run(folder, "dvc", "repro")
    run(folder, *GIT, "add", "--all")
    run(folder, *GIT, "commit", "--quiet", "--message", "Results")
    return folder


@pytest.fixture
def bucket(monkeypatch):
    """The address of an S3 server on this machine, with one bucket, and keys for it in the environment."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    boto3.client("s3", endpoint_url=address).create_bucket(Bucket=BUCKET)
    yield address
    server.stop()


def push(origin: Path, address: str, **options: str) -> None:
    (origin / SETTINGS).unlink(missing_ok=True)
    run(origin, "dvc", "remote", "add", "--default", "--local", "store", address)
    for name, value in options.items():
        run(origin, "dvc", "remote", "modify", "--local", "store", name, value)
    run(origin, "dvc", "push")


def fresh_clone(origin: Path, folder: Path) -> Path:
    """What git keeps, and where the remote is; none of the origin's cache."""
    run(origin.parent, "git", "clone", "--quiet", str(origin), str(folder))
    shutil.copy(origin / SETTINGS, folder / SETTINGS)
    assert not any((folder / name).exists() for name in FILES)
    return folder


def pull(origin: Path, fresh: Path) -> None:
    """The same bytes come, and nothing is left to do; but DVC does not keep the page, which shows times."""
    run(fresh, "dvc", "pull")
    for name in FILES + TABLE:
        assert (fresh / name).read_bytes() == (origin / name).read_bytes(), name
    assert run(fresh, "dvc", "status", "--json").strip() == "{}"
    assert planned(fresh, "snakemake") == {"rap report"}


def test_by_way_of_a_folder(origin, tmp_path):
    push(origin, str(tmp_path / "store"))
    pull(origin, fresh_clone(origin, tmp_path / "fresh"))


def test_by_way_of_an_s3_server(origin, bucket, tmp_path):
    push(origin, f"s3://{BUCKET}/rap", endpointurl=bucket)
    pull(origin, fresh_clone(origin, tmp_path / "fresh"))
    assert boto3.client("s3", endpoint_url=bucket).list_objects_v2(Bucket=BUCKET, Prefix="rap/files/md5/")["KeyCount"]


def test_a_damaged_store_is_noticed(origin, tmp_path):
    """A file of the store that lost its end does not come in unseen."""
    store = tmp_path / "store"
    push(origin, str(store))
    largest = max(filter(Path.is_file, store.rglob("*")), key=lambda file: file.stat().st_size)
    largest.chmod(0o644)
    largest.write_bytes(largest.read_bytes()[:-1])
    run(fresh_clone(origin, tmp_path / "fresh"), "dvc", "pull", fails=True)
