"""Where nothing moves, what the network adds must not move either.

A network restores each frame by itself, so on fine repeated structure (stripes, grids, facades)
noise that nobody sees in the input can decide between two answers, frame by frame, and the output
flickers. `Steadier` follows the *change* that the network makes: where the input stands still, the
change is averaged over the last frames. What the input itself does (noise, a fade) passes
unaltered, and where anything moves the network's frame is left as it is, so nothing smears.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from deblurcli.io.videos.pixels import Pixels

CELL_PX = 4
"""Motion is looked for between the means of squares of this size: noise hardly changes those."""

_REACH_CELLS = 5  # a square stands still only if its neighbours do
_STILL, _MOVING = 1.5, 3.5  # levels of 255 that a cell may change by, and from which on it moves
_KEPT = 0.85  # share of the earlier change: averages over some 7 frames


class Steadier:
    """Steadies a clip, frame after frame in their order."""

    def __init__(self) -> None:
        self._cells: Tensor | None = None  # of the last input frame, in levels of 255
        self._change: Tensor | None = None  # what was added to it, (1, 3, H, W) levels of the dtype

    def steady(self, blurred: Pixels, restored: Pixels) -> Pixels:
        """The restored frame with the change steadied where the input stands still.

        Args:
            blurred: the input's frame, (H, W, 3) uint8 or uint16.
            restored: what the network made of it, of the same shape and dtype.
        """
        top = np.iinfo(blurred.dtype).max
        before = _to_tensor(blurred)
        change = _to_tensor(restored) - before
        cells = F.avg_pool2d(before, CELL_PX, ceil_mode=True, count_include_pad=False)
        cells = cells * (255 / top)
        earlier, self._cells = self._cells, cells
        if self._change is not None and earlier is not None and earlier.shape == cells.shape:
            moved = cells - earlier
            # Light that changes over a whole neighbourhood is no motion.
            moved -= F.avg_pool2d(moved, _REACH_CELLS, 1, _REACH_CELLS // 2, False, False)
            moved = moved.abs().mean(1, keepdim=True)
            moved = F.max_pool2d(moved, _REACH_CELLS, 1, _REACH_CELLS // 2)
            kept = _KEPT * ((_MOVING - moved) / (_MOVING - _STILL)).clamp(0, 1)
            if bool(kept.any()):
                size = change.shape[-2:]
                kept = F.interpolate(kept, size=size, mode="bilinear", align_corners=False)
                change = torch.lerp(change, self._change, kept)
                steadied = (before + change).round().clamp(0, top)
                restored = steadied[0].permute(1, 2, 0).numpy().astype(blurred.dtype)
        self._change = change
        return restored

    def save(self) -> dict[str, NDArray[np.float32]]:
        """What has to be kept to go on in another process."""
        assert self._cells is not None and self._change is not None
        return {"cells": self._cells.numpy(), "change": self._change.numpy()}

    def load(self, state: dict[str, NDArray[np.float32]]) -> None:
        """Goes on where `save` was called."""
        self._cells, self._change = (torch.from_numpy(state[key]) for key in ("cells", "change"))


def _to_tensor(frame: Pixels) -> Tensor:
    return torch.from_numpy(frame.astype(np.float32)).permute(2, 0, 1)[None]
