"""What a training run says of itself: progress, the clock, curves and a sheet of samples."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deblurcli.data.pictures import write_png
from deblurcli.io.files import atomic_output


@dataclass(frozen=True)
class Progress:
    """What happened lately, for whoever watches.

    Attributes:
        step: steps done in all, over all resumed runs.
        seconds: of training in all, without validation.
        share: of the whole training that is done, 0 to 1.
        loss: mean content loss since the last report.
        learning_rate: at this step.
        samples_per_second: pictures trained on, over all processes.
        waiting: share of the time that was spent waiting for data.
        scores: the latest validation, set name to PSNR in dB.
    """

    step: int
    seconds: float = 0.0
    share: float = 0.0
    loss: float = math.nan
    learning_rate: float = 0.0
    samples_per_second: float = 0.0
    waiting: float = 0.0
    scores: dict[str, float] = field(default_factory=dict)

    @property
    def seconds_left(self) -> float | None:
        """Estimated from the share done; None at the very start."""
        return self.seconds * (1 - self.share) / self.share if self.share else None


class Stopwatch:
    """Seconds per step, and how many of them went into waiting for data."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self._samples, self._waited, self._trained = 0, 0.0, 0.0

    def skip(self) -> None:
        """What passed since the last lap does not count (validation, saving)."""
        self._last = time.perf_counter()

    def data_arrived(self) -> None:
        self._waited += time.perf_counter() - self._last

    def lap(self, samples: int) -> float:
        """Ends a step; gives its seconds."""
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        self._samples += samples
        self._trained += seconds
        return seconds

    def read(self) -> tuple[float, float]:
        """Samples per second and the waiting share since the last reading."""
        seconds = max(self._trained, 1e-9)
        result = self._samples / seconds, self._waited / seconds
        self._samples, self._waited, self._trained = 0, 0.0, 0.0
        return result


def draw_curves(metrics_csv: Path, target: Path) -> None:
    """Plots loss and validation PSNR over training time from a run's ``metrics.csv``.

    Raises:
        ImportError: matplotlib is not installed (extra ``train``).
    """
    # Not through pyplot: no window system is needed and nothing global is touched.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with metrics_csv.open(newline="") as file:
        rows = list(csv.DictReader(file))
    minutes = [float(row["minutes"]) for row in rows]
    figure = Figure(figsize=(9, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.plot(minutes, [float(row["loss"]) for row in rows], marker=".")
    left.set(title="Training loss", xlabel="minutes of training", yscale="log")
    for name in [key for key in (rows[0] if rows else {}) if key.startswith("psnr_db:")]:
        # Empty where a run was interrupted: nothing was measured then.
        points = [(m, float(row[name])) for m, row in zip(minutes, rows, strict=True) if row[name]]
        right.plot(*zip(*points, strict=True), marker=".", label=name.removeprefix("psnr_db:"))
    right.set(title="Validation", xlabel="minutes of training", ylabel="PSNR (dB)")
    if right.lines:
        right.legend()
    for axes in (left, right):
        axes.grid(alpha=0.3)
    with atomic_output(target, overwrite=True) as part:
        figure.savefig(part, format="png", dpi=110)


def draw_sheet(rows: Sequence[Sequence[NDArray[np.uint8]]], target: Path) -> None:
    """A picture of rows of equally large ``(H, W, 3) uint8`` pictures."""
    sheet = np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)
    with atomic_output(target, overwrite=True) as part:
        write_png(part, sheet)
