"""Where nothing moves, what the network adds must not move either.

A network restores each frame by itself, so on fine repeated structure (stripes, grids, facades)
noise that nobody sees in the input can decide between two answers, frame by frame, and the output
flickers. `Steadier` follows the *change* that the network makes: where the input stands still, the
change is averaged over the last frames. What the input itself does (noise, a fade) passes
unaltered, and where anything moves the network's frame is left as it is, so nothing smears.
"""

from collections.abc import Callable, Mapping
from functools import reduce

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Resampling, fromarray

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
        self._cells: NDArray[np.float32] | None = None
        self._change: NDArray[np.float32] | None = None

    def __call__(self, blurred: Image) -> Image:
        """The restored frame, its change steadied where the input stands still."""
        restored = self._restore(blurred)
        if (restored.shape, restored.dtype) != (blurred.shape, blurred.dtype):
            raise TypeError(f"shape and dtype became {restored.shape} {restored.dtype}")
        # With NumPy, not PyTorch: with ONNX Runtime that is never loaded.
        level = np.float32(np.iinfo(blurred.dtype).max / 255)
        before = blurred.astype(np.float32) / level
        change = restored.astype(np.float32) / level - before
        height, width, _ = blurred.shape
        rows, columns = -(-height // CELL_PX), -(-width // CELL_PX)
        missing = ((0, CELL_PX * rows - height), (0, CELL_PX * columns - width), (0, 0))
        squares = np.pad(before, missing, mode="edge").reshape(rows, CELL_PX, -1).sum(1)
        cells = squares.reshape(rows, columns, CELL_PX, 3).sum(2) / CELL_PX**2
        earlier, self._cells = self._cells, cells
        if self._change is not None and earlier is not None and self._change.shape == change.shape:
            levels = cells - earlier
            # Light that changes a little over a whole neighbourhood is no motion.
            light = _around(np.add, levels) / _REACH_CELLS**2
            moved = np.maximum(np.abs(levels - light), np.abs(levels) / 4).mean(2)
            moved = _around(np.maximum, moved)
            kept = _KEPT * np.clip((_MOVING - moved) / (_MOVING - _STILL), 0, 1)
            if kept.any():
                still = fromarray(kept).resize((width, height), Resampling.BILINEAR)
                change += (self._change - change) * np.asarray(still)[..., None]
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


def _around(combine: np.ufunc, cells: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each cell with its neighbours, added or whatever `combine` does."""
    reach = _REACH_CELLS // 2
    for _ in range(2):  # down, then, turned, across; views of whole rows are fast
        padded = np.pad(cells, [(reach, reach)] + [(0, 0)] * (cells.ndim - 1), mode="edge")
        parts = (padded[i : i + len(cells)] for i in range(_REACH_CELLS))
        cells = reduce(combine, parts).swapaxes(0, 1)
    return cells
