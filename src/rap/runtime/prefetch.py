"""Prefetching: a thread computes the next items while the caller uses the present one."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, cast

T = TypeVar("T")
END = object()


def prefetch(items: Iterable[T], depth: int = 2) -> Iterator[T]:
    """Yield the same items in the same order; a thread computes up to `depth` of them in advance.

    An error in an item is raised at that item's turn. Closing the iterator early waits only for the item in progress.
    """
    source = iter(items)
    with ThreadPoolExecutor(1, "prefetch") as maker:
        made = deque(maker.submit(next, source, END) for _ in range(depth))
        try:
            while (item := made.popleft().result()) is not END:
                made.append(maker.submit(next, source, END))
                yield cast(T, item)
        finally:
            for future in made:
                future.cancel()
