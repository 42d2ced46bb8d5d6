"""The bare project of the benchmark of engines is one that DVC finds up to date."""

import pytest
from workbench import workplace  # noqa: F401

pytestmark = pytest.mark.engine


def test_the_bare_project_has_as_many_stages_and_nothing_to_do(tmp_path):
    import noop

    folder = noop.bare(tmp_path / "bare", 3)
    noop.idle(folder, "dvc", "repro")
    assert noop.run(folder, "dvc", "stage", "list", "--name-only").split() == ["s0", "s1", "s2"]
    assert len((folder / "params.yaml").read_text().splitlines()) == 10
