"""Where nothing moves, what the network adds must not move either.

A network restores each frame by itself, so on fine repeated structure (stripes, grids, facades)
noise that nobody sees in the input can decide between two answers, frame by frame, and the output
flickers. `Steadier` follows the *change* that the network makes: where the input stands still, the
change is averaged over the last frames. What the input itself does (noise, a fade) passes
unaltered, and where anything moves the network's frame is left as it is, so nothing smears.
"""

from collections.abc import Callable, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from deblurcli.io.image import Image

CELL_PX = 4
"""Motion is looked for between the means of squares of this size: noise hardly changes those."""

_REACH_CELLS = 5  # a square stands still only if its neighbours do
_STILL, _MOVING = 1.5, 3.5  # levels of 255 that a cell may change by, and from which on it moves
_KEPT = 0.85  # share of the earlier change: averages over some 7 frames


Restore = Callable[[Image], Image]
"""Restores one frame, (H, W, 3) uint8 or uint16 sRGB, and gives the same shape and type."""


class Steadier:
    """Restores the frames of one clip, in their order, each with a view to the ones before."""

    def __init__(self, restore: Restore) -> None:
        self._restore = restore
        # Of the last input frame, and what was added to it: (H, W, 3), levels of 255.
        self._cells: Image | None = None
        self._change: NDArray[np.float32] | None = None

    def __call__(self, blurred: Image) -> Image:
        """The restored frame, its change steadied where the input stands still."""
        restored = self._restore(blurred)
        if (restored.shape, restored.dtype) != (blurred.shape, blurred.dtype):
            raise TypeError(f"shape and dtype became {restored.shape} {restored.dtype}")
        level = np.float32(np.iinfo(blurred.dtype).max / 255)
        before = blurred.astype(np.float32) / level
        change = restored.astype(np.float32) / level - before
        earlier, self._cells = self._cells, cells_of(before)
        if self._change is not None and earlier is not None and self._change.shape == change.shape:
            kept = _KEPT * find_still(self._cells, earlier, change)
            if kept.any():
                change += (self._change - change) * kept[..., None]
                steadied = np.clip(before + change, 0, 255) * level
                restored = steadied.round().astype(blurred.dtype)
        self._change = change
        return restored

    def save(self) -> dict[str, NDArray[np.float32]]:
        """What has to be kept to go on in another process, after the first frame."""
        assert self._cells is not None and self._change is not None
        return {"cells": self._cells, "change": self._change}

    def load(self, state: Mapping[str, NDArray[np.float32]]) -> None:
        """Goes on where `save` was called; anew if the state is empty."""
        self._cells, self._change = state.get("cells"), state.get("change")


def cells_of(values: Image) -> Image:
    """The means of all squares of `CELL_PX`, of (H, W, 3)."""
    height, width, _ = values.shape
    missing = (0, -height % CELL_PX, 0, -width % CELL_PX)
    padded = cv2.copyMakeBorder(values, *missing, cv2.BORDER_REPLICATE)
    size = (padded.shape[1] // CELL_PX, padded.shape[0] // CELL_PX)
    return np.atleast_3d(cv2.resize(padded, size, interpolation=cv2.INTER_AREA))


def find_still(cells: Image, earlier: Image, pixels: Image) -> Image:
    """How still each of `pixels`, (H, W, ...), stands between two frames, 0 to 1: (H, W)."""
    levels, around = cells - earlier, np.ones((_REACH_CELLS, _REACH_CELLS))
    # Light that changes a little over a whole neighbourhood is no motion.
    light = cv2.blur(levels, around.shape, borderType=cv2.BORDER_REPLICATE)
    moved = np.maximum(np.abs(levels - light), np.abs(levels) / 4).mean(2)
    moved = cv2.dilate(moved, around, borderType=cv2.BORDER_REPLICATE)
    still: Image = np.clip((_MOVING - moved) / (_MOVING - _STILL), 0, 1)
    return cv2.resize(still, pixels.shape[1::-1], interpolation=cv2.INTER_LINEAR)
