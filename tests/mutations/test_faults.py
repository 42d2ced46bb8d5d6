"""The list of faults fits the sources; `python tests/mutations` runs them."""

import pytest
from faults import FAULTS, ROOT, mutated


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_still_applies_and_names_tests_that_are_there(fault):
    compile(mutated(fault), fault.file, "exec")
    assert all((ROOT / test).exists() for test in fault.tests)
