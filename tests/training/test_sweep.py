"""The sweep: equal budgets, chosen on validation data, kept in one file."""

import re

import pandas as pd
import pytest
import tiny

from rap import paths, verify
from rap.errors import UserError
from rap.params import load
from rap.training import sweep
from rap.training.points import chosen, differences, read

pytestmark = pytest.mark.slow

GRID = {"lr": [0.001, 0.01], "options": {"window": {"last": [1, 2]}}, "seeds": [0, 1]}
NAMES = ["late", "static", "lorm"]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project without a test split: a sweep that reads test clips fails."""
    monkeypatch.chdir(tmp_path)
    settings = tiny.project(tmp_path, others="val", sweep=GRID)
    tiny.cache(settings)
    return settings


def test_every_method_gets_the_same_budget_and_no_test_clip_is_read(project):
    said = sweep.run(project.model_copy(update={"run": tuple(NAMES)}), [])
    points = sweep.read()
    assert points.groupby("variant").size().to_dict() == {"late": 4, "static": 4, "lorm": 4}
    assert set(points[points.variant == "lorm"].value) == {0.001, 0.01} and set(points.key) == {
        "train.lr",
        "window.last",
    }
    assert points[points.variant != "late"].steps.nunique() == 1 and set(points.seed) == {0, 1}
    assert points["R@1"].between(0, 100).all() and points.twin.between(0, 100).all()
    assert said.count("\n") == 3 and "late: window.last: " in said


def test_a_second_sweep_trains_nothing_and_a_changed_parameter_trains_its_variant_again(project, monkeypatch):
    sweep.run(project, NAMES)
    before = paths.sweep().read_bytes()
    measured = []
    measure = sweep.Point.measure
    monkeypatch.setattr(sweep.Point, "measure", lambda self: measured.append(self.name) or measure(self))
    sweep.run(project, NAMES)
    assert not measured and paths.sweep().read_bytes() == before
    changed = sweep.changed(project, "lorm", "lorm.rank", 3)
    sweep.run(changed, NAMES)
    assert measured == ["lorm"] * 4
    sweep.run(project, ["lorm"])
    assert paths.sweep().read_bytes() == before


def test_the_choice_is_the_best_mean_of_both_figures_over_seeds():
    rows = [("a", 0.1, 0, 50.0, 60.0), ("a", 0.1, 1, 50.0, 60.0), ("a", 0.2, 0, 90.0, 70.0), ("a", 0.2, 1, 10.0, 40.0)]
    points = pd.DataFrame(rows, columns=["variant", "value", "seed", "R@1", "twin"]).assign(key="train.lr")
    assert chosen(points) == {"a": ("train.lr", 0.1)}


def test_an_unknown_variant_is_one_line(project):
    with pytest.raises(UserError, match="sweep: no variant named 'lrom'; did you mean 'lorm'"):
        sweep.run(project, ["lrom"])


def test_other_rates_are_tried_for_one_method_and_cost_the_same(project):
    sweep.run(project, ["lorm"])
    sweep.run(project, ["static"])
    said = sweep.run(project, ["static"], [0.3, 0.1])
    assert re.search(r"static: train\.lr: 0\.[13]\n", said)
    points = sweep.read()
    assert set(points[points.variant == "static"].value) == {0.1, 0.3}
    assert points.groupby("variant").size().to_dict() == {"lorm": 4, "static": 4}
    with pytest.raises(UserError, match=r"--lr names 1 rates; every method gets 2, above 0, as in sweep\.lr"):
        sweep.run(project, ["static"], [0.3, 0.3])


def test_a_damaged_point_is_refused_and_measured_again_without_its_line(project):
    sweep.run(project, ["static"])
    before = paths.sweep().read_bytes()
    lines = before.decode().splitlines(keepends=True)
    paths.sweep().write_text("".join([*lines[:2], lines[2].replace(",0.001,", ",0.002,"), *lines[3:]]))
    for opened in (lambda: sweep.run(project, ["static"]), lambda: verify.run(project)):
        with pytest.raises(UserError, match=r"results/sweep\.csv, line 3: damaged; remove the line, and `rap sweep`"):
            opened()
    paths.sweep().write_text("".join([lines[0].replace("R@1,twin", "twin,R@1"), *lines[1:]]))
    with pytest.raises(UserError, match=r"results/sweep\.csv: the first line is not variant,key,"):
        verify.run(project)
    paths.sweep().write_text("".join([*lines[:2], *lines[3:]]))
    sweep.run(project, ["static"])
    assert paths.sweep().read_bytes() == before


def test_params_yaml_states_what_the_sweep_chose(monkeypatch):
    monkeypatch.chdir(tiny.ROOT)
    points = read()
    params = load(tiny.ROOT / "params.yaml")
    compared = {*params.run, *params.tables["table6"].variants, *params.tables["table8"].variants}
    trained = {name for name in compared if params.variant(name).adapter != "none"}
    assert set(points.variant) >= trained and differences(params, points) == []
    assert points[points.key == "train.lr"].groupby("variant")[
        ["value", "steps"]
    ].nunique().drop_duplicates().shape == (1, 2)
