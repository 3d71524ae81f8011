"""Getting weights for a command, with a progress bar where they have to be downloaded."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deblurcli.cli import console
from deblurcli.weights import hub
from deblurcli.weights.download import Progress


def find_weights(name: str, *, offline: bool = False, quiet: bool = False) -> Path:
    """The intact file for `name`; a download shows a progress bar.

    Raises:
        WeightsError: see `deblurcli.weights.hub.find`.
    """
    with download_progress(quiet=quiet) as progress:
        return hub.find(name, offline=offline, progress=progress)


@contextmanager
def download_progress(*, quiet: bool) -> Iterator[Progress]:
    """What shows a download: a bar on a terminal, else a line; nothing before one begins."""
    bar: Any = None

    def show(done: int, total: int) -> None:
        nonlocal bar
        if bar is None:
            from tqdm import tqdm

            on_terminal = sys.stderr.isatty()
            if not (quiet or on_terminal):
                console.say(f"downloading weights, {total / 1e6:.1f} MB")
            bar = tqdm(
                total=total,
                unit="B",
                unit_scale=True,
                desc="weights",
                file=sys.stderr,
                dynamic_ncols=True,
                leave=False,
                disable=quiet or not on_terminal,
            )
        bar.update(done - bar.n)  # less than nothing when another source is tried

    try:
        yield show
    finally:
        if bar is not None:
            bar.close()
