"""Getting weights for a command, with a progress bar where they have to be downloaded."""

from __future__ import annotations

import sys
from pathlib import Path

from deblurcli.cli import console
from deblurcli.weights import hub
from deblurcli.weights.download import ProgressBar, ShowProgress


def find_weights(name: str, *, offline: bool = False, quiet: bool = False) -> Path:
    """The intact file for `name`; a download shows a bar on a terminal, else a line.

    Raises:
        WeightsError: see `deblurcli.weights.hub.find`.
    """
    return hub.find(name, offline=offline, show_progress=download_bar(quiet=quiet))


def download_bar(*, quiet: bool) -> ShowProgress:
    """What shows a download: a bar on a terminal, else a line."""

    def show_progress(size_bytes: int) -> ProgressBar:
        from tqdm import tqdm

        on_terminal = sys.stderr.isatty()
        if not (quiet or on_terminal):
            console.say(f"downloading weights, {size_bytes / 1e6:.1f} MB")
        return tqdm(
            total=size_bytes,
            unit="B",
            unit_scale=True,
            desc="weights",
            file=sys.stderr,
            dynamic_ncols=True,
            leave=False,
            disable=quiet or not on_terminal,
        )

    return show_progress
