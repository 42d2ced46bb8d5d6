"""Tables from runs that are written by hand: what they say, and what they refuse."""

import re
import shutil
import subprocess
from itertools import product
from pathlib import Path

import do
import finished
import numpy as np
import pandas as pd
import pytest
import yaml

from rap import params, paths
from rap.adapters import registry
from rap.data import registry as data
from rap.errors import UserError
from rap.files import read_checked, read_json, write_checked
from rap.jobs import Job
from rap.report import literature, tracking
from rap.report.page import latex, tables
from rap.report.statistics import estimate

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
VARIANTS = {"zero_shot": (0, 10.0), "ssf": (3600, 20.0), "lorm": (10200, 30.0)}


def write_run(project: params.Params, variant: str, seed: int, twins: bool = True, **facts) -> None:
    """A finished run whose R@1 is the variant's level, plus 2 x seed if it has anything to train."""
    parameters, level = VARIANTS[variant]
    recall = level + 2 * seed * (parameters > 0)
    costs = {"train_seconds": 3.0 + seed, "peak_memory_bytes": 10 + seed}
    facts = {"parameters": parameters, "steps": parameters} | facts
    finished.train(project, variant, seed, costs=costs, **facts)
    write_evaluation(project, variant, seed, recall, level, twins)


def write_evaluation(project, variant, seed, recall=20.0, level=20.0, twins=True, hits=None, size=2, **changes) -> None:
    """Figures with an R@1 of `recall`, and ranks of 18 queries.

    `hits`, bool [18], says which are found; without it, the first `level` percent. `size` queries in a row form a
    cluster.
    """
    measures = {"R@1": recall, "R@5": 50.0, "R@10": 60.0, "MdR": 40 - recall, "MnR": 9.0}
    figures = {"videos": 9, "videos_total": 10, "queries": 18, "t2v": measures, "v2t": measures, "post": {}}
    figures |= {"by_kind": {"move": measures}}
    if twins:
        figures |= {"twin": {"all": 50.0 + seed, "move": 40.0 + level}, "twin_pairs": {"all": 18, "move": 9}}
    hits = np.arange(18) < 18 * level / 100 if hits is None else hits
    captions = pd.DataFrame({"direction": "t2v", "id": range(18), "cluster": [f"s{i // size}" for i in range(18)]})
    twin = np.where(hits, 1.0, 0.5) if twins else np.nan
    captions = captions.assign(post="", twin=twin, above=np.where(hits, 0, 3), ties=0)
    ranks = pd.concat([captions, captions.assign(direction="v2t", twin=np.nan)])
    finished.evaluate(project, variant, seed, figures | changes, ranks)


@pytest.fixture
def project(tmp_path, monkeypatch) -> params.Params:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tracking, "log", lambda *_: None)  # these runs are too bare; test_tracking has real ones
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["seeds"] = [0, 1, 2]
    values["variants"] = {name: values["variants"][name] for name in VARIANTS}
    values["ablations"] = {}
    values["run"] = list(values["variants"])
    values["tables"] = {"table1": {"title": "Title", "variants": ["lorm", "zero_shot", "ssf"], "baseline": "ssf"}}
    Path("params.yaml").write_text(yaml.safe_dump(values))
    loaded = params.load()
    for variant in VARIANTS:
        for seed in loaded.seeds:
            write_run(loaded, variant, seed)
    return loaded


def written(project: params.Params) -> tuple[pd.DataFrame, params.Table]:
    """The rows of the CSV and the layout of table 1, which the page and LaTeX are made from."""
    return pd.read_csv("results/table1.csv", keep_default_na=False, na_values=[""]), project.tables["table1"]


