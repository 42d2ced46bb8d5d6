"""Every path under data/ and results/, relative to the folder that holds params.yaml.

The functions take names, so that "{variant}" in place of a name gives a pattern for an engine.
"""

from pathlib import Path

PARAMS = Path("params.yaml")
DATA = Path("data")
RESULTS = Path("results")
DIGESTS = DATA / "provenance.json"  # parameters and code of every job, for DVC
RUN_FILES = ("adapter.safetensors", "history.csv", "run.json")  # of a training; run.json is its record
EVALUATION_FILES = (
    "metrics.json",
    "figures.json",
    "ranks.parquet",
    "similarity.npy",
    "evaluation.json",
)  # last: record


def dataset(name: str) -> Path:
    return DATA / name


def own_videos(name: str) -> Path:
    """The videos of a dataset that names no other folder for them."""
    return dataset(name) / "videos"


def manifest(name: str) -> Path:
    return dataset(name) / "manifest"


def backbone(name: str) -> Path:
    return DATA / "backbones" / name


def frames(name: str, shard: int | str) -> Path:
    """The stem of a shard: .npy, .parquet and .json follow."""
    return dataset(name) / "frames" / f"shard-{shard}"


def features(name: str, cache: str, shard: int | str) -> Path:
    """The stem of a shard: .npy, .parquet and .json follow."""
    return dataset(name) / "features" / cache / f"shard-{shard}"


def parts(stem: Path) -> list[Path]:
    """The array and the journal of a shard that is being made."""
    return [stem.with_name(f".{stem.name}.{end}.part") for end in ("npy", "rows")]


def index(name: str, model: str) -> Path:
    """The stem of a search index: a shard of video embeddings of one model."""
    return dataset(name) / "index" / model[:16]


def durations(name: str) -> Path:
    """The picture that `rap dataset stats` draws."""
    return dataset(name) / "stats" / "durations.png"


def run(variant: str, seed: int | str) -> Path:
    return RESULTS / "runs" / variant / f"seed-{seed}"


def checkpoint(variant: str, seed: int | str) -> Path:
    return run(variant, seed) / "checkpoint.pt"


def costs(variant: str, seed: int | str) -> Path:
    """Times and memory of a training: they vary, so no engine tracks them."""
    return run(variant, seed) / "costs.json"


def system(variant: str, seed: int | str) -> Path:
    """What the machine did during a training, if `tracking.system_metrics` asks for it."""
    return run(variant, seed) / "system.csv"


def table(name: str, suffix: str) -> Path:
    return RESULTS / f"{name}.{suffix}"


def table_costs(name: str) -> Path:
    """costsN.csv of a table named tableN."""
    return RESULTS / f"costs{name.removeprefix('table')}.csv"


def sweep() -> Path:
    """The points of `rap sweep`."""
    return RESULTS / "sweep.csv"
