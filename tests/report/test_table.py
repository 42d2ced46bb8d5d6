"""Tables from runs that are written by hand: what they say, and what they refuse."""

from pathlib import Path

import do
import numpy as np
import pandas as pd
import pytest
import yaml

from rap import params, paths
from rap.errors import UserError
from rap.files import digest_file, read_json, write_json, write_text
from rap.jobs import Job
from rap.report import literature as reported
from rap.report import table as tables
from rap.training.run import Run, read_run

ROOT = Path(__file__).parents[2]
VARIANTS = {"zero_shot": (0, 10.0), "ssf": (3600, 20.0), "lorm": (10200, 30.0)}


def write_run(project: params.Params, variant: str, seed: int) -> None:
    """A finished run whose R@1 is the variant's level, plus 2 x seed if it has anything to train."""
    parameters, level = VARIANTS[variant]
    recall = level + 2 * seed * (parameters > 0)
    figures = {"R@1": recall, "R@5": 50.0, "R@10": 60.0, "MdR": 40 - recall, "MnR": 9.0}
    folder = paths.run(variant, seed)
    facts = Run(
        variant=variant,
        seed=seed,
        dataset=project.dataset.name,
        adapter=project.variants[variant].adapter,
        options={},
        frames={},
        train={},
        caches={},
        backbone="demo-vit",
        weights="b",
        parameters=parameters,
        selected="last",
        selected_epoch=0,
        epochs=1,
        steps=parameters,
        videos=9,
        pairs=9,
    )
    for name in ("adapter.safetensors", "history.csv"):
        write_text(folder / name, "")
    seal_training(project, facts)
    write_json(
        folder / "costs.json",
        {
            "train_seconds": 3.0 + seed,
            "peak_memory_bytes": 10 + seed,
            "cache_bytes": 7,
            "flops_per_clip": 5,
            "index_bytes_per_video": 4,
            "device": "cpu",
        },
    )
    hits = np.arange(18) < 18 * level / 100
    captions = pd.DataFrame({"direction": "t2v", "id": range(18), "cluster": [f"s{i // 2}" for i in range(18)]})
    captions = captions.assign(post="", twin=np.where(hits, 1.0, 0.5), above=np.where(hits, 0, 3), ties=0)
    pd.concat([captions, captions.assign(direction="v2t", twin=np.nan)]).to_parquet(folder / "ranks.parquet")
    write_json(
        folder / "metrics.json",
        {
            **{"videos": 9, "videos_total": 10, "queries": 18, "t2v": figures, "v2t": figures},
            **{
                "twin": {"all": 50.0 + seed, "move": 40.0 + level},
                "twin_pairs": {"all": 18, "move": 9},
                "by_kind": {"move": figures},
                "post": {},
            },
        },
    )
    (folder / "similarity.npy").touch()
    seal_evaluation(project, variant, seed)


def seal_training(project: params.Params, facts: Run) -> None:
    job = Job(project, "train", {"variant": facts.variant, "seed": facts.seed})
    job.result("t", {}, **facts.model_dump()).write(job.record)


def seal_evaluation(project: params.Params, variant: str, seed: int) -> None:
    folder, job = paths.run(variant, seed), Job(project, "evaluate", {"variant": variant, "seed": seed})
    job.reads(folder / "run.json")
    files = {name: digest_file(folder / name) for name in ("metrics.json", "ranks.parquet")}
    job.result(f"{files}", files, split="test", test_set="t").write(job.record)


@pytest.fixture
def project(tmp_path, monkeypatch) -> params.Params:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tables.tracking, "log", lambda *_: None)  # these runs are too bare; test_tracking has real ones
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["seeds"] = [0, 1, 2]
    values["variants"] = {name: values["variants"][name] for name in VARIANTS}
    values["ablations"] = {}
    values["tables"] = {"table1": {"title": "Title", "variants": ["lorm", "zero_shot", "ssf"], "baseline": "ssf"}}
    Path("params.yaml").write_text(yaml.safe_dump(values))
    loaded = params.load()
    for variant in VARIANTS:
        for seed in loaded.seeds:
            write_run(loaded, variant, seed)
    return loaded


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
    write_json(costs, read_json(costs) | {"train_seconds": 400.0, "peak_memory_bytes": 99, "device": "GPU"})
    assert "up to date" in do.table(project, "table1")
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
    for file in Path("results/runs").glob("*/*/metrics.json"):
        write_json(file, {name: value for name, value in read_json(file).items() if not name.startswith("twin")})
        ranks = pd.read_parquet(file.with_name("ranks.parquet"))
        ranks.assign(twin=np.nan).to_parquet(file.with_name("ranks.parquet"))
        seal_evaluation(project, file.parts[2], int(file.parts[3].removeprefix("seed-")))
    do.table(project, "table1")
    assert "twin" not in Path("results/table1.csv").read_text()
    assert "Twin accuracy\n" not in Path("results/table1.md").read_text()
    assert Path("results/table1.png").stat().st_size > 10_000


