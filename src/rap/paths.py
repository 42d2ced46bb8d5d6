"""Every path under data/ and results/, and the files of DVC, relative to the folder that holds params.yaml.

The functions take names, so that "{variant}" in place of a name gives a pattern for an engine. What they return is a
path whose attributes are its files. `record` is that of the result, and `files` are those that the record covers.
"""

from pathlib import Path, PosixPath

PARAMS = Path("params.yaml")
DVC, DVC_ABLATIONS = Path("dvc.yaml"), Path("workflow/ablations/dvc.yaml")
DATA = Path("data")
RESULTS = Path("results")
DIGESTS = DATA / "provenance.json"  # parameters and code of every job, for DVC
REPORT, REPORT_RECORD = RESULTS / "report.html", RESULTS / "report.json"
FIGURES, LATEX = RESULTS / "figures", RESULTS / "latex"


class _File:
    """An attribute of a path: the path with `end` appended."""

    def __init__(self, end: str):
        self.end = end

    def __get__(self, start: Path, kind: type) -> Path:
        return Path(f"{start}{self.end}")


class ManifestFolder(PosixPath):
    videos = _File("/videos.parquet")
    captions = _File("/captions.parquet")
    record = _File("/manifest.json")

    @property
    def files(self) -> tuple[Path, ...]:
        return self.videos, self.captions


class BackboneFolder(PosixPath):
    weights = _File("/weights.safetensors")
    config = _File("/config.json")
    record = _File("/backbone.json")

    @property
    def files(self) -> tuple[Path, ...]:
        return self.weights, self.config


class ShardStem(PosixPath):
    array = _File(".npy")
    index = _File(".parquet")
    record = _File(".json")
    cells = _File(".cells.npz")  # of a search index
    cells_record = _File(".cells.json")

    @property
    def files(self) -> tuple[Path, ...]:
        return self.array, self.index


class RunFolder(PosixPath):
    adapter = _File("/adapter.safetensors")
    history = _File("/history.csv")
    record = _File("/run.json")  # of the training
    checkpoint = _File("/checkpoint.pt")
    costs = _File("/costs.json")  # times and memory of the training: they vary, so no engine tracks them
    system = _File("/system.csv")  # samples of the machine's load, if `tracking.system_metrics` asks for them
    metrics = _File("/metrics.json")
    figures = _File("/figures.json")
    ranks = _File("/ranks.parquet")
    similarity = _File("/similarity.npy")
    evaluation = _File("/evaluation.json")  # the record of the evaluation

    @property
    def trained(self) -> tuple[Path, ...]:
        """What `record` covers."""
        return self.adapter, self.history

    @property
    def evaluated(self) -> tuple[Path, ...]:
        """What `evaluation` covers."""
        return self.metrics, self.figures, self.ranks, self.similarity


class TableStem(PosixPath):
    csv = _File(".csv")
    md = _File(".md")
    png = _File(".png")
    record = _File(".json")

    @property
    def files(self) -> tuple[Path, ...]:
        return self.csv, self.md, self.png

    @property
    def costs(self) -> Path:
        """costsN.csv of a table named tableN."""
        return RESULTS / f"costs{self.name.removeprefix('table')}.csv"


def dataset(name: str) -> Path:
    return DATA / name


def own_videos(name: str) -> Path:
    """The default folder of a dataset's videos."""
    return dataset(name) / "videos"


def manifest(name: str) -> ManifestFolder:
    return ManifestFolder(dataset(name), "manifest")


def refused(name: str) -> ManifestFolder:
    """The manifest of a download that found too few videos: for `rap dataset stats` alone."""
    return ManifestFolder(dataset(name), "refused")


def backbone(name: str) -> BackboneFolder:
    return BackboneFolder(DATA, "backbones", name)


def frames(name: str, shard: int | str) -> ShardStem:
    return ShardStem(dataset(name), "frames", f"shard-{shard}")


def features(name: str, cache: str, shard: int | str) -> ShardStem:
    return ShardStem(dataset(name), "features", cache, f"shard-{shard}")


def parts(stem: Path) -> list[Path]:
    """The array and the journal of an unfinished shard."""
    return [stem.with_name(f".{name}.part") for name in (ShardStem(stem).array.name, f"{stem.name}.rows")]


def index(name: str, model: str) -> ShardStem:
    """A search index: a shard of video embeddings of one model."""
    return ShardStem(dataset(name), "index", model[:16])


def indexes(name: str) -> list[ShardStem]:
    """The search indexes of a dataset; "*": of all."""
    records = Path().glob(str(index(name, "*").record))
    return sorted(ShardStem(file.with_suffix("")) for file in records if file.name.count(".") == 1)


def durations(name: str) -> Path:
    """The picture that `rap dataset stats` draws."""
    return dataset(name) / "stats" / "durations.png"


def lock(name: str) -> Path:
    return DATA / "locks" / name


def run(variant: str, seed: int | str) -> RunFolder:
    return RunFolder(RESULTS, "runs", variant, f"seed-{seed}")


def runs() -> list[RunFolder]:
    """The folders of all finished trainings."""
    return sorted(RunFolder(file.parent) for file in Path().glob(str(run("*", "*").record)))


def table(name: str) -> TableStem:
    return TableStem(RESULTS, name)


def sweep() -> Path:
    """The points of `rap sweep`."""
    return RESULTS / "sweep.csv"


def figure(name: str) -> Path:
    """A figure of the report."""
    return FIGURES / f"{name}.svg"


def latex(table: str) -> Path:
    return LATEX / f"{table}.tex"