def test_rows_are_means_and_sample_deviations_in_the_tables_order(project):
    do.table(project, "table1")
    rows = pd.read_csv("results/table1.csv").set_index("variant")
    assert list(rows.index) == ["lorm", "zero_shot", "ssf"]
    assert rows.loc["lorm", ["t2v_R@1_mean", "t2v_R@1_std"]].tolist() == [32.0, 2.0]
    assert rows.loc["zero_shot", ["t2v_R@1_mean", "t2v_R@1_std"]].tolist() == [10.0, 0.0]
    assert rows.loc["ssf", ["twin_all_mean", "twin_all_std", "twin_move_mean"]].tolist() == [51.0, 1.0, 60.0]
    assert rows[["videos", "videos_total", "queries", "seeds"]].drop_duplicates().values.tolist() == [[9, 10, 18, 3]]
    assert rows.protocol.tolist() == ["last epoch", "no training", "last epoch"]
    assert rows.parameters.tolist() == [10200, 0, 3600]


def test_the_markdown_says_what_it_rests_on_and_bolds_the_best(project):
    do.table(project, "table1")
    text = Path("results/table1.md").read_text()
    for part in ("9 of 10 videos", "18 queries", "3 seeds", "last epoch", "expected rank", "± 0.0"):
        assert part in text
    lorm, zero, _ssf = [line for line in text.splitlines() if line.startswith("| ")][1:4]
    assert "**32.0** ± 2.0" in lorm and "**8.0** ± 2.0" in lorm  # R@1: the highest; MdR: the lowest
    assert "50.0 ± 0.0" in lorm and "**50.0**" not in text  # R@5 is the same for all: no winner
    assert "**" not in zero


@pytest.mark.parametrize(("name", "said"), [("msrvtt", True), ("activitynet", True), ("msvd", False), ("demo", False)])
def test_training_videos_that_are_val_are_named_beside_the_rows(project, name, said):
    mine = project.model_copy(update={"dataset": project.dataset.model_copy(update={"name": name})})
    for variant in VARIANTS:
        for seed in mine.seeds:
            write_run(mine, variant, seed)
    do.table(mine, "table1")
    sentence = "Not trained on: 500 training videos, held out as val (dataset.validation)."
    assert (sentence in Path("results/table1.md").read_text()) == said
    held_out = data.held_out(mine)
    assert (sentence in tables.view("table1", *written(mine), held_out)["notes"]) == said
    assert (latex.escape(sentence) in latex.table(*written(mine), held_out)) == said


def test_one_seed_has_no_deviation(project):
    do.table(project.model_copy(update={"seeds": (1,)}), "table1")
    assert pd.read_csv("results/table1.csv")["t2v_R@1_std"].isna().all()
    text = Path("results/table1.md").read_text()
    assert "±" not in text and "One seed" in text


def test_same_runs_same_bytes_and_times_stay_out_of_them(project):
    names = ["table1.csv", "table1.md", "table1.png"]
    do.table(project, "table1")
    before = [(Path("results") / name).read_bytes() for name in names]
    costs = paths.run("lorm", 1) / "costs.json"
    write_checked(costs, read_checked(costs) | {"train_seconds": 400.0, "peak_memory_bytes": 99, "device": "GPU"})
    Path("results/table1.json").unlink()
    do.table(project, "table1")
    assert before == [(Path("results") / name).read_bytes() for name in names]
    found = pd.read_csv("results/costs1.csv").set_index("variant").loc["lorm"]
    assert found[["train_seconds", "peak_memory_bytes", "cache_bytes", "device"]].tolist() == [
        136.0,
        99,
        7,
        "GPU + cpu",
    ]


