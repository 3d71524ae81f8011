"""Makes the pictures of the README from pictures that scikit-image ships.

    python docs/pictures/make.py [FOLDER]

``blurred.jpg`` is what the README's first command restores; ``before-after.jpg`` shows it and
another beside what the default weights make of them; ``clock.jpg`` shows a photo that a camera
really blurred; ``training.png`` draws the tables of docs/training.md.

A shaken camera is simulated by the code that also makes training pairs: the camera moves along
a slightly curved path of 10 px and turns by half a degree; light is averaged, not encoded
values; then comes a little noise and a JPEG of quality 93. The same seed gives the same picture.
"""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from deblurcli import Deblurrer
from deblurcli.data.synthesis import Exposure, render

PATH_PX = 10.0
ANGLE_DEGREES = -24.0
CURVATURE = 0.14
ROTATION_DEGREES = 0.5
NOISE = 0.004
SEED = 7


def shake(steps: int = 49) -> Exposure:
    """A hand's shake during one exposure: an arc, at the origin in its middle."""
    time = (np.arange(steps) + 0.5) / steps - 0.5
    along, across = PATH_PX * (time + 0.2 * time**2), PATH_PX * 4 * CURVATURE * time**2
    turn = math.radians(ANGLE_DEGREES)
    poses = np.zeros((steps, 4))
    poses[:, 0] = math.cos(turn) * along - math.sin(turn) * across
    poses[:, 1] = math.sin(turn) * along + math.cos(turn) * across
    poses[:, 2] = math.radians(ROTATION_DEGREES) * time
    return Exposure(camera=poses.astype(np.float32), gamma=2.2, highlight_gain=1.5)


def take(picture: NDArray[np.uint8]) -> Image.Image:
    """What a camera that shakes makes of a picture, 16 px smaller each way."""
    side_px = min(picture.shape[:2])
    sharp = torch.from_numpy(picture[:side_px, :side_px]).permute(2, 0, 1)[None].float() / 255
    blurred, _ = render(sharp, sharp, [shake()], side_px - 16)  # the shake looks beyond the edge
    pixels = blurred[0].permute(1, 2, 0).numpy()
    pixels = pixels + np.random.default_rng(SEED).normal(0, NOISE, pixels.shape)
    return Image.fromarray((pixels.clip(0, 1) * 255).round().astype(np.uint8))


def compare(photos: list[Image.Image], box: tuple[int, int, int, int]) -> Image.Image:
    """One row for each photo: blurred, restored; the same part of each."""
    deblurrer = Deblurrer.load()
    width, height = box[2] - box[0], box[3] - box[1]
    sheet = Image.new("RGB", (2 * width + 8, len(photos) * (height + 8) - 8), "white")
    for row, photo in enumerate(photos):
        restored = Image.fromarray(deblurrer.restore(np.asarray(photo)))
        for column, image in enumerate((photo, restored)):
            sheet.paste(image.crop(box), (column * (width + 8), row * (height + 8)))
    return sheet


def draw_training(document: Path, target: Path) -> None:
    """The PSNR of the two tables of the default weights' training over its minutes."""
    from matplotlib.figure import Figure

    text = document.read_text("utf-8")
    diary = [line.split("|")[1:-1] for line in text.split("| minutes |")[1].splitlines()[3:13]]
    stages = [line.split("|")[1:-1] for line in text.split("| set | 480")[1].splitlines()[2:9]]
    header = next(line for line in text.splitlines() if line.startswith("| set | 480"))
    minutes = [int(number) for number in re.findall(r"\d+", header)]
    first, then, harm = (figure := Figure((13, 4), layout="constrained")).subplots(1, 3)
    for column, name in enumerate(("GOPRO linear, 2", "GOPRO gamma, 1", "REDS, 4"), start=3):
        first.plot(
            [int(row[0]) for row in diary], [float(row[column]) for row in diary], label=name
        )
    for row in stages[:6]:
        then.plot(minutes, [float(cell.split()[0]) for cell in row[1:]], marker=".", label=row[0])
    values = np.array([re.findall(r"[\d.]+", cell) for cell in stages[6][1:]], float)
    harm.plot(minutes, values[:, 0], marker=".", label="mean of 34")
    harm.plot(minutes, values[:, 1], marker=".", label="worst")
    first.set_title("The first 480 minutes")
    then.set_ylim(26.5, 31.5)
    then.set_title("What was shipped: pairs")
    harm.set_ylim(15, 65)
    harm.set_title("Sharp photos, to themselves")
    for plot in (first, then, harm):
        plot.set(xlabel="minutes of training", ylabel="PSNR (dB)")
        plot.grid(alpha=0.3)
        plot.legend(fontsize=8, loc="lower right", ncols=2 if plot is then else 1)
    figure.savefig(target, dpi=75)


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
    photo = take(data.astronaut())
    photo.save(folder / "blurred.jpg", quality=93, subsampling=0)
    sheet = compare([photo, take(data.coffee()[:, 100:])], (20, 0, 380, 300))
    sheet.save(folder / "before-after.jpg", quality=93, subsampling=0)
    clock = Image.fromarray(data.clock()).convert("RGB")
    compare([clock], (70, 50, 350, 260)).save(folder / "clock.jpg", quality=93)
    draw_training(Path(__file__).parents[1] / "training.md", folder / "training.png")


if __name__ == "__main__":
    main()
