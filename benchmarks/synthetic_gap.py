"""How near synthesised blur comes to real blur, as a trained network sees it.

    python benchmarks/synthetic_gap.py --data GOPRO/ --data REDS/ [--weights NAME] [--crops 6]

Cuts parts from real pairs, and blurs the same sharp parts as training does. Then it prints, by
the PSNR of the blurred parts, how much a network gains on the real and on the synthesised ones.
Where it gains as much on real blur as on synthesised blur of the same strength, better synthesis
has little to offer, and more training or a larger network has.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from deblurcli import Deblurrer
from deblurcli.config import MotionRange
from deblurcli.data.layouts import find_pairs
from deblurcli.data.pictures import read_picture
from deblurcli.data.synthesis import draw_exposure, margin_px, render
from deblurcli.evaluation.metrics import psnr

SIDE_PX = 384
EDGES_DB = (16, 20, 22, 24, 26, 28, 30, 34)


def synthesise(
    region: NDArray[np.uint8], rng: np.random.Generator, motion: MotionRange
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Blurred and sharp, (SIDE_PX, SIDE_PX, 3), of the middle of a sharp region."""
    scene = torch.from_numpy(region).permute(2, 0, 1)[None].float() / 255
    # What moves in front shows the same picture, upside down.
    exposure = draw_exposure(rng, motion, region.shape[0])
    blurred, sharp = render(scene, scene.flip(-2), [exposure], SIDE_PX)
    return to_pixels(blurred), to_pixels(sharp)


def to_pixels(image: torch.Tensor) -> NDArray[np.uint8]:
    return (image[0] * 255).round().byte().permute(1, 2, 0).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", action="append", required=True, type=Path, metavar="FOLDER")
    parser.add_argument("--weights", default="default", help="name or file")
    parser.add_argument("--crops", type=int, default=6, help="parts of each picture")
    options = parser.parse_args()
    deblurrer = Deblurrer.load(options.weights)
    motion = MotionRange(still=0.0)
    margin = margin_px(motion)
    side = SIDE_PX + 2 * margin
    rng = np.random.default_rng(0)
    for folder in options.data:
        gains: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for pair in find_pairs(folder):
            blurred, sharp = read_picture(pair.blurred), read_picture(pair.sharp)
            if min(sharp.shape[:2]) < side:
                print(f"{pair.sharp}: smaller than {side} px: left out")
                continue
            for _ in range(options.crops):
                row, column = (int(rng.integers(n - side + 1)) for n in sharp.shape[:2])
                region = (slice(row, row + side), slice(column, column + side))
                inner = (slice(margin, margin + SIDE_PX), slice(margin, margin + SIDE_PX))
                parts = {
                    "real": (blurred[region][inner], sharp[region][inner]),
                    "synthesised": synthesise(sharp[region], rng, motion),
                }
                for kind, (before, truth) in parts.items():
                    start = psnr(before, truth)
                    gains[kind].append((start, psnr(deblurrer.restore(before), truth) - start))
        print(f"{folder}: parts of {SIDE_PX} px; blurred PSNR, number and mean gain in dB")
        for low, high in pairwise(EDGES_DB):
            cells = []
            for kind, values in gains.items():
                here = [gain for start, gain in values if low <= start < high]
                mean = f"{np.mean(here):+.2f}" if here else "    -"
                cells.append(f"{kind} {len(here):3d} {mean}")
            print(f"  {low:2d} to {high:2d} dB: " + "   ".join(cells), flush=True)


if __name__ == "__main__":
    main()
