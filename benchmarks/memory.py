"""Peak memory of the whole command, for photos from 1 to 200 megapixels and for strips.

    python benchmarks/memory.py [--megapixels 1 12 50 100 200] [--format jpg] [--weights FILE]

Makes each picture (one texture, repeated), restores it with the real command in a process of its
own on the CPU, and prints its peak memory (the kernel's figure) beside the bound that
docs/speed.md gives: 1.2 GB and 12 bytes for each pixel. Exit code 1 where one is above it.
Needs Linux or macOS. With the default weights a megapixel takes about a second on two cores.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

BASE_BYTES, BYTES_PER_PIXEL = 1.2e9, 12


def make_picture(path: Path, width: int, height: int) -> None:
    """Writes a picture of noise that was smoothed, as large as asked for."""
    coarse = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    tile = np.asarray(Image.fromarray(coarse).resize((512, 512), Image.Resampling.BICUBIC))
    Image.MAX_IMAGE_PIXELS = None
    row = np.tile(tile[: min(height, 512)], (1, -(-width // 512), 1))[:, :width]
    rows = np.tile(row, (-(-height // 512), 1, 1))[:height]
    Image.fromarray(rows).save(path, compress_level=1, quality=90)


def restore(path: Path, weights: str) -> tuple[int, float]:
    """Peak bytes and seconds of ``deblur PATH``."""
    target = path.with_name(f"restored{path.suffix}")
    command = [sys.executable, "-m", "deblurcli", str(path), "-o", str(target), "--overwrite"]
    begun = time.perf_counter()
    process = subprocess.Popen([*command, "-q", "--device", "cpu", "--weights", weights])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed")
    unit = 1 if sys.platform == "darwin" else 1024
    return usage.ru_maxrss * unit, time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--megapixels", type=float, nargs="*", default=[1, 12, 50, 100, 200])
    parser.add_argument("--format", default="jpg", choices=["jpg", "png", "tif", "webp"])
    parser.add_argument("--weights", default="default")
    parser.add_argument("--no-strips", action="store_true")
    options = parser.parse_args()
    sizes = [(round((m * 1.5e6) ** 0.5), round((m * 1e6 / 1.5) ** 0.5)) for m in options.megapixels]
    largest = {"jpg": 65_000, "webp": 16_000}.get(options.format, 1_000_000)
    sizes += [] if options.no_strips else [(largest, 1), (1, largest), (min(largest, 200_000), 16)]
    above = False
    print("| pixels | seconds | peak memory | bound |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for width, height in sizes:
            path = Path(folder, f"photo.{options.format}")
            # In another process: Linux counts the memory of the one that starts a command as its.
            maker = multiprocessing.get_context("spawn").Process(
                target=make_picture, args=(path, width, height)
            )
            maker.start(), maker.join()
            peak, seconds = restore(path, options.weights)
            bound = BASE_BYTES + BYTES_PER_PIXEL * width * height
            above |= peak > bound
            print(
                f"| {width}×{height} ({width * height / 1e6:.1f} MP) | {seconds:.1f} "
                f"| {peak / 1e9:.2f} GB | {bound / 1e9:.2f} GB |{' ABOVE' if peak > bound else ''}",
                flush=True,
            )
    sys.exit("above the bound" if above else 0)


if __name__ == "__main__":
    main()
