"""Ctrl-C and SIGTERM in the middle of a training."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Lets the step in work finish, so that what is saved is whole."""

    asked = False  # Ctrl-C was pressed, or SIGTERM came (Slurm, ``docker stop``)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Takes both as a request; a second one raises KeyboardInterrupt at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(number: int, frame: FrameType | None) -> None:
            del number, frame
            if self.asked:
                raise KeyboardInterrupt
            self.asked = True

        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
