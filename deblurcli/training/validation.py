"""Measures the network in training on pictures that nobody trains on, the way users run it."""

from collections.abc import Sequence
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from deblurcli.data.layouts import Pair
from deblurcli.deblurrer import Deblurrer
from deblurcli.evaluation.cases import read_image
from deblurcli.evaluation.metrics import psnr
from deblurcli.models.network import RestorationNetwork


class Validation:
    """Restores `limit` pairs of each kind, spread evenly, or all (0), and measures them."""

    def __init__(
        self, pairs: Sequence[Pair], *, limit: int = 10, device: str, precision: str = "auto"
    ) -> None:
        self.device, self.precision = device, precision
        self.sets: dict[str, list[Pair]] = {}
        for kind in sorted({pair.kind for pair in pairs}):
            found = [pair for pair in pairs if pair.kind == kind]
            chosen = np.linspace(0, len(found) - 1, min(limit or len(found), len(found)))
            self.sets[kind] = [found[round(i)] for i in chosen]

    def __call__(
        self, network: RestorationNetwork, rank: int = 0, processes: int = 1
    ) -> list[tuple[str, float]]:
        """The kind and the PSNR in dB of each picture of this process's share. Raises DeblurError
        where one can't be read."""
        deblurrer = Deblurrer(network, device=self.device, precision=self.precision)
        found = []
        for pair in [pair for pairs in self.sets.values() for pair in pairs][rank::processes]:
            restored = deblurrer.restore(read_image(pair.blurred))
            found.append((pair.kind, psnr(restored, read_image(pair.sharp))))
        return found

    def measure_blurred(self) -> dict[str, float]:
        """Kind of pairs to the mean PSNR in dB of the blurred pictures as they are."""
        return {
            kind: fmean(psnr(read_image(pair.blurred), read_image(pair.sharp)) for pair in pairs)
            for kind, pairs in self.sets.items()
        }

    def restore_samples(self, network: RestorationNetwork) -> NDArray[np.uint8]:
        """Blurred, restored and sharp beside each other, the middle of up to four pictures:
        (rows, side, 3 * side, 3), where the side is 384, or that of the smallest picture."""
        deblurrer = Deblurrer(network, device=self.device, precision=self.precision)
        queues = [list(pairs) for pairs in self.sets.values()]
        chosen = [q[i] for i in range(4) for q in queues if i < len(q)][:4]
        blurred = [read_image(pair.blurred) for pair in chosen]
        side_px = min([384, *(side for image in blurred for side in image.shape[:2])])
        sheets = []
        for pair, image in zip(chosen, blurred, strict=True):
            top, left = (image.shape[0] - side_px) // 2, (image.shape[1] - side_px) // 2
            middle = (slice(top, top + side_px), slice(left, left + side_px))
            row = (image, deblurrer.restore(image), read_image(pair.sharp))
            sheets.append(np.concatenate([picture[middle] for picture in row], axis=1))
        return np.stack(sheets)