def test_a_table_without_twins_is_drawn_and_says_nothing_of_them(project):
    for variant in VARIANTS:
        for seed in project.seeds:
            write_run(project, variant, seed, twins=False)
    do.table(project, "table1")
    assert "twin" not in Path("results/table1.csv").read_text()
    assert "Twin accuracy\n" not in Path("results/table1.md").read_text()
    assert Path("results/table1.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("name", "missing", "cut"),
    [
        ("run.json", "run.json: not there; run `rap train", "run.json: damaged; run `rap train"),
        ("evaluation.json", "evaluation.json: not there; run `rap evaluate", "evaluation.json: damaged; run `rap eval"),
        ("figures.json", "evaluation.json: {} is missing; run `rap evaluate", "figures.json: damaged; run `rap eval"),
        ("ranks.parquet", "evaluation.json: {} is missing; run `rap evaluate", "ranks.parquet: damaged; run `rap eval"),
    ],
)
def test_a_missing_or_partial_file_of_a_run_is_named_with_the_command_that_makes_it(project, name, missing, cut):
    file = paths.run("ssf", 2) / name
    file.write_bytes(file.read_bytes()[:100])
    for message in (cut, missing):
        with pytest.raises(UserError, match=re.escape(f"ssf/seed-2/{message.format(file)}")) as error:
            do.table(project, "table1")
        assert "--variant ssf --seed 2`" in str(error.value)
        file.unlink(missing_ok=True)


def test_costs_that_are_missing_are_unknown_and_damaged_ones_are_named(project):
    file = paths.run("ssf", 2).costs
    text = file.read_text()
    for damaged in ('{"train', text.replace('"peak_memory_bytes": 12', '"peak_memory_bytes": 13')):
        assert damaged != text
        file.write_text(damaged)
        with pytest.raises(UserError, match=r"ssf/seed-2/costs\.json: damaged; remove it"):
            do.table(project, "table1")
    file.unlink()
    do.table(project, "table1")
    assert "cpu + unknown" in Path("results/costs1.csv").read_text()


def test_a_run_of_other_parameters_is_refused(project):
    values = yaml.safe_load(Path("params.yaml").read_text())
    values["variants"]["lorm"]["lorm"]["rank"] = 3
    Path("params.yaml").write_text(yaml.safe_dump(values))
    said = "lorm/seed-0/run.json: made with other parameters; run `rap train --variant lorm --seed 0` first"
    with pytest.raises(UserError, match=re.escape(said)):
        do.table(params.load(), "table1")


def test_metrics_of_an_earlier_training_are_refused(project):
    finished.train(project, "lorm", 1, history="another")
    said = r"lorm/seed-1/evaluation\.json: made from another .*run\.json; run `rap evaluate --variant lorm --seed 1`"
    with pytest.raises(UserError, match=said):
        do.table(project, "table1")


def test_different_test_sets_do_not_share_a_table(project):
    write_evaluation(project, "ssf", 0, videos=8)
    with pytest.raises(UserError, match="lorm and ssf differ in videos: 9 and 8"):
        do.table(project, "table1")


def test_protocols_that_differ_are_told_apart_by_method(project):
    for seed in project.seeds:
        write_run(project, "ssf", seed, selected="test")
    do.table(project, "table1")
    assert (
        "last epoch (LoRM only); best epoch on test (optimistic; as in some papers) (SSF)"
        in Path("results/table1.md").read_text()
    )


def test_an_unknown_table_gets_the_nearest_name(project):
    with pytest.raises(UserError, match="tables: 'tabel1' is not in the list; did you mean 'table1'"):
        do.table(project, "tabel1")


def test_intervals_and_tests_stand_beside_the_means(project):
    do.table(project, "table1")
    rows = pd.read_csv("results/table1.csv").set_index("variant")
    low, high = rows.loc["lorm", ["t2v_R@1_low", "t2v_R@1_high"]]
    assert low < 100 * 6 / 18 < high
    assert np.isnan(rows.loc["ssf", "t2v_R@1_p"]) and 0 < rows.loc["lorm", "t2v_R@1_p"] <= 1
    text = Path("results/table1.md").read_text()
    assert "## Intervals and tests" in text and "2 comparisons" in text and f"[{low:.1f}, {high:.1f}]" in text
    assert "## R@1 by kind of caption" in text


