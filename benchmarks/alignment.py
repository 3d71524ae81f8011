"""Where in the exposure real pairs are sharp, and whether restored pictures lie there too.

    python benchmarks/alignment.py --data GOPRO/ --data GOPRO_gamma/=2.2 [--weights NAME]

Two measurements of every pair:

- its blur kernels, estimated from the blurred and the sharp picture (Wiener deconvolution of
  the gradients, part by part): how long they are and how far their centre of mass lies from the
  sharp picture's place. A sharp frame from the middle of the exposure lies on the kernel;
  the centre of mass of a bent kernel lies beside it.
- how far the restored picture is displaced from the sharp one as a whole, and the PSNR that it
  would have without that. A network that was taught another place than the real one loses here.

``=2.2`` after a folder: its blur was averaged through this gamma curve.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import shift
from skimage.registration import phase_cross_correlation

from deblurcli import Deblurrer
from deblurcli.data.layouts import find_pairs
from deblurcli.data.pictures import read_picture
from deblurcli.evaluation.metrics import psnr

PART_PX = 320
KERNEL_RADIUS_PX = 24
NOISE_SHARE = 0.05
# Parts of a kernel below this share of its highest value are taken for noise.
FLOOR = 0.12


def kernel(blurred: NDArray[np.float64], sharp: NDArray[np.float64]) -> NDArray[np.float64]:
    """(49, 49), sum 1: what `sharp` (PART_PX, PART_PX) was convolved with, middle at [24, 24]."""
    window = np.hanning(PART_PX)[:, None] * np.hanning(PART_PX)
    cross, power = 0, 0
    for before, after in zip(np.gradient(sharp), np.gradient(blurred), strict=True):
        spectrum = np.fft.fft2(before * window)
        cross = cross + np.fft.fft2(after * window) * spectrum.conj()
        power = power + abs(spectrum) ** 2
    whole = np.fft.fftshift(np.fft.ifft2(cross / (power + NOISE_SHARE * power.mean())).real)
    middle = slice(PART_PX // 2 - KERNEL_RADIUS_PX, PART_PX // 2 + KERNEL_RADIUS_PX + 1)
    estimate = whole[middle, middle]
    estimate = np.where(estimate < FLOOR * estimate.max(), 0, estimate)
    return estimate / estimate.sum()


def moments(weights: NDArray[np.float64]) -> tuple[float, float]:
    """Distance of the centre of mass from the middle, and standard deviation about it, px."""
    places = np.mgrid[
        -KERNEL_RADIUS_PX : KERNEL_RADIUS_PX + 1, -KERNEL_RADIUS_PX : KERNEL_RADIUS_PX + 1
    ]
    mean = (weights * places).sum((1, 2))
    spread = np.sqrt((weights * ((places - mean[:, None, None]) ** 2).sum(0)).sum())
    return float(np.hypot(*mean)), float(spread)


def kernels(
    blurred: NDArray[np.uint8], sharp: NDArray[np.uint8], gamma: float
) -> list[tuple[float, float]]:
    """`moments` of the kernels of all parts of a pair."""
    before, after = (((p / 255.0) ** gamma).mean(axis=-1) for p in (blurred, sharp))
    height, width = before.shape
    corners = (
        (row, column)
        for row in range(0, height - PART_PX + 1, PART_PX)
        for column in range(0, width - PART_PX + 1, PART_PX)
    )
    parts = ((slice(r, r + PART_PX), slice(c, c + PART_PX)) for r, c in corners)
    return [moments(kernel(before[part], after[part])) for part in parts]


def without_displacement(
    restored: NDArray[np.uint8], sharp: NDArray[np.uint8]
) -> tuple[float, float]:
    """By how many px `restored` is displaced from `sharp`, and its PSNR without that, dB."""
    move, _, _ = phase_cross_correlation(
        sharp.mean(axis=-1), restored.mean(axis=-1), upsample_factor=50, normalization=None
    )
    moved = shift(restored.astype(np.float64), (*move, 0), order=1, mode="nearest")
    return float(np.hypot(*move)), psnr(moved.round().astype(np.uint8), sharp)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", action="append", required=True, metavar="FOLDER[=GAMMA]")
    parser.add_argument("--weights", default="default", help="name or file")
    options = parser.parse_args()
    deblurrer = Deblurrer.load(options.weights)
    print("kernel: standard deviation, centre of mass off by | restored, displaced by, without")
    for text in options.data:
        folder, _, gamma = text.partition("=")
        for pair in find_pairs(Path(folder)):
            blurred, sharp = read_picture(pair.blurred), read_picture(pair.sharp)
            offset_px, spread_px = np.median(kernels(blurred, sharp, float(gamma or 1)), axis=0)
            restored = deblurrer.restore(blurred)
            displaced_px, aligned_db = without_displacement(restored, sharp)
            print(
                f"{pair.blurred}: {spread_px:.1f} px, {offset_px:.2f} px | "
                f"{psnr(restored, sharp):.2f} dB, {displaced_px:.2f} px, {aligned_db:.2f} dB",
                flush=True,
            )


if __name__ == "__main__":
    main()
