"""Prefetching keeps the items and their order, never exceeds its depth, and hides no error."""

import threading
from itertools import islice

import pytest

from rap.runtime.prefetch import prefetch


def test_the_same_items_in_the_same_order_made_by_one_other_thread():
    makers = set()

    def items():
        for number in range(50):
            makers.add(threading.current_thread())
            yield number

    assert list(prefetch(items())) == list(range(50))
    assert len(makers) == 1 and threading.current_thread() not in makers


def test_no_more_items_are_computed_than_the_depth():
    made = []
    found = prefetch((made.append(number) or number for number in range(50)), depth=3)
    assert list(islice(found, 5)) == [0, 1, 2, 3, 4]
    found.close()
    assert 5 <= len(made) <= 8


def test_an_error_is_raised_at_its_items_turn():
    def items():
        yield 1
        raise ValueError("torn")

    found = prefetch(items())
    assert next(found) == 1
    with pytest.raises(ValueError, match="torn"):
        next(found)
