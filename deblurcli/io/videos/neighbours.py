"""What the frames before and after show better.

Successive frames are blurred differently, and so the errors of their restorations differ: the mean
of three, moved onto each other along the motion between them, is nearer to the truth than one. How
much a neighbour may differ from a frame depends on how much the network changed there: where it
changed nothing, the frame was sharp and stays as it is.
"""

import cv2
import numpy as np

from deblurcli.io.image import Image
from deblurcli.io.videos.steadying import cells_of, find_still

_MATCHED_PX = 640  # longer side of the frames between which motion is looked for
_SMALLEST_PX = 64  # shorter side of a frame in which it is
_UNCHANGED = 0.5  # levels of 255: a frame that the network changes by no more anywhere is sharp
_MEAN = np.full((1, 3), 1 / 3, np.float32)  # of R, G and B


class RestoredFrame:
    """A frame and its restoration, (H, W, 3) uint8 or uint16, as `average` compares them."""

    def __init__(self, blurred: Image, restored: Image) -> None:
        self.blurred, self.restored = blurred, restored
        self.level = np.float32(np.iinfo(restored.dtype).max / 255)
        self.values = restored.astype(np.float32) / self.level
        before = blurred.astype(np.float32) / self.level
        self.cells, changes = cells_of(before), cv2.absdiff(self.values, before)
        self.change = cv2.GaussianBlur(cv2.transform(changes, _MEAN), (0, 0), 10)
        height, width = self.change.shape
        share = min(0.5, _MATCHED_PX / max(height, width))
        size = (max(1, round(width * share)), max(1, round(height * share)))
        small = cv2.resize(self.values, size, interpolation=cv2.INTER_AREA)
        self.luma = cv2.transform(small, _MEAN).astype(np.uint8)


def average(frame: RestoredFrame, *neighbours: RestoredFrame | None) -> Image:
    """The restoration of `frame`, averaged with its neighbours' where they show the same."""
    height, width = frame.change.shape
    if min(height, width) < _SMALLEST_PX or frame.change.max() < _UNCHANGED:
        return frame.restored
    x, y = np.meshgrid(np.arange(width, dtype="f4"), np.arange(height, dtype="f4"))
    scale = np.array((width, height), "f4") / np.array(frame.luma.shape[::-1], "f4")
    total, weights = frame.values.copy(), np.ones_like(frame.change)
    for other in neighbours:
        if other is None or other.values.shape != frame.values.shape:
            continue
        search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        motion = search.calc(frame.luma, other.luma, np.zeros((*frame.luma.shape, 2), np.float32))
        motion = cv2.resize(motion * scale, (width, height), interpolation=cv2.INTER_LINEAR)
        to_x, to_y = x + motion[..., 0], y + motion[..., 1]
        # What would come from outside of the other frame stays what it is in this one.
        filled = (cv2.INTER_CUBIC, frame.values.copy(), cv2.BORDER_TRANSPARENT)
        moved = cv2.remap(other.values, to_x, to_y, *filled)
        apart = cv2.transform(cv2.absdiff(moved, frame.values), _MEAN)
        apart = cv2.GaussianBlur(apart, (0, 0), 4) / (frame.change + np.float32(1e-3))
        # What stands still is blurred alike in both, and `Steadier` has seen to it.
        weight = np.exp(-(apart**2)) * (1 - find_still(other.cells, frame.cells, apart))
        total += moved * weight[..., None]
        weights = weights + weight
    values = np.clip(total / weights[..., None], 0, 255) * frame.level
    averaged: Image = values.round().astype(frame.restored.dtype)
    return averaged
