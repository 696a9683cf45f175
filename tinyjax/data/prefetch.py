"""A threaded `map` that works a limited number of items ahead."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

MAX_AHEAD = 16  # number of items processed before they are requested

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int = 2
) -> Iterator[Result]:
    """`map(function, items)` in threads, at most `MAX_AHEAD` items ahead of the caller.

    An exception for one item is raised when the caller reaches it, not after all other items.
    """
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:  # Pillow releases the GIL
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > MAX_AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
