"""Whatever stands in params.yaml: it is accepted, or refused in one line that names the place."""

import copy
from pathlib import Path

import pytest
import tiny
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from rap import params
from rap.adapters import registry
from rap.errors import UserError
from rap.jobs import jobs
from rap.params import Params
from rap.params.reading import read

SHIPPED = yaml.safe_load((tiny.ROOT / "params.yaml").read_text())


def places(values, path=()):
    """The path of every key and entry."""
    items = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
near = st.sampled_from(
    [0, -1, 1, 10**30, 1e-300, "", "rap", "all", "../..", [], {}, [0], ["rap"], {"rank": 1}, float("nan")]
)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(path=st.sampled_from(list(places(SHIPPED))), value=anything | near, removed=st.booleans())
def test_any_value_at_any_place_is_accepted_or_refused_in_one_line(path, value, removed):
    values = copy.deepcopy(SHIPPED)
    group = values
    for key in path[:-1]:
        group = group[key]
    if removed:
        del group[path[-1]]
    else:
        group[path[-1]] = value
    try:
        settings = params.parse(Params, values, "params.yaml")
        registry.check(settings)
        for job in jobs(settings):
            assert job.settings and job.outputs
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 2000


@settings(max_examples=300, deadline=None)
@given(content=st.binary(max_size=300) | st.text(alphabet="ab:-[]{}&*!|>#'\"\n \t,?%@0", max_size=100).map(str.encode))
def test_any_bytes_are_values_or_one_line(tmp_path_factory, content):
    file = Path(tmp_path_factory.getbasetemp(), "params.yaml")
    file.write_bytes(content)
    try:
        read(file)
    except UserError as error:
        assert str(error).startswith(str(file)) and "\n" not in str(error)
