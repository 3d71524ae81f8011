"""What a training run says of itself: progress, the clock, curves and a sheet of samples."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from deblurcli.data.pictures import write_png
from deblurcli.io.files import atomic_output


@dataclass(frozen=True)
class TrainingStatus:
    """What happened lately, for whoever watches; losses are means since the last report."""

    step: int  # steps done in all, over all resumed runs
    seconds: float = 0.0  # of training in all, without validation
    progress: float = 0.0  # the part of the whole training that is done, 0 to 1
    loss: float = math.nan  # of the content
    gradient_norm: float = math.nan  # before clipping
    adversarial_loss: float = 0.0  # these two are 0 without a discriminator
    discriminator_loss: float = 0.0
    learning_rate: float = 0.0  # at this step
    samples_per_second: float = 0.0  # pictures trained on, over all processes
    waiting: float = 0.0  # share of the time that was spent waiting for data
    scores: dict[str, float] = field(default_factory=dict)  # the latest PSNR in dB of each set

    @property
    def seconds_left(self) -> float | None:
        """Estimated from the part done; None at the very start, and where there is no end."""
        return self.seconds * (1 - self.progress) / self.progress if self.progress else None

    def row(self) -> dict[str, float]:
        """All figures by name, for a table."""
        row = {"step": self.step, "minutes": round(self.seconds / 60, 2)}
        names = ["loss", "gradient_norm"]
        if self.discriminator_loss:
            names += ["adversarial_loss", "discriminator_loss"]
        row |= {name: getattr(self, name) for name in (*names, "learning_rate")}
        row["samples_per_second"] = round(self.samples_per_second, 2)
        row["waiting"] = round(self.waiting, 4)
        return row | {f"psnr_db:{name}": round(db, 4) for name, db in self.scores.items()}


def draw_curves(
    rows: Sequence[Mapping[str, float]], target: Path, blurred: Mapping[str, float]
) -> None:
    """Plots loss and validation PSNR over training time, from what `TrainingStatus.row` gave, as a
    PNG; the PSNR in dB of each set's blurred pictures is a dashed line. Raises ImportError where
    matplotlib is not installed (extra ``train``)."""
    # Not through pyplot: no window system is needed and nothing global is touched.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.plot([row["minutes"] for row in rows], [row["loss"] for row in rows], marker=".")
    left.set(title="Training loss", xlabel="minutes of training", yscale="log")
    for key in {key: None for row in rows for key in row if key.startswith("psnr_db:")}:
        name = key.removeprefix("psnr_db:")
        points = [(row["minutes"], row[key]) for row in rows if key in row]
        (line,) = right.plot(*zip(*points, strict=True), marker=".", label=name)
        if name in blurred:
            label = f"{name}, blurred"
            right.axhline(blurred[name], color=line.get_color(), linestyle="--", label=label)
    right.set(title="Validation", xlabel="minutes of training", ylabel="PSNR (dB)")
    if right.lines:
        right.legend()
    for axes in (left, right):
        axes.grid(alpha=0.3)
    with atomic_output(target, overwrite=True) as part:
        figure.savefig(part, format="png", dpi=110)


def draw_sheet(rows: NDArray[np.uint8], target: Path) -> None:
    """A picture of (rows, H, 3 * W, 3): blurred, restored and sharp, with these words above."""
    sheet = np.concatenate(list(rows))
    head = Image.new("RGB", (sheet.shape[1], 24), "white")
    for column, label in enumerate(("blurred", "restored", "sharp")):
        left = column * sheet.shape[1] // 3
        ImageDraw.Draw(head).text((left + 6, 4), label, "black", ImageFont.load_default(14))
    with atomic_output(target, overwrite=True) as part:
        write_png(part, np.concatenate([np.asarray(head), sheet]))
