"""Reading ahead and writing behind in threads, with bounded queues.

Decoding, computing and encoding overlap, while no more than a few frames are ever held: a fast
reader waits for the network, and the network waits for a slow disk.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")

_POLL_SECONDS = 0.1
_END = object()


def read_ahead(items: Iterable[T], depth: int) -> Generator[T, None, None]:
    """Yields `items`, which a thread produces up to `depth` items ahead.

    An exception of `items` is raised here, after the items before it. Closing the generator
    stops the thread and waits for it.
    """
    ready: queue.Queue[object] = queue.Queue(depth)
    stopped = threading.Event()
    failures: list[BaseException] = []

    def put(item: object) -> bool:
        while not stopped.is_set():
            with suppress(queue.Full):
                ready.put(item, timeout=_POLL_SECONDS)
                return True
        return False

    def produce() -> None:
        try:
            for item in items:
                if not put(item):
                    break
        except BaseException as error:
            failures.append(error)
        finally:
            put(_END)

    thread = threading.Thread(target=produce, name="deblur-decode", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not _END:
            yield item  # type: ignore[misc]  # only items and _END are ever put
        if failures:
            raise failures[0]
    finally:
        stopped.set()
        thread.join()


class WriteBehind(Generic[T]):
    """Hands items to `write` in a thread, in order, at most `depth` of them waiting.

    As a context manager it waits at the end until all is written. When the body raises, what
    waits is thrown away. The first exception of `write` is raised by `put` or at the end.
    """

    def __init__(self, write: Callable[[T], None], depth: int) -> None:
        self._write = write
        self._waiting: queue.Queue[object] = queue.Queue(depth)
        self._failure: BaseException | None = None
        self._dropping = threading.Event()
        self._thread = threading.Thread(target=self._consume, name="deblur-encode", daemon=True)

    def put(self, item: T) -> None:
        self._raise_failure()
        self._waiting.put(item)

    def __enter__(self) -> WriteBehind[T]:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self._dropping.set()
        self._waiting.put(_END)
        self._thread.join()
        if error is None:
            self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _consume(self) -> None:
        while (item := self._waiting.get()) is not _END:
            if self._dropping.is_set():
                continue  # so that `put` never waits for a thread that has given up
            try:
                self._write(item)  # type: ignore[arg-type]
            except BaseException as error:
                self._failure = error
                self._dropping.set()