@pytest.fixture
def drawn(project) -> dict[str, np.ndarray]:
    """Scores of random hits, by variant, float64 [seeds, 18]; both queries of a cluster often share their fate."""
    scores = {}
    for number, variant in enumerate(VARIANTS):
        rng = np.random.default_rng(number)
        both, each = rng.random((3, 9, 1)), rng.random((3, 9, 2))
        hits = (0.8 * both + 0.2 * each < 0.3 + 0.2 * number).reshape(3, 18)
        for seed in project.seeds:
            write_evaluation(project, variant, seed, hits=hits[seed])
        scores[variant] = 100.0 * hits
    return scores


def test_intervals_and_differences_are_those_of_all_seeds_and_of_whole_clusters(project, drawn):
    do.table(project, "table1")
    rows, clusters = pd.read_csv("results/table1.csv").set_index("variant"), np.arange(18) // 2
    for variant, scores in drawn.items():
        found = rows.loc[variant, [f"t2v_R@1_{part}" for part in ("low", "high", "diff", "diff_low", "diff_high")]]
        alone = np.clip(estimate(scores, clusters).interval, 0, 100)
        apart = estimate(scores, clusters, drawn["ssf"])
        expected = [apart.mean, *apart.interval] if variant != "ssf" else [np.nan] * 3
        assert found.to_numpy() == pytest.approx([*alone, *expected], abs=1e-4, nan_ok=True)


def test_p_are_corrected_for_the_number_of_variants(project, drawn):
    do.table(project, "table1")
    rows, clusters = pd.read_csv("results/table1.csv").set_index("variant"), np.arange(18) // 2
    first, second = sorted(estimate(drawn[name], clusters, drawn["ssf"]).p for name in ("zero_shot", "lorm"))
    assert first < 0.4
    found = sorted(rows.loc[["zero_shot", "lorm"], "t2v_R@1_p"])
    assert found == pytest.approx([2 * first, max(2 * first, second)], abs=1e-4)


def test_level_is_said_from_the_interval_and_not_from_a_large_p(project):
    for found, level in (((3, 9, 15), False), ((9, 9, 9), True)):  # queries found with each seed, by both variants
        for variant, seed in product(("lorm", "ssf"), project.seeds):
            write_evaluation(project, variant, seed, hits=np.arange(18) < found[seed])
        do.table(project, "table1")
        lorm = Path("results/table1.md").read_text().split("### Text to video R@1")[1].split("\n| ")[2]
        assert pd.read_csv("results/table1.csv").set_index("variant").loc["lorm", "t2v_R@1_p"] == 1
        assert " +0.0 [" in lorm and (", level" in lorm) == level


def test_latex_has_the_intervals_and_differences_of_the_markdown(project):
    do.table(project, "table1")
    tested = Path("results/table1.md").read_text().split("## Intervals and tests")[1]
    lines = [line.strip(" \\").split(" & ") for line in latex.table(*written(project)).splitlines() if " & " in line]
    assert {len(line) for line in lines} == {len(lines[0])}
    found = pd.DataFrame(lines[1:], columns=lines[0])
    figures = lambda text: [float(figure) for figure in re.findall(r"[+-]?\d+\.\d", text)]  # noqa: E731
    for head, metric in (("R@1", "Text to video R@1"), ("Twins", "Twin accuracy")):
        rows = [row.split(" | ") for row in tested.split(f"### {metric}\n")[1].split("\n| ")[2:5]]
        for number, (_, interval, difference, _) in enumerate(rows):  # the CSV is rounded, so a last digit may differ
            mine = found[rf"$\Delta$ {head}"][number].replace("$", "")
            assert figures(found[head][number])[-2:] == pytest.approx(figures(interval), abs=0.11)
            assert figures(mine) == pytest.approx(figures(difference), abs=0.11)
            assert re.sub(r"\d", "", mine) == re.sub(r"\d", "", difference.strip())  # signs, "level", "baseline"


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs pdflatex, of TeX Live")
def test_latex_compiles_with_hostile_labels(project, tmp_path):
    do.table(project, "table1")
    rows, layout = written(project)
    rows.loc[0, "label"] = r"a_b 5% {x} & #1 $ ~ ^ \y"
    begin = r"\documentclass{article}\usepackage{booktabs}\begin{document}"
    (tmp_path / "page.tex").write_text(begin + latex.table(rows, layout, 7) + r"\end{document}")
    said = subprocess.run(["pdflatex", "-halt-on-error", "page.tex"], cwd=tmp_path, capture_output=True, text=True)
    assert said.returncode == 0, said.stdout[-2000:]
    assert (tmp_path / "page.pdf").exists()


