"""`rap backbones`: the list is that of the installed open_clip; filters; weights that this machine has."""

from pathlib import Path

import open_clip
import pandas as pd
import pytest
import tiny

from rap import params
from rap.clip import models
from rap.report import backbones

MODELS = pd.read_csv(tiny.ROOT / "src/rap/clip/models.csv", keep_default_na=False)
SHIPPED = params.load(tiny.ROOT / "params.yaml")


def listed(*filters) -> list[str]:
    _, _, *rows = backbones.run(SHIPPED, *filters).split("\n\n")[0].splitlines()
    return [row.split()[0] for row in rows]


def test_the_list_is_that_of_the_installed_open_clip():
    """Else run workflow/scripts/backbones.py again."""
    known = [name for name in open_clip.list_models() if not name.startswith("rap-")]  # of other tests
    assert list(MODELS.name) == known
    assert [" ".join(open_clip.list_pretrained_tags_by_model(name)) for name in known] == list(MODELS.tags)
    kinds = [models.open_clip_config(name, None).get("kind") for name in known]
    assert ["whole" if kind == "whole" else "blocks" for kind in kinds] == list(MODELS.level)


def test_every_model_has_counts():
    assert all(model.parameters and model.frame and model.caption for model in MODELS.itertuples())


def test_filters():
    assert listed("webli", None, None) and all("SigLIP" in name for name in listed("webli", None, None))
    assert "ViT-B-32" in listed(None, 9.0, "blocks") and "ViT-L-14" not in listed(None, 9.0, "blocks")
    assert set(listed(None, None, "whole")) | set(listed(None, None, "blocks")) == set(MODELS.name)


def test_the_tags_shown_are_those_asked_for():
    rows = backbones.run(SHIPPED, "datacomp_xl", None, None).split("\n\n")[0].splitlines()[2:]
    assert rows and all("datacomp_xl" in tag for row in rows for tag in row.split("  ")[-1].split(", "))


def test_weights_that_are_at_hand_are_marked_first(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    archive = Path(open_clip.get_pretrained_cfg("ViT-B-32", "laion400m_e32")["url"]).name
    (tmp_path / ".cache/clip").mkdir(parents=True)
    (tmp_path / ".cache/clip" / archive).touch()
    said = next(row for row in backbones.run(SHIPPED, None, 9.0, None).splitlines() if row.startswith("ViT-B-32 "))
    assert "laion400m_e32*, " in said and said.count("*") == 1


@pytest.mark.parametrize("name", ["RN50", "ViTamin-B"])
def test_a_model_that_is_used_whole_names_near_models_with_blocks(name):
    config = models.open_clip_config(name, None)
    near = config["whole"].rpartition(" are ")[2].split(" and ")
    assert len(near) == 2 and all("whole" not in models.open_clip_config(one, None) for one in near)
