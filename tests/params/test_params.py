"""params.yaml: what ships is valid and commented; what is wrong is refused with its path and the nearest name."""

import copy
import re

import pytest
import tiny
import yaml
from dvc.utils.hydra import apply_overrides

from rap import params
from rap.adapters import registry
from rap.errors import UserError
from rap.jobs import jobs, perform

FILE = tiny.ROOT / "params.yaml"
SHIPPED = yaml.safe_load(FILE.read_text())


def test_the_shipped_file_is_valid_and_every_section_stands_in_it():
    settings = params.load(FILE)
    registry.check(settings)
    fields = {field.alias or name: field for name, field in type(settings).model_fields.items()}
    assert set(SHIPPED) == set(fields)
    for name, field in fields.items():
        if isinstance(SHIPPED[name], dict) and name not in ("variants", "ablations", "tables"):
            assert set(SHIPPED[name]) == set(field.annotation.model_fields), name


def test_every_key_is_commented():
    bare = []
    for line in FILE.read_text().split("\nvariants:")[0].splitlines():
        group = re.match(r"^\w+:\s*$", line)
        if line.strip() and not line.startswith("#") and not group and "#" not in line:
            bare.append(line)
    assert not bare


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("trian", {}, r"trian: unknown key; did you mean 'train'\?"),
        ("train.epoch", 3, r"train.epoch: unknown key; did you mean 'epochs'\?"),
        ("train.epochs", "3", "train.epochs: input should be a valid integer; found '3'"),
        ("train.epochs", 0, "train.epochs: input should be greater than 0; found 0"),
        ("frames.count", 10**9, "frames.count: input should be less than or equal to 4096; found 1000000000"),
        ("runtime.processes", 10**9, "runtime.processes: input should be less than or equal to 1024"),
        ("variants.rap.lorm", {"rank": 10**9}, "lorm: rank: input should be less than or equal to 4096"),
        ("train.warmup", 2.0, "train.warmup: .* less than or equal to 1"),
        ("features.words", 26, "features.words: this key is now features.max_words; rename it"),
        ("frames.sampler", "unifrm", "frames.sampler: input should be 'uniform' or 'fps'; found 'unifrm'"),
        ("features.caches", ["vid-0"], r"features.caches.0: .*vid-0"),
        ("shards", [0, 2], "shards: list them as 0, 1, 2"),
        ("run", ["lorm", "sff"], r"run: no variant named 'sff'; did you mean 'ssf'\?"),
        ("run", [], "run: list at least one variant, each once"),
        ("seeds", [1, 1], "seeds: list at least one, each once"),
        ("dataset.demo.tran", 1, r"dataset.demo.tran: unknown key; did you mean 'train'\?"),
        ("tables.table1.baseline", "sff", r"tables.table1: no variant named 'sff'; did you mean 'ssf'\?"),
        ("variants.lorm.train", {"lrr": 1.0}, r"variants.lorm.train: lrr: unknown key; did you mean 'lr'\?"),
        ("variants.lorm.adapter", "lorrm", r"variants.lorm.adapter: no method 'lorrm'; did you mean 'lorm'\?"),
        ("variants.lorm.lrom", {}, r"variants.lorm.lrom: unknown key; did you mean 'lorm'\?"),
        ("variants.rap.lorm", {"rnak": 2}, r"variants.rap.lorm: rnak: unknown key; did you mean 'rank'\?"),
        ("variants.rap.lorm", {"sites": ["post"]}, "variants.rap.lorm: sites.0: input should be .*; found 'post'"),
        ("variants.rap.lorm", {"rank": 0}, "variants.rap.lorm: rank: input should be greater than 0"),
    ],
)
def test_a_mistake_is_refused_with_its_path(tmp_path, path, value, message):
    values = copy.deepcopy(SHIPPED)
    *parents, key = path.split(".")
    place = values
    for parent in parents:
        place = place[parent]
    place[key] = value
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(UserError, match=message) as error:
        registry.check(params.load(tmp_path / "params.yaml"))
    assert "\n" not in str(error.value)


def test_a_variant_that_does_not_run_leaves_the_tables_and_needs_no_other_edit():
    settings = params.parse(params.Params, SHIPPED | {"run": ["zero_shot", "lorm_head"]}, "params.yaml")
    assert settings.tables["table1"].variants == ("zero_shot", "lorm_head")
    assert settings.tables["table1"].baseline == "zero_shot"
    assert "rank_4" in settings.tables["table3"].variants and "rap" not in settings.tables["table3"].variants
    assert settings.variant("rank_4").options["lorm"]["rank"] == 4  # its base is still defined
    trained = {job.item["variant"] for job in jobs(settings, ablations=False) if job.stage == "train"}
    assert trained == {"zero_shot", "lorm_head"}


@pytest.mark.parametrize(
    ("run", "listed", "made"),
    [
        (["rap"], None, {"table1": 1}),
        (["zero_shot", "lorm", "rap"], {"a": ["zero_shot", "lorm"], "b": ["rap"], "c": ["lorm"]}, {"a": 2, "b": 1}),
        (["zero_shot", "lorm"], {"a": ["lorm"], "b": ["zero_shot", "lorm"]}, {"b": 2}),
    ],
)
def test_a_table_of_one_row_is_made_only_for_a_variant_that_no_other_table_has(run, listed, made):
    values = SHIPPED | {"run": run}
    if listed:
        rows = {name: {"title": name, "variants": names, "baseline": names[0]} for name, names in listed.items()}
        values |= {"tables": rows, "ablations": {}}
    found = params.parse(params.Params, values, "params.yaml").tables
    assert {name: len(table.variants) for name, table in found.items() if set(table.variants) <= set(run)} == made