def test_one_seed_is_never_level(project):
    for variant in ("lorm", "ssf"):
        write_evaluation(project, variant, 1, hits=np.arange(18) < 9)
    do.table(project.model_copy(update={"seeds": (1,)}), "table1")
    text = Path("results/table1.md").read_text()
    assert "+0.0 [+0.0, +0.0] |" in text and "with one seed, their spread is unknown" in text


def test_a_p_at_the_resolution_of_the_test_is_an_upper_bound(project):
    for variant, seed in product(("lorm", "ssf"), project.seeds):
        write_evaluation(project, variant, seed, hits=np.full(18, variant == "lorm"))
    do.table(project, "table1")
    lorm, zero, _ = Path("results/table1.md").read_text().split("### Text to video R@1")[1].split("\n| ")[2:5]
    assert lorm.endswith("<= 0.0002 |") and "<=" not in zero
    lorm, zero, _ = (row[-1].small for row in tables.view("table1", *written(project))["rows"])
    assert lorm.endswith("p <= 0.0002") and "<=" not in zero


def test_one_cluster_of_queries_has_no_interval(project):
    for variant, seed in product(VARIANTS, project.seeds):
        write_evaluation(project, variant, seed, size=18)
    do.table(project, "table1")
    assert "_low" not in Path("results/table1.csv").read_text()
    assert "Intervals" not in Path("results/table1.md").read_text()


def test_the_foot_names_the_digests_of_code_runs_data_and_weights(project):
    do.table(project, "table1")
    record = read_json("results/table1.json")
    foot = Path("results/table1.md").read_text().splitlines()[-1]
    named = dict(re.findall(r"(code|runs|test set|weights) `(\w+)`", foot))
    assert named == {name: digest[:12] for name, digest in record["facts"].items()} and len(named) == 4
    assert named["code"] == Job(project, "table", {"table": "table1"}).code[:12] and named["weights"] == "w" * 12
    for seed in project.seeds:
        write_run(project, "lorm", seed, steps=7)
    do.table(project, "table1")
    changed = read_json("results/table1.json")["facts"]
    assert [name for name in changed if changed[name] != record["facts"][name]] == ["runs"]


def test_reported_figures_stand_beside_ours_on_their_own_data_set_alone(project):
    do.table(project, "table1")
    assert "Reported" not in Path("results/table1.md").read_text()
    papers = literature.read()
    rows = pd.DataFrame([{"adapter": "rap", "label": "Ours", "dataset": "msrvtt", "backbone": "ViT-B-32"}])
    figures = [f"{direction}_{name}_mean" for direction in ("t2v", "v2t") for name in literature.MEASURES]
    found = literature.compared(rows.assign(**dict.fromkeys(figures, 45.0)))
    assert len(found) == (papers.dataset == "msrvtt").sum() and papers.source.notna().all()
    ours, is_rap = found["Ours R@1 (difference)"], found.Method == "RAP"
    assert ours[is_rap].tolist() == ["45.0 (+0.2)", "45.0 (+1.0)"] and (ours[~is_rap] == "").all()


def test_every_reported_figure_names_its_paper_and_its_adapter_is_one_of_ours():
    papers = literature.read()
    assert papers.source.str.contains(r"\(\w+ et al\b.* 20\d\d\), (?:table \d|as )").all()
    assert set(papers.adapter.dropna()) <= set(registry.names())
    assert not papers.duplicated(["dataset", "method", "direction"]).any()
