"""Gives blurred pictures of pairs the network's own results as targets, to train towards them.

    python benchmarks/targets.py PAIRS -o DIR [--weights NAME] [--ensemble 4]

The mean of what a network makes of turned and flipped copies is better than any one result, and,
unlike the sharp picture, holds nothing that can't be told from the blurred one: it teaches with
less noise. Writes DIR/blur, as it was, and DIR/sharp, its targets. Where nearly nothing is
blurred, or the result is nearly the sharp picture, that is the target: what the network does wrong
there should not be learned once more.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deblurcli import Deblurrer
from deblurcli.data.layouts import find_pairs
from deblurcli.data.make_pairs.pair_folder import PairFolder
from deblurcli.data.make_pairs.photo_blurring import KINDS
from deblurcli.data.pictures import read_picture
from deblurcli.evaluation.metrics import psnr

Pixels = NDArray[np.uint8]
WEAK_DB = 34.0  # PSNR of a blurred picture above which little is blurred
NEAR_DB = 37.0  # PSNR of a result above which the sharp picture is as good a target


def choose_target(blurred: Pixels, sharp: Pixels, deblurrer: Deblurrer) -> Pixels:
    """The sharp picture or the result, both (height, width, 3) uint8."""
    if psnr(sharp, blurred) > WEAK_DB:
        return sharp
    restored = np.asarray(deblurrer.restore(blurred), np.uint8)
    return sharp if psnr(sharp, restored) > NEAR_DB else restored


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", type=Path, metavar="PAIRS", help="as 'deblur data synth' writes")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="DIR")
    parser.add_argument("--weights", default="default", help="name or file")
    parser.add_argument("--ensemble", type=int, default=4, choices=(1, 2, 4, 8))
    options = parser.parse_args()
    deblurrer = Deblurrer.load(options.weights, ensemble=options.ensemble)
    pairs = find_pairs(options.pairs)
    settings = {"pairs": str(options.pairs), "weights": options.weights}
    folder = PairFolder(options.output, KINDS, settings | {"ensemble": options.ensemble})
    folder.check()
    folder.begin()
    own = 0
    for pair in pairs:
        blurred, sharp = read_picture(pair.blurred), read_picture(pair.sharp)
        target = choose_target(blurred, sharp, deblurrer)
        own += target is not sharp
        folder.write(pair.name, {"blur": blurred, "sharp": target})
    print(f"{len(pairs)} pairs in {options.output}, {own} with results as targets")


if __name__ == "__main__":
    main()
