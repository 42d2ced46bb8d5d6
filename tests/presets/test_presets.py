"""Presets: each gives what its dataset's protocol asks for, leaves the rest of params.yaml alone, and can be undone."""

import re
import shutil
from pathlib import Path

import pytest
import tiny
import yaml

from rap import params, paths
from rap.adapters import registry
from rap.data.datasets import names
from rap.data.registry import departures
from rap.download import init_csv
from rap.errors import UserError
from rap.presets import use as presets

WEIGHTS = Path("src/rap/demo/demo-vit.safetensors")
SHIPPED = (tiny.ROOT / "params.yaml").read_text()
STANDARD = ("zero_shot", "late", "static", "shuffled", "ssf", "lorm", "asa", "st_adapter", "rap")


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(tiny.ROOT / "params.yaml", "params.yaml")
    WEIGHTS.parent.mkdir(parents=True)
    WEIGHTS.touch()
    shutil.copytree(presets.FOLDER, "presets")
    monkeypatch.setattr(presets, "FOLDER", Path("presets").absolute())


def use(name: str) -> str:
    return presets.run(params.load(), name)


def test_a_folder_without_parameters_gets_those_of_the_project(project):
    Path("params.yaml").unlink()
    presets.begin("folder")
    assert Path("params.yaml").read_text() == SHIPPED and not Path("params.yaml").is_symlink()
    use("folder")
    changed = Path("params.yaml").read_text()
    presets.begin("folder")
    assert Path("params.yaml").read_text() == changed
    Path("params.yaml").unlink()
    with pytest.raises(UserError, match="no preset named 'fodler'; did you mean 'folder'"):
        presets.begin("fodler")
    with pytest.raises(UserError, match="demo needs src/rap/demo/demo-vit"):
        presets.begin("demo")
        WEIGHTS.unlink()
        use("demo")


def leaves(values: dict, path: str = "") -> dict:
    """Every key's path, and its value."""
    found = {}
    for key, value in values.items():
        found |= leaves(value, f"{path}{key}.") if isinstance(value, dict) else {f"{path}{key}": value}
    return found


def comments(text: str) -> list[str]:
    return re.findall(r"#.*", text)


def test_every_dataset_has_a_preset():
    assert set(presets.known()) == set(names())
    assert (presets.FOLDER / "params.yaml").read_text() == SHIPPED, "what a folder without params.yaml gets"


@pytest.mark.parametrize("name", names())
def test_a_preset_gives_the_protocol_and_touches_nothing_else(name):
    use(name)
    settings = params.load()
    registry.check(settings)
    assert settings.dataset.name == name and departures(settings) == []
    text = Path("params.yaml").read_text()
    assert comments(text) == comments(SHIPPED) and text.count("\n") == SHIPPED.count("\n")
    wanted = leaves(yaml.safe_load((presets.FOLDER / f"{name}.yaml").read_text()))
    assert leaves(yaml.safe_load(text)) == leaves(yaml.safe_load(SHIPPED)) | wanted
    changed = [line for line, old in zip(text.splitlines(), SHIPPED.splitlines(), strict=True) if line != old]
    assert {line.split(":")[0].strip() for line in changed} <= {path.rpartition(".")[2] for path in wanted}
    assert len(changed) <= len(wanted)


@pytest.mark.slow
def test_the_demo_leads_back_and_what_is_set_already_is_left_as_it_is():
    said = use("demo")
    assert Path("params.yaml").read_text() == SHIPPED and said.startswith("params.yaml: 0 keys changed")
    for name in names():
        use(name)
    use("demo")
    assert yaml.safe_load(Path("params.yaml").read_text()) == yaml.safe_load(SHIPPED)


def test_only_in_a_checkout_a_line_names_what_a_checkout_has():
    Path("mine").mkdir()
    Path("mine/a.mp4").touch()

    def said() -> list[str]:
        Path("mine.csv").unlink(missing_ok=True)
        return [use("msrvtt"), init_csv.run(params.load(), "mine")]

    assert not any(re.search("docs/|rap graph", line) for line in said())
    paths.DVC.touch()
    assert [re.findall("docs/datasets.md|rap graph", line) for line in said()] == [["docs/datasets.md"], ["rap graph"]]


def test_what_changed_is_said_and_own_settings_stay():
    Path("params.yaml").write_text(SHIPPED.replace("lr: 1.0e-2    ", "lr: 7.0e-3    ", 1))
    said = use("msrvtt")
    assert "frames.count: 8 -> 12" in said and "backbone.pretrained: null -> openai" in said
    assert params.load().train.lr == 7e-3


