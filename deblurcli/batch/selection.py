"""Restoring a part of a photo only: what ``--mask`` and ``--region`` select."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deblurcli.deblurrer import Deblurrer
from deblurcli.errors import DeblurError, sizes_differ
from deblurcli.io import photos
from deblurcli.io.image import Image, to_uint8

FEATHER_PX = 16  # how wide the soft edge is, inside of what is selected


@dataclass(frozen=True, eq=False)
class Selection:
    """What of a photo is restored; all else stays as it is, to the bit."""

    region: tuple[int, int, int, int] | None = None
    """Left, top, width and height in pixels of the upright photo; None is all of it."""
    mask: NDArray[np.uint8] | None = None
    """``(H, W)`` of a photo's size, 255 where it is restored, 0 where it is not."""
    mask_name: str = ""

    @staticmethod
    def read(
        mask: Path | None = None, region: tuple[int, int, int, int] | None = None
    ) -> "Selection":
        """Reads a mask from a picture: white is restored, black is not, grey partly."""
        if mask is None:
            return Selection(region)
        grey = to_uint8(photos.read(mask).pixels).mean(axis=2, dtype=np.float32)
        return Selection(region, np.rint(grey).astype(np.uint8), str(mask))

    def check(self, name: str, pixels: Image) -> None:
        """Raises DeblurError for a photo that the selection does not fit."""
        height, width = pixels.shape[:2]
        if self.mask is not None and self.mask.shape != (height, width):
            rows, columns = self.mask.shape
            remedy = "give a mask of the photo's size"
            raise sizes_differ(name, (width, height), self.mask_name, (columns, rows), remedy)
        if self.region is not None and (self.region[0] >= width or self.region[1] >= height):
            reason = f"the region lies outside of its {width}x{height} pixels"
            raise DeblurError(name, reason, "give another --region")

    def restore(self, deblurrer: Deblurrer, pixels: Image) -> Image:
        """Restores what is selected of ``(H, W, 3)`` pixels, with a soft edge inside of it.

        Only the selected part and its surroundings, as far as the network looks, go through it.
        """
        selected = np.full(pixels.shape[:2], 255, np.uint8) if self.mask is None else self.mask
        if self.region is not None:
            left, top, width, height = self.region
            inside = np.zeros_like(selected)
            area = np.s_[top : top + height, left : left + width]
            inside[area] = selected[area]
            selected = inside
        output = pixels.copy()
        if not selected.any():
            return output
        margin = deblurrer.overlap_px
        places = [np.flatnonzero(selected.any(axis=axis)) for axis in (1, 0)]
        part = tuple(slice(max(0, int(i[0]) - margin), int(i[-1]) + 1 + margin) for i in places)
        blurred, weights = output[part], _feather(selected[part])
        restored = deblurrer.restore(np.ascontiguousarray(blurred))
        for top in range(0, len(blurred), 256):  # in bands, as floats take four times the memory
            band = np.s_[top : top + 256]
            old, weight = blurred[band].astype(np.float32), weights[band, :, None]
            mixed = old + weight * (restored[band] - old)
            blurred[band] = mixed if pixels.dtype.kind == "f" else np.rint(mixed)
        return output


def _feather(selected: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Weights that rise from the edge of what is selected, where they are 0, to 1 over
    `FEATHER_PX` pixels. The picture's own edges are no edges of the selection."""
    total, eroded = selected.astype(np.uint16), selected
    for _ in range(FEATHER_PX - 1):
        for axis in (0, 1):
            before, smallest = np.moveaxis(eroded, axis, 0), np.moveaxis(eroded.copy(), axis, 0)
            np.minimum(smallest[1:], before[:-1], out=smallest[1:])
            np.minimum(smallest[:-1], before[1:], out=smallest[:-1])
            eroded = np.moveaxis(smallest, 0, axis)
        total += eroded
    return total.astype(np.float32) / np.float32(255 * FEATHER_PX)
