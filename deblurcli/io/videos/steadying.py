"""Where nothing moves, what the network adds must not move either.

A network restores each frame by itself, so on fine repeated structure (stripes, grids, facades)
noise that nobody sees in the input can decide between two answers, frame by frame, and the output
flickers. `Steadier` follows the *change* that the network makes: where the input stands still, the
change is averaged over the last frames. What the input itself does (noise, a fade) passes
unaltered, and where anything moves the network's frame is left as it is, so nothing smears.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deblurcli.io.image import Image

if TYPE_CHECKING:  # pages that compare photos are made without PyTorch, too
    from torch import Tensor

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
        # Of the last input frame, and what was added to it: (1, 3, H, W), levels of 255.
        self._cells: Tensor | None = None
        self._change: Tensor | None = None

    def __call__(self, blurred: Image) -> Image:
        """The restored frame, its change steadied where the input stands still."""
        import torch
        import torch.nn.functional as F  # noqa: N812

        restored = self._restore(blurred)
        if (restored.shape, restored.dtype) != (blurred.shape, blurred.dtype):
            raise TypeError(f"shape and dtype became {restored.shape} {restored.dtype}")
        scale = np.iinfo(blurred.dtype).max / 255
        before, after = (
            torch.from_numpy(frame.astype(np.float32)).permute(2, 0, 1)[None] / scale
            for frame in (blurred, restored)
        )
        change = after - before
        cells = F.avg_pool2d(before, CELL_PX, ceil_mode=True, count_include_pad=False)
        earlier, self._cells = self._cells, cells
        if self._change is not None and earlier is not None and self._change.shape == change.shape:
            levels = cells - earlier
            # Light that changes a little over a whole neighbourhood is no motion.
            light = F.avg_pool2d(levels, _REACH_CELLS, 1, _REACH_CELLS // 2, False, False)
            moved = torch.maximum((levels - light).abs(), levels.abs() / 4)
            moved = moved.mean(1, keepdim=True)
            moved = F.max_pool2d(moved, _REACH_CELLS, 1, _REACH_CELLS // 2)
            kept = _KEPT * ((_MOVING - moved) / (_MOVING - _STILL)).clamp(0, 1)
            if bool(kept.any()):
                size = change.shape[-2:]
                kept = F.interpolate(kept, size=size, mode="bilinear", align_corners=False)
                change = torch.lerp(change, self._change, kept)
                steadied = ((before + change).clamp(0, 255) * scale).round()
                restored = steadied[0].permute(1, 2, 0).numpy().astype(blurred.dtype)
        self._change = change
        return restored

    def save(self) -> dict[str, NDArray[np.float32]]:
        """What has to be kept to go on in another process, after the first frame."""
        assert self._cells is not None and self._change is not None
        return {"cells": self._cells.numpy(), "change": self._change.numpy()}

    def load(self, state: Mapping[str, NDArray[np.float32]]) -> None:
        """Goes on where `save` was called; anew if the state is empty."""
        import torch

        tensors = {name: torch.from_numpy(values) for name, values in state.items()}
        self._cells, self._change = tensors.get("cells"), tensors.get("change")
