"""How much tiles of a photo differ from the whole, by how much neighbouring tiles share.

    python benchmarks/overlap.py PHOTO... [--weights FILE] [--tile 384]

Prints for each overlap the difference between the photo restored tile by tile and in one piece,
on 8-bit output in steps of 1/255: mean, largest, and beside the seams only (where a seam would
show); and how many pixels more than the photo has are computed. The
`overlap_px` in the registry was chosen with it.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import numpy as np
from PIL import Image

from deblurcli import Deblurrer
from deblurcli.tiling import plan_spans

OVERLAPS_PX = (0, 32, 64, 96, 128, 192)
LARGEST_PX = (1024, 1536)  # rows, columns: enough for many tiles, and quick


def seams(length_px: int, tile_px: int, overlap_px: int, alignment_px: int) -> np.ndarray:
    """Which rows (or columns) lie where two tiles meet, and 8 px around."""
    spans = plan_spans(length_px, tile_px, overlap_px, alignment_px)
    near = np.zeros(length_px, bool)
    for before, after in itertools.pairwise(spans):
        near[max(after.start - 8, 0) : before.stop + 8] = True
    return near


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", nargs="+", type=Path, metavar="PHOTO")
    parser.add_argument("--weights", default="default", help="name or file")
    parser.add_argument("--tile", type=int, default=384, help="small, so that there are many seams")
    parser.add_argument("--precision", default="fp32")
    options = parser.parse_args()
    tiler = Deblurrer.load(options.weights, precision=options.precision, tile=options.tile)
    alignment_px = tiler.network.alignment_px
    for photo in options.photos:
        with Image.open(photo) as opened:
            blurred = np.asarray(opened.convert("RGB"))[: LARGEST_PX[0], : LARGEST_PX[1]]
        height, width = blurred.shape[:2]
        tiler.tile = 0
        whole = tiler.restore(blurred).astype(int)
        print(f"{photo.name}: {width}x{height}, restoring changes {mean(whole - blurred):.2f}/255")
        tiler.tile = options.tile
        for overlap_px in OVERLAPS_PX:
            tiler.overlap_px = overlap_px
            difference = np.abs(tiler.restore(blurred) - whole)
            plans = [(n, options.tile, overlap_px, alignment_px) for n in (height, width)]
            rows, columns = (seams(*plan) for plan in plans)
            beside = difference[rows[:, None] | columns]
            computed = np.prod([sum(s.stop - s.start for s in plan_spans(*p)) for p in plans])
            print(
                f"  overlap {overlap_px:3d} px: mean {mean(difference):.4f}, at the seams "
                f"{mean(beside):.4f}, largest {difference.max()}, "
                f"{100 * (computed / (height * width) - 1):.0f} % more pixels",
                flush=True,
            )


def mean(values: np.ndarray) -> float:
    return float(np.abs(values).mean())


if __name__ == "__main__":
    main()
