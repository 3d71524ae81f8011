"""What the frames before and after a frame are good for.

Where nothing moves, what the network adds must not move either. A network restores each frame by
itself, so on fine repeated structure (stripes, grids, facades) noise that nobody sees in the input
can decide between two answers, frame by frame, and the output flickers. `Steadier` follows the
*change* that the network makes: where the input stands still, the change is averaged over the last
frames. What the input itself does (noise, a fade) passes unaltered.

Where something moves, successive frames are blurred differently, and so the errors of their
restorations differ: the mean of three, moved onto each other along the motion between them, is
nearer to the truth than one (`average`). How much a neighbour may differ from a frame depends on
how much the network changed there: where it changed nothing, the frame was sharp, and stays.
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

_MATCHED_PX = 640  # longer side of the frames between which motion is looked for
_SMALLEST_PX, _LARGEST_PX = 16, 32_000  # OpenCV finds no motion in less, and moves no more
_UNCHANGED = 0.5  # levels of 255: a frame that the network changes by no more anywhere is sharp
_MEAN = np.full((1, 3), 1 / 3, np.float32)  # of R, G and B

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
            kept = _KEPT * find_still(self._cells, earlier, change.shape)
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


def find_still(cells: Image, earlier: Image, shape: tuple[int, ...]) -> Image:
    """How still each pixel of frames of (H, W, ...) stands between two of them: (H, W), 0 to 1."""
    levels, around = cells - earlier, np.ones((_REACH_CELLS, _REACH_CELLS))
    # Light that changes a little over a whole neighbourhood is no motion.
    light = cv2.blur(levels, around.shape, borderType=cv2.BORDER_REPLICATE)
    moved = np.maximum(np.abs(levels - light), np.abs(levels) / 4).mean(2)
    moved = cv2.dilate(moved, around, borderType=cv2.BORDER_REPLICATE)
    still: Image = np.clip((_MOVING - moved) / (_MOVING - _STILL), 0, 1)
    return cv2.resize(still, shape[1::-1], interpolation=cv2.INTER_LINEAR)


class RestoredFrame:
    """A frame and its restoration, (H, W, 3) uint8 or uint16, as `average` compares them."""

    def __init__(self, blurred: Image, restored: Image) -> None:
        self.blurred, self.restored = blurred, restored
        self.level = np.float32(np.iinfo(restored.dtype).max / 255)
        self.cells = cells_of(blurred.astype(np.float32) / self.level)
        self.change = cv2.GaussianBlur(self.distance(blurred), (0, 0), 10)
        height, width = self.change.shape
        share = min(0.5, _MATCHED_PX / max(height, width))
        size = (max(1, round(width * share)), max(1, round(height * share)))
        small = cv2.resize(restored, size, interpolation=cv2.INTER_AREA).astype(np.float32)
        self.luma = (cv2.transform(small, _MEAN) / self.level).astype(np.uint8)

    def distance(self, other: Image) -> Image:
        """How far the restoration lies from another frame: (H, W), levels of 255."""
        apart = cv2.absdiff(self.restored, other).astype(np.float32)
        return cv2.transform(apart, _MEAN) / self.level


def average(frame: RestoredFrame, *neighbours: RestoredFrame | None) -> Image:
    """The restoration of `frame`, averaged with its neighbours' where they show the same."""
    height, width = shape = frame.change.shape
    is_odd = min(frame.luma.shape) < _SMALLEST_PX or max(height, width) > _LARGEST_PX
    if is_odd or frame.change.max() < _UNCHANGED:
        return frame.restored
    x, y = np.meshgrid(np.arange(width, dtype="f4"), np.arange(height, dtype="f4"))
    scale = np.array((width, height), "f4") / np.array(frame.luma.shape[::-1], "f4")
    allowed = frame.change + np.float32(1e-3)
    total, weights = frame.restored.astype(np.float32), np.ones_like(frame.change)
    for other in neighbours:
        if other is None or other.change.shape != shape or other.level != frame.level:
            continue
        search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        motion = search.calc(frame.luma, other.luma, np.zeros((*frame.luma.shape, 2), np.float32))
        motion = cv2.resize(motion * scale, (width, height), interpolation=cv2.INTER_LINEAR)
        to_x, to_y = x + motion[..., 0], y + motion[..., 1]
        # What would come from outside of the other frame stays what it is in this one.
        filled = (cv2.INTER_CUBIC, frame.restored.copy(), cv2.BORDER_TRANSPARENT)
        moved = cv2.remap(other.restored, to_x, to_y, *filled)
        # Around each pixel, and nearer, so that small things don't vanish: snow, rain, sparks.
        apart = cv2.GaussianBlur(frame.distance(moved), (0, 0), 1) / allowed
        weight = np.exp(-((cv2.GaussianBlur(apart, (0, 0), 4)) ** 2) - (apart / 2.5) ** 4)
        # What stands still is blurred alike in both, and `Steadier` has seen to it.
        weight *= 1 - find_still(other.cells, frame.cells, shape)
        total += moved * weight[..., None]
        weights = weights + weight
    values = np.clip(total / weights[..., None], 0, np.iinfo(frame.restored.dtype).max)
    averaged: Image = values.round().astype(frame.restored.dtype)
    return averaged
