"""Peak memory of the whole command, for photos from 1 to 200 megapixels and for strips.

    python benchmarks/memory.py [--kind rgb8.jpg rgba16.png ...] [--megapixels 1 12 50 100 200]
                                [--weights FILE] [--no-strips]

Makes each picture (noise on a smooth ground, which no codec packs well), restores it with the real
command in a process of its own on the CPU, and prints its peak memory (the kernel's figure) beside
the bound that docs/speed.md gives: 1.2 GB and 12 bytes for each pixel, for some kinds more. Exit
code 1 where one is above it. Needs Linux or macOS. With the default weights a megapixel takes about
a second on two cores.
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

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

BASE_BYTES = 1.2e9

KINDS = {
    "rgb8.jpg": (3, np.uint8, 12, 65_000), "rgb8.png": (3, np.uint8, 12, 1_000_000),
    "rgba8.png": (4, np.uint8, 12, 1_000_000), "rgb16.png": (3, np.uint16, 24, 1_000_000),
    "rgba16.png": (4, np.uint16, 24, 1_000_000), "rgb8.tif": (3, np.uint8, 12, 1_000_000),
    "rgb16.tif": (3, np.uint16, 24, 1_000_000), "adobergb16.tif": (3, np.uint16, 24, 1_000_000),
    "cmyk8.tif": (4, np.uint8, 12, 1_000_000), "cmyk16.tif": (4, np.uint16, 24, 1_000_000),
    "rgb8.bmp": (3, np.uint8, 12, 1_000_000), "rgb8.webp": (3, np.uint8, 18, 16_000),
    "lossless8.webp": (3, np.uint8, 40, 16_000), "rgb8.heic": (3, np.uint8, 28, 16_000),
    "rgb10.heic": (3, np.uint16, 44, 16_000), "rgb8.avif": (3, np.uint8, 54, 65_000),
}  # fmt: skip
"""Channels, samples, bytes of memory a pixel and longest side of each kind of file."""


def make_picture(path: Path, kind: str, width: int, height: int) -> None:
    """Writes a picture of noise on a smooth ground; the same rows again and again."""
    channels, dtype, _, _ = KINDS[kind]
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(16, 224, (8, 64, 4), dtype=np.uint8))
    size = width, min(height, 256)
    rows = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC))[..., :channels].astype(dtype)
    if dtype == np.uint16:
        rows = (rows << 8) + rng.integers(0, 256, rows.shape, dtype)
    else:
        rows = rows + rng.integers(0, 8, rows.shape, dtype)
    values = np.tile(rows, (-(-height // len(rows)), 1, 1))[:height]
    if path.suffix == ".png":
        path.write_bytes(imagecodecs.png_encode(values, level=1))
    elif path.suffix == ".tif":
        profile = imagecodecs.cms_profile("adobergb") if kind.startswith("adobergb") else None
        photometric = "separated" if kind.startswith("cmyk") else "rgb"
        tifffile.imwrite(
            path, values, photometric=photometric, compression="zlib",
            compressionargs={"level": 1}, predictor=True, rowsperstrip=64, iccprofile=profile,
        )  # fmt: skip
    elif path.suffix == ".heic":
        import pillow_heif

        mode, bits = ("RGB", 8) if dtype == np.uint8 else ("RGB;16", 10)
        with path.open("wb") as file:  # below 16 MB
            pillow_heif.encode(
                mode, (width, height), values.tobytes(), file, quality=50, bit_depth=bits,
                enc_params={"preset": "ultrafast"},
            )  # fmt: skip
    else:
        options = {
            "lossless8.webp": {"lossless": True, "quality": 0},
            "rgb8.avif": {"quality": 95, "speed": 10},
        }
        Image.fromarray(values).save(path, **options.get(kind, {"quality": 95}))


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
    parser.add_argument("--kind", nargs="*", default=["rgb8.jpg"], choices=KINDS)
    parser.add_argument("--weights", default="default")
    parser.add_argument("--no-strips", action="store_true")
    options = parser.parse_args()
    above = False
    print("| kind | pixels | seconds | peak memory | bound |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for kind in options.kind:
            _, _, pixel_bytes, longest = KINDS[kind]
            sizes = [
                (round((m * 1.5e6) ** 0.5), round((m * 1e6 / 1.5) ** 0.5))
                for m in options.megapixels
            ]
            if not options.no_strips:
                sizes += [(longest, 1), (1, longest), (min(longest, 200_000), 16)]
            for width, height in sizes:
                path = Path(folder, kind)
                # In another process: Linux counts the memory of the one that starts a command as
                # its own.
                maker = multiprocessing.get_context("spawn").Process(
                    target=make_picture, args=(path, kind, width, height)
                )
                maker.start(), maker.join()
                if maker.exitcode:
                    sys.exit(f"{kind} could not be made")
                peak, seconds = restore(path, options.weights)
                bound = BASE_BYTES + pixel_bytes * width * height
                above |= peak > bound
                print(
                    f"| {kind} | {width}×{height} ({width * height / 1e6:.1f} MP) | {seconds:.1f} "
                    f"| {peak / 1e9:.2f} GB | {bound / 1e9:.2f} GB |"
                    f"{' ABOVE' if peak > bound else ''}",
                    flush=True,
                )
    sys.exit("above the bound" if above else 0)


if __name__ == "__main__":
    main()
