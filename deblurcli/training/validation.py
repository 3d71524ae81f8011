"""Measures the network in training on pictures that nobody trains on, the way users run it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from deblurcli.data.layouts import Pair
from deblurcli.deblurrer import Deblurrer
from deblurcli.errors import DeblurError
from deblurcli.evaluation.cases import read_image
from deblurcli.evaluation.metrics import psnr
from deblurcli.models.network import RestorationNetwork


class Validation:
    """Calls `Deblurrer` and `evaluate` on a few pairs of each kind.

    Args:
        pairs: to choose from.
        limit: most pairs of each kind, spread evenly; 0 takes all.
        device, precision: as `Deblurrer` takes them.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        *,
        limit: int = 10,
        device: str = "auto",
        precision: str = "auto",
    ) -> None:
        self.device, self.precision = device, precision
        self.sets: dict[str, list[Pair]] = {}
        for kind, group in groupby(sorted(pairs, key=lambda p: p.kind), key=lambda p: p.kind):
            found = list(group)
            if limit and len(found) > limit:
                chosen = np.linspace(0, len(found) - 1, limit).round().astype(int)
                found = [found[i] for i in chosen]
            self.sets[kind] = found

    def __call__(
        self, network: RestorationNetwork, rank: int = 0, processes: int = 1
    ) -> list[tuple[str, float]]:
        """The kind and the PSNR in dB of each picture of this process's share.

        Raises:
            DeblurError: a picture can't be read, or the two of a pair differ in size.
        """
        deblurrer = Deblurrer(network, device=self.device, precision=self.precision)
        found = []
        for pair in [pair for pairs in self.sets.values() for pair in pairs][rank::processes]:
            blurred, sharp = read_image(pair.blurred), read_image(pair.sharp)
            if blurred.shape != sharp.shape:
                raise DeblurError(pair.blurred, f"not of the size of {pair.sharp}", "take it out")
            found.append((pair.kind, psnr(deblurrer.restore(blurred), sharp)))
        return found

    def measure_blurred(self) -> dict[str, float]:
        """Kind of pairs to the mean PSNR in dB of the blurred pictures as they are."""
        return {
            kind: fmean(psnr(read_image(pair.blurred), read_image(pair.sharp)) for pair in pairs)
            for kind, pairs in self.sets.items()
        }

    def restore_samples(
        self, network: RestorationNetwork, side_px: int = 384, rows: int = 4
    ) -> list[list[NDArray[np.uint8]]]:
        """Rows of blurred, restored and sharp, cut from the middle of validation pictures."""
        deblurrer = Deblurrer(network, device=self.device, precision=self.precision)
        queues = [list(pairs) for pairs in self.sets.values()]
        chosen = [q[i] for i in range(rows) for q in queues if i < len(q)][:rows]
        triples: list[list[NDArray[np.uint8]]] = []
        for pair in chosen:
            blurred, sharp = read_image(pair.blurred), read_image(pair.sharp)
            height, width = blurred.shape[:2]
            side_px = min(side_px, height, width)
            top, left = (height - side_px) // 2, (width - side_px) // 2
            middle = (slice(top, top + side_px), slice(left, left + side_px))
            triples.append(
                [image[middle] for image in (blurred, deblurrer.restore(blurred), sharp)]
            )
        # All rows of one size, that of the smallest picture.
        return [[image[:side_px, :side_px] for image in row] for row in triples]

    def sample_sheets(self, network: RestorationNetwork) -> NDArray[np.uint8]:
        """`restore_samples` with each row as one picture: (rows, side, 3 * side, 3)."""
        rows = self.restore_samples(network)
        return np.stack([np.concatenate(row, axis=1) for row in rows])
