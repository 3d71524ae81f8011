"""Cuts from sharp photos what the network changes most, as pairs that must stay as they are.

    python benchmarks/negatives.py PHOTO... -o DIR [--weights NAME] [--leave-out FILE] [--random]

Photos hold much that looks like motion blur and is none: what is out of focus, clouds, skin,
fabric, ripples in sand. Each photo is restored at several sizes (down to --sides pixels on its
longer side), and the parts that come back furthest from themselves are written to DIR/sharp,
to which DIR/blur is a link: `deblur train --data DIR=0.08` then teaches to leave them. Look
through them first, and delete what is really blurred by motion (water, crowds at night). Never
give it photos that the network is judged by: --leave-out names files that list theirs. --random
takes parts anywhere instead, at the photo's own size, at which training hardly sees photos; then
--weights, --sides and --below do not matter.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from deblurcli import Deblurrer
from deblurcli.data.make_pairs.photo_blurring import find_photos
from deblurcli.data.pictures import PICTURE_SUFFIXES, read_picture, write_png
from deblurcli.evaluation.metrics import psnr

Pixels = NDArray[np.uint8]
STEP_PX = 32  # parts begin at multiples of it
LEAST_STEP = 1.2  # between one size and the next


def scaled(photo: Pixels, sides: Sequence[int]) -> Iterator[tuple[int, Pixels]]:
    """Each longer side that the photo has or exceeds, and the photo at that size; of sizes that
    are nearly alike, which would show the same parts twice, the larger one."""
    height, width = photo.shape[:2]
    longer, last = max(height, width), math.inf
    for side in sorted({min(longer, side) for side in sides}, reverse=True):
        if side * LEAST_STEP > last:
            continue
        last = side
        size = (round(width * side / longer), round(height * side / longer))
        smaller = Image.fromarray(photo).resize(size, Image.Resampling.LANCZOS)
        yield side, np.asarray(smaller)


def most_changed(
    before: Pixels, after: Pixels, size_px: int, count: int, below_db: float
) -> Iterator[tuple[float, slice, slice]]:
    """PSNR in dB, rows and columns of the `count` parts that changed most, at most half of each in
    another; fewer where no others come back below `below_db`."""
    change = np.square(after.astype(np.float32) - before).mean(axis=2)
    means = torch.nn.functional.avg_pool2d(torch.from_numpy(change)[None], size_px, STEP_PX)[0]
    near = size_px // 2 // STEP_PX  # in steps
    for _ in range(count):
        row, column = divmod(int(means.argmax()), means.shape[1])
        top, left = row * STEP_PX, column * STEP_PX
        part = slice(top, top + size_px), slice(left, left + size_px)
        psnr_db = psnr(before[part], after[part])
        if not means[row, column] or psnr_db >= below_db:  # 0: nothing is left to take
            return
        yield psnr_db, *part
        rows = slice(max(row - near, 0), row + near + 1)
        means[rows, max(column - near, 0) : column + near + 1] = 0


def anywhere(
    photo: Pixels, size_px: int, count: int, rng: np.random.Generator
) -> Iterator[tuple[float, slice, slice]]:
    """As `most_changed`, of parts drawn at random, for which nothing is restored."""
    for _ in range(count):
        top, left = (int(rng.integers(side - size_px + 1)) for side in photo.shape[:2])
        yield math.nan, slice(top, top + size_px), slice(left, left + size_px)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", nargs="+", type=Path, metavar="PHOTO", help="files or folders")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="DIR")
    parser.add_argument("--weights", default="default", help="name or file")
    parser.add_argument("--leave-out", action="append", default=[], type=Path, metavar="FILE")
    parser.add_argument("--sides", nargs="+", type=int, default=[2400, 1500, 1000, 640])
    parser.add_argument("--size", type=int, default=320, help="side of the parts in pixels")
    parser.add_argument("--count", type=int, default=3, help="parts of a photo at each size")
    parser.add_argument("--below", type=float, default=45.0, help="PSNR in dB; others are left")
    parser.add_argument("--random", action="store_true", help="parts anywhere, unrestored")
    options = parser.parse_args()
    left_out = {name for file in options.leave_out for name in file.read_text("utf-8").split()}
    deblurrer = None if options.random else Deblurrer.load(options.weights)
    rng = np.random.default_rng(0)
    sides = [2**31] if options.random else options.sides
    folder = options.output / "sharp"
    folder.mkdir(parents=True)  # a folder of an earlier run would mix with this one
    (options.output / "blur").symlink_to("sharp", target_is_directory=True)
    total = 0
    for name, path in find_photos(options.photos, leave_out=[options.output]).items():
        if path.name in left_out or path.suffix.lower() not in PICTURE_SUFFIXES:
            continue
        for side, photo in scaled(read_picture(path), sides):
            if min(photo.shape[:2]) < options.size:
                continue
            if deblurrer is None:
                parts = anywhere(photo, options.size, options.count, rng)
            else:
                restored = np.asarray(deblurrer.restore(photo), np.uint8)
                parts = most_changed(photo, restored, options.size, options.count, options.below)
            for number, (psnr_db, rows, columns) in enumerate(parts, start=1):
                file = f"{name}-{side}-{number}.png"
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                write_png(folder / file, photo[rows, columns])
                print(file if options.random else f"{file}: {psnr_db:.1f} dB", flush=True)
                total += 1
    print(f"{total} parts in {options.output}")


if __name__ == "__main__":
    main()
