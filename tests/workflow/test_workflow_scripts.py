"""The scripts of workflow/scripts find what they import; tests of their own cover what some of them write."""

import runpy

import pytest
from clones import ROOT

NAMES = {file.stem for file in (ROOT / "workflow/scripts").glob("*.py")} - {"site"}  # mkdocs is not in the lock


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_script_finds_all_that_it_imports(name):
    runpy.run_path(str(ROOT / f"workflow/scripts/{name}.py"), run_name="imported")
