"""Makes the pictures of the README from pictures that scikit-image ships.

    python docs/pictures/make.py [FOLDER]

``blurred.jpg`` is what the README's first command restores; ``before-after.jpg`` shows it and
another beside what the default weights make of them; ``clock.jpg`` shows a photo that a camera
really blurred.

A shaken camera is simulated by the code that also makes training pairs: the camera moves along
a slightly curved path of 10 px and turns by half a degree; light is averaged, not encoded
values; then comes a little noise and a JPEG of quality 93. The same seed gives the same picture.
"""

from __future__ import annotations

import math
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


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
    photo = take(data.astronaut())
    photo.save(folder / "blurred.jpg", quality=93, subsampling=0)
    sheet = compare([photo, take(data.coffee()[:, 100:])], (20, 0, 380, 300))
    sheet.save(folder / "before-after.jpg", quality=93, subsampling=0)
    clock = Image.fromarray(data.clock()).convert("RGB")
    compare([clock], (70, 50, 350, 260)).save(folder / "clock.jpg", quality=93)


if __name__ == "__main__":
    main()
