"""The schema that editors read: up to date, fits what ships, and refuses what `rap` refuses."""

import copy
import json
import runpy

import pytest
import tiny
import yaml
from jsonschema import Draft202012Validator

from rap.presets import use as presets

SCRIPT = runpy.run_path(str(tiny.ROOT / "workflow/scripts/schema.py"))
SHIPPED = yaml.safe_load((tiny.ROOT / "params.yaml").read_text())


@pytest.fixture
def schema(monkeypatch) -> dict:
    monkeypatch.chdir(tiny.ROOT)
    text = SCRIPT["FILE"].read_text()
    assert text == SCRIPT["rendered"](), "run python workflow/scripts/schema.py"
    return json.loads(text)


def mistakes(schema: dict, values: dict) -> list[str]:
    return [".".join(map(str, error.absolute_path)) for error in Draft202012Validator(schema).iter_errors(values)]


def test_what_ships_fits_and_every_key_is_described(schema):
    assert mistakes(schema, SHIPPED) == []
    assert schema["$defs"]["Frames"]["properties"]["count"]["description"] == "frames per clip"
    first = (tiny.ROOT / "params.yaml").read_text().splitlines()[0]
    assert first.endswith(f"$schema={SCRIPT['FILE']}")


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [("frames", "count", "8"), ("frames", "counts", 8), ("train", "select", "best"), ("runtime", "threads", 0)],
)
def test_what_rap_refuses_is_marked(schema, section, key, value):
    values = copy.deepcopy(SHIPPED)
    values[section][key] = value
    assert mistakes(schema, values)


@pytest.mark.parametrize("name", sorted(file.stem for file in (tiny.ROOT / presets.FOLDER).glob("*.yaml")))
def test_every_preset_fits(schema, name):
    values = copy.deepcopy(SHIPPED)
    for section, keys in yaml.safe_load((tiny.ROOT / presets.FOLDER / f"{name}.yaml").read_text()).items():
        values[section] = values[section] | keys if isinstance(keys, dict) else keys
    assert mistakes(schema, values) == []
