"""Work ahead: what is needed next is made in a thread while the present is used."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
END = object()


def prefetch(items: Iterable[T], depth: int = 2) -> Iterator[T]:
    """The same items in their order, up to `depth` of them made before they are asked for.

    An error in making one is raised in its turn. Who stops early waits for what is being made, and for no more.
    """
    source = iter(items)
    with ThreadPoolExecutor(1, "ahead") as maker:
        made = deque(maker.submit(next, source, END) for _ in range(depth))
        try:
            while (item := made.popleft().result()) is not END:
                made.append(maker.submit(next, source, END))
                yield item
        finally:
            for future in made:
                future.cancel()