@pytest.mark.parametrize("name, stage", [("run", "train"), ("evaluation", "evaluate"), ("metrics", "evaluate")])
@pytest.mark.parametrize("damage", ["missing", "cut short"])
def test_a_missing_or_damaged_run_is_named_with_the_command_that_makes_it(project, name, stage, damage):
    path = paths.run("ssf", 2) / f"{name}.json"
    path.unlink() if damage == "missing" else path.write_text('{"variant"')
    with pytest.raises(
        UserError, match=rf"ssf/seed-2/.*(missing|damaged|not there).*`rap {stage} --variant ssf --seed 2`"
    ):
        do.table(project, "table1")


def test_missing_costs_leave_their_columns_empty(project):
    """No engine keeps times and memory, so a checkout lacks them."""
    for file in Path("results/runs").glob("ssf/*/costs.json"):
        file.unlink()
    do.table(project, "table1")
    costs = pd.read_csv("results/costs1.csv").set_index("variant")
    assert np.isnan(costs.loc["ssf", "train_seconds"]) and costs.loc["lorm", "train_seconds"] == 4.0


def test_a_run_of_other_parameters_is_refused(project):
    values = yaml.safe_load(Path("params.yaml").read_text())
    values["variants"]["lorm"]["lorm"]["rank"] = 2
    Path("params.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(UserError, match=r"lorm/seed-0/run\.json: made with other parameters"):
        do.table(params.load(), "table1")


def test_metrics_of_an_earlier_training_are_refused(project):
    Job(project, "train", {"variant": "lorm", "seed": 1}).result("another", {}).write(
        "results/runs/lorm/seed-1/run.json"
    )
    with pytest.raises(UserError, match=r"lorm/seed-1/evaluation\.json: made from another .*run\.json"):
        Job(project, "table", {"table": "table1"}).reads("results/runs/lorm/seed-1/evaluation.json")


def test_different_test_sets_do_not_share_a_table(project):
    path = paths.run("ssf", 0) / "metrics.json"
    write_json(path, read_json(path) | {"videos": 8})
    seal_evaluation(project, "ssf", 0)
    with pytest.raises(UserError, match="lorm and ssf differ in videos: 9 and 8"):
        do.table(project, "table1")


def test_protocols_that_differ_are_told_apart_by_method(project):
    for seed in project.seeds:
        seal_training(project, read_run(paths.run("ssf", seed))[0].model_copy(update={"selected": "test"}))
        seal_evaluation(project, "ssf", seed)
    do.table(project, "table1")
    assert (
        "last epoch (LoRM only); best epoch on test (optimistic: the peers' habit) (SSF)"
        in Path("results/table1.md").read_text()
    )


def test_an_unknown_table_gets_the_nearest_name(project):
    with pytest.raises(UserError, match="tables: there is no 'tabel1'; did you mean 'table1'"):
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


def test_reported_figures_stand_beside_ours_on_their_own_data_set_alone(project):
    do.table(project, "table1")
    assert "Reported" not in Path("results/table1.md").read_text()
    papers = reported.read()
    rows = pd.DataFrame([{"adapter": "rap", "label": "Ours", "dataset": "msrvtt", "backbone": "ViT-B-32"}])
    figures = [f"{direction}_{name}_mean" for direction in ("t2v", "v2t") for name in reported.MEASURES]
    found = reported.beside(rows.assign(**dict.fromkeys(figures, 45.0)))
    assert len(found) == (papers.dataset == "msrvtt").sum() and papers.source.notna().all()
    assert found["Ours R@1 (difference)"].tolist() == ["45.0 (+0.2)", "45.0 (+1.0)", "", ""]
