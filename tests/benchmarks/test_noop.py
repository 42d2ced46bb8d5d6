"""A benchmark in place of the demo: after `rap dataset use`, both engines know its files and its places."""

import pytest
from clones import clone, run
from workflow_graphs import by_dvc, by_snakemake

pytestmark = pytest.mark.engine


def test_both_engines_take_a_benchmark_from_its_annotations_to_its_tables(tmp_path):
    folder = clone(tmp_path)
    run(folder, "rap", "dataset", "use", "msvd")
    annotations = folder / "data/msvd/annotations"
    annotations.mkdir(parents=True)
    for name in ("train_list.txt", "val_list.txt", "test_list.txt", "captions_msvd.json"):
        (annotations / name).touch()
    dvc, snakemake = by_dvc(folder), by_snakemake(folder)
    assert dvc.keys() == snakemake.keys() and "rap frames --shard 3" in dvc
    for command, job in dvc.items():
        assert job.outputs == snakemake[command].outputs, command
        assert not any("demo/" in path for path in job.outputs if "backbones" not in path), command
    assert "data/msvd/manifest/captions.parquet" in dvc["rap download"].outputs
    assert "data/msvd/annotations" in dvc["rap download"].inputs
    for command in ("rap download", "rap table --table table1"):
        assert "data/msvd/annotations/captions_msvd.json" in snakemake[command].inputs
    assert "data/backbones/ViT-B-32/config.json" in dvc["rap backbone"].outputs
