"""Reading ahead and writing behind in threads, a bounded number of items.

Decoding, computing and encoding overlap, while no more than a few frames are ever held.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar, cast

T = TypeVar("T")


def read_ahead(items: Iterable[T], depth: int) -> Generator[T, None, None]:
    """Yields `items`, which a thread produces up to `depth` ahead; closing ends the thread. An
    exception of `items` is raised here, after the items before it."""
    source, end = iter(items), object()
    thread = ThreadPoolExecutor(1, "deblur-decode")
    ahead: deque[Future[T | object]] = deque()
    try:
        while True:
            while len(ahead) <= depth:
                ahead.append(thread.submit(next, source, end))
            item = ahead.popleft().result()
            if item is end:
                return
            yield cast(T, item)
    finally:
        thread.shutdown(cancel_futures=True)


@contextmanager
def write_behind(write: Callable[[T], None], depth: int) -> Iterator[Callable[[T], None]]:
    """Gives a function that hands items to `write` in a thread, in order. It waits while `depth` of
    them are waiting, and raises what `write` raised. On leaving, all is written; what waits is
    thrown away if the body raised."""
    thread = ThreadPoolExecutor(1, "deblur-encode")
    waiting: deque[Future[None]] = deque()

    def put(item: T) -> None:
        while waiting and (len(waiting) > depth or waiting[0].done()):
            waiting.popleft().result()
        waiting.append(thread.submit(write, item))

    try:
        yield put
        while waiting:
            waiting.popleft().result()
    finally:
        thread.shutdown(cancel_futures=True)