def test_a_preset_runs_what_is_left_of_the_variants():
    values = yaml.safe_load(SHIPPED)
    values["variants"] = {name: values["variants"][name] for name in ("lorm", "ssf")}
    values |= {"run": ["ssf"], "ablations": {}, "tables": {}}
    Path("params.yaml").write_text(yaml.safe_dump(values))
    use("msvd")
    assert params.load().run == ("ssf", "lorm")
    use("folder")
    assert params.load().run == ("ssf", "lorm")


def test_a_preset_that_is_not_there_or_does_not_fit_is_one_line_and_changes_nothing():
    with pytest.raises(UserError, match="no preset named 'msrvt'; did you mean 'msrvtt'"):
        use("msrvt")
    (presets.FOLDER / "mine.yaml").write_text("frames: {cuont: 3}\n")
    with pytest.raises(UserError, match=r"frames\.cuont: unknown key; did you mean 'count'"):
        use("mine")
    (presets.FOLDER / "mine.yaml").write_text("variants: {lorm: {lorm: {rnak: 2}}}\n")
    with pytest.raises(UserError, match=r"rnak: unknown key; did you mean 'rank'"):
        use("mine")
    assert Path("params.yaml").read_text() == SHIPPED


@pytest.mark.slow
@pytest.mark.parametrize("name", ["folder", "msrvtt"])
def test_a_preset_for_another_backbone_sets_what_belongs_to_it(name):
    presets.run(params.load(), name, "ViT-L-14")
    settings = params.load()
    assert (settings.backbone.name, settings.backbone.pretrained) == ("ViT-L-14", "openai")
    assert settings.features.caches[0] == {"folder": "video-24", "msrvtt": "video-12"}[name]
    presets.run(params.load(), name, "ViT-SO400M-14-SigLIP2")  # of 27 blocks
    settings = params.load()
    assert (settings.backbone.name, settings.backbone.pretrained) == ("ViT-SO400M-14-SigLIP2", "webli")
    assert settings.features.caches[0] == {"folder": "video-all", "msrvtt": "video-14"}[name]
    assert settings.run == {"folder": ("zero_shot",), "msrvtt": STANDARD}[name]
    assert settings.features.batch == 1  # of videos: this model costs 27 times ViT-B-32
    presets.run(params.load(), name)
    assert params.load().features.batch == 32
    presets.run(params.load(), name, "RN50")
    settings, run = params.load(), ("zero_shot", "lorm_head")
    assert (settings.backbone.name, settings.backbone.pretrained) == ("RN50", "openai")
    assert settings.features.caches == ("video-all", "text-all")
    assert settings.run == {"folder": run, "msrvtt": ("zero_shot", "late", "static", "lorm_head")}[name]
    with pytest.raises(UserError, match="no model 'ViT-B-23'; did you mean"):
        presets.run(params.load(), name, "ViT-B-23")


@pytest.mark.slow
def test_a_cache_in_sixteen_bits_keeps_the_range_of_a_model_that_was_trained_in_bfloat16():
    for backbone, dtype in (("ViT-L-14", "float16"), ("PE-Core-B-16", "bfloat16"), ("ViT-B-16-SigLIP2", "bfloat16")):
        presets.run(params.load(), "msrvtt", backbone)
        assert params.load().features.dtype == dtype
    presets.run(params.load(), "folder", "PE-Core-B-16")
    assert params.load().features.dtype == "float32"  # the preset's own


def test_captions_are_no_longer_than_the_backbone_reads():
    for backbone, words in (("PE-Core-B-16", 32), ("ViT-B-32", 64)):
        presets.run(params.load(), "didemo", backbone)
        assert params.load().features.max_words == words


def test_a_short_preset_takes_another_backbone_too():
    """The one of CONTRIBUTING.md has no caches and no run: those of params.yaml stay, made to fit the backbone."""
    Path(presets.FOLDER / "toy.yaml").write_text("dataset: {name: folder, annotations: list.csv, videos: null}\n")
    presets.run(params.load(), "toy", "ViT-B-16")
    assert params.load().features.caches == ("video-0", "video-2", "video-all", "text-ids", "text-all")
    presets.run(params.load(), "toy", "RN50")
    settings = params.load()
    assert settings.features.caches == ("video-all", "text-all") and "lorm_head" in settings.run