def test_every_key_of_a_section_is_required():
    """No default stands in the code, where it could differ from the file's."""
    for name, section in SHIPPED.items():
        if isinstance(section, dict) and name not in ("variants", "ablations", "tables"):
            for key in section:
                values = SHIPPED | {name: {other: value for other, value in section.items() if other != key}}
                with pytest.raises(UserError, match=f"params.yaml: {name}.{key}: missing; add it"):
                    params.parse(params.Params, values, "params.yaml")


def test_an_unknown_dataset_is_refused_when_a_job_is_made():
    """Not by `load`: to add a dataset is to add one file."""
    settings = params.parse(params.Params, SHIPPED | {"dataset": SHIPPED["dataset"] | {"name": "msvdd"}}, "params.yaml")
    with pytest.raises(UserError, match=r"dataset\.name: there is no dataset 'msvdd'; did you mean 'msvd'"):
        perform(settings, "download")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "not found"),
        (b"a: [", "not valid YAML"),
        (b"train: 3", "dataset: missing"),
        (b"", "input should be a valid dictionary"),
        (b"seeds: [0]\nseeds: [1]\n", "not valid YAML: 'seeds' is given twice"),
        (b"train: {lr: 1, batch: 2, lr: 3}\n", "'lr' is given twice"),
        ("name: Größe".encode("latin-1"), "not UTF-8 text at byte 8"),
        (bytes(range(256)), "not UTF-8 text"),
        (b"\x00\x01", "not valid YAML"),
        (b"a: " + b"[" * 3000 + b"]" * 3000, "not valid YAML"),
        (b"a: " + b"[" * 400_000, "not valid YAML"),
        (b"seeds: [" + b"9" * 5000 + b"]", "not valid YAML"),
        (b"seeds: [" + b"9" * 4000 + b"]", "missing; add it"),
        (b"a: !!python/object/apply:os.system ['true']", "not valid YAML"),
        (b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "a: unknown key"),
        (b"#" * 2_000_000, "2,000,000 bytes"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(tmp_path, text, message):
    if text is not None:
        (tmp_path / "params.yaml").write_bytes(text)
    with pytest.raises(UserError, match=message) as error:
        params.load(tmp_path / "params.yaml")
    assert "\n" not in str(error.value)


def test_a_variant_overrides_training_and_keeps_the_rest():
    settings = params.load(FILE)
    assert settings.training("full").lr == 1e-4
    assert settings.training("full").batch == settings.train.batch
    assert settings.training("zero_shot") == settings.train


@pytest.mark.parametrize("name", ["../../evil", "/etc/evil", "a/b", ".hidden", "", "a b", "x" * 200, "a\nb"])
def test_a_name_is_no_path(name):
    table = {"title": "t", "variants": ["rap"], "baseline": "rap"}
    for changes in (
        {"variants": SHIPPED["variants"] | {name: {"adapter": "none"}}},
        {"ablations": {name: {"base": "rap"}}},
        {"tables": {name: table}},
        {"backbone": SHIPPED["backbone"] | {"name": name}},
        {"dataset": SHIPPED["dataset"] | {"name": name}},
    ):
        with pytest.raises(UserError, match=r"should match pattern|at most 100"):
            params.parse(params.Params, SHIPPED | changes, "params.yaml")


def test_an_ablation_is_its_base_with_the_differences_it_states():
    base = {"adapter": "rap", "lorm": {"rank": 4, "basis": "random"}, "train": {"lr": 0.1}}
    values = SHIPPED | {"variants": {"rap": base}, "run": ["rap"], "tables": {}}
    values["ablations"] = {"low": {"base": "rap", "label": "low", "lorm": {"rank": 1}, "train": {"epochs": 3}}}
    low = params.parse(params.Params, values, "test").all_variants["low"]
    assert (low.adapter, low.label) == ("rap", "low")
    assert low.options == {"lorm": {"rank": 1, "basis": "random"}}
    assert low.train == {"lr": 0.1, "epochs": 3}
    for wrong, said in (({"base": "rop"}, "did you mean 'rap'"), ({"lorm": {}}, "neither base nor adapter")):
        with pytest.raises(UserError, match=said):
            params.parse(params.Params, values | {"ablations": {"low": wrong}}, "test")


def test_an_experiment_of_dvc_changes_what_it_names_and_nothing_else(tmp_path):
    """`dvc exp run -S` drops an override of a key that came through a YAML merge, so the file must have none."""
    changed = tmp_path / "params.yaml"
    changed.write_text(FILE.read_text())
    apply_overrides(changed, ["variants.rap.lorm.rank=7", "ablations.rank_4.lorm.rank=3"])
    expected = yaml.safe_load(FILE.read_text())
    expected["variants"]["rap"]["lorm"]["rank"] = 7
    expected["ablations"]["rank_4"]["lorm"]["rank"] = 3
    assert yaml.safe_load(changed.read_text()) == expected
