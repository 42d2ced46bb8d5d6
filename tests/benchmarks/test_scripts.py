"""The benchmarks of scale, at toy size: the real stages run on noise that stands under the keys of features."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.torch import save_file

from rap.clip import backbone
from rap.features import cache as caches
from rap.features import stage as features
from rap.features.cache import Cache
from rap.files import read_json
from rap.shards import Item, build

ROOT = Path(__file__).resolve().parents[2]
TOY = {"videos": 20, "tested": 4, "captions": 2, "frames": 12, "depth": 3, "batch": 8, "epochs": 1}
HEADER = 128  # bytes in front of the numbers of a .npy file


@pytest.fixture
def scripts(monkeypatch):
    """benchmarks/ on the path, as a script there has it."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")


@pytest.fixture
def toy(scripts, tmp_path, monkeypatch):
    """The parameters of a toy project of noise with the demo's backbone, in the present folder."""
    import synthetic

    monkeypatch.chdir(tmp_path)
    values = synthetic.values("demo-vit", [3, 4], frames=2)
    Path("params.yaml").write_text(yaml.safe_dump(values))
    settings = synthetic.load(values)
    save_file(synthetic.random_clip("demo-vit").state_dict(), "weights.safetensors")
    backbone.run(settings)
    synthetic.manifest(train=12, test=4, captions=2, validation=2).write(settings.data / "manifest")
    synthetic.holes(settings)
    synthetic.noise(settings)
    return settings


def benchmark(script: str, *arguments: str) -> None:
    command = [sys.executable, ROOT / "benchmarks" / script, "--backbone", "demo-vit", *arguments]
    result = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert not result.returncode, result.stdout[-3000:]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> dict:
    """What a dry run of toy size wrote."""
    folder = tmp_path_factory.mktemp("dry")
    options = [text for name, value in TOY.items() for text in (f"--{name}", str(value))]
    benchmark("msrvtt_size.py", *options, "--results", str(folder))
    return read_json(folder / "msrvtt-depth-3.json") | {"text": (folder / "msrvtt-depth-3.md").read_text()}


@pytest.mark.slow
def test_a_dry_run_takes_its_size_through_train_evaluate_and_table(run):
    facts, stages = run["project"], run["stages"]
    assert [stage["command"].split()[0] for stage in stages] == ["train", "train", "evaluate", "evaluate", "table"]
    assert (facts["videos"], facts["pairs"], facts["steps"]) == (18, 36, 5)  # 2 of 20 set aside; 36 pairs by 8
    assert (facts["tested"], facts["queries"], facts["caches"]["video"]) == (4, 4, "video-3")
    for stage in stages:
        assert 10**8 < stage["own_bytes"] < stage["resident_bytes"] < 10**10 and stage["cpu_seconds"] > 0.5
        assert f"`rap {stage['command']}`" in run["text"]


@pytest.mark.slow
def test_units_are_those_of_the_caches_that_the_stages_read(run, clips, tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "picture.mp4").symlink_to(clips / "picture.mp4")
    benchmark("units.py", str(folder), "--repeats", "1", "--results", str(tmp_path))
    units = read_json(tmp_path / "units.json")["units"]["12 frames"]
    for cache, size in run["project"]["cache_bytes"].items():
        if cache.startswith("video"):
            rows = size - 8 * HEADER  # in 8 shards
            assert rows == (TOY["videos"] + TOY["tested"]) * units["depths"][cache.removeprefix("video-")]["bytes"]
    steps = [units["depths"][str(depth)]["kept_bytes"] for depth in (0, 2, 3, 4)]
    assert steps == sorted(steps, reverse=True) and units["decode"] > 0
    assert "| similarity.npy, a run" in (tmp_path / "units.md").read_text()


def test_the_features_stage_takes_rows_of_noise_as_its_own_and_replaces_them_where_the_weights_are_others(toy):
    for cache in toy.features.caches:
        assert " rows, 0 computed, 0 failed" in features.run(toy, cache, 0)
    array = np.load("data/msrvtt/features/video-4/shard-0.npy")
    assert array.shape == (2, 2, 1, 128) and array.dtype == np.float16 and array.std() > 0.9
    weights = Path("data/backbones/demo-vit/config.json")
    weights.write_text(weights.read_text().replace(read_json(weights)["digest"], "other"))
    assert " 2 rows, 2 computed, 0 failed" in features.run(toy, "video-4", 0)


def test_frames_of_a_dry_run_take_no_disk(toy):
    for file in Path("data/msrvtt/frames").glob("*.npy"):
        assert file.stat().st_blocks * 512 < file.stat().st_size / 2


def mapped() -> int:
    """Bytes of files that are mapped into this process and in memory."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(lines["RssFile"].split()[0])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory of a process is read from /proc")
def test_a_batch_maps_its_rows_and_no_others(toy):
    """64 rows of 1 MiB, of which two are read: a cache need not fit into memory."""
    row = np.ones((1 << 18,), np.float32)
    stem = caches.folder(toy, "video-all") / "shard-"
    for shard in toy.shards:
        keys = {f"v{shard}-{n}": "key" for n in range(8)}
        build(f"{stem}{shard}", keys, row.shape, row.dtype, lambda ids: (Item(id, row, 1) for id in ids))
    cache = Cache(toy, "video-all", backbone.load(toy.backbone_folder)[0].visual)
    before = mapped()
    cache.batch(["v3-1", "v5-6"])
    few = mapped() - before
    cache.batch(list(cache.rows))
    assert few < 8 << 20 < 60 << 20 < mapped() - before


def test_tables_stand_in_the_document_as_they_were_measured(scripts):
    import report

    docs = [file.read_text() for file in (ROOT / "docs").glob("*.md")]
    files = sorted(report.RESULTS.glob("*.md"))
    assert files
    for file in files:
        (doc,) = (doc for doc in docs if f"<!-- {file.stem}: begin -->" in doc)
        assert report.quoted(doc, file.stem, file.read_text()) == doc, f"{file.name}: run its benchmark again"


def test_a_table_replaces_what_stands_between_its_marks_and_nothing_else(scripts):
    import report

    doc = "a\n<!-- x: begin -->\nold\n<!-- x: end -->\nb <!-- y: begin -->\nc\n<!-- y: end -->\n"
    assert report.quoted(doc, "x", "new\n") == doc.replace("old", "new")
    with pytest.raises(AssertionError, match="no marks for z"):
        report.quoted(doc, "z", "new\n")
