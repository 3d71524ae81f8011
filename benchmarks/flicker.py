"""How much a restored video flickers, compared with its input.

The eye takes it for flicker when a thing changes its brightness or its texture from frame to
frame though it only moves. So both clips are followed along the motion that they share, block
by block, and three numbers are compared, output against input:

- brightness: how much the mean of a block changes from one frame to the next;
- detail: how much its pixels change, divided by how much detail there is (mean gradient). A
  sharper picture changes more at every pixel when it moves by a fraction of one; the division
  takes that out, so that restoring detail costs nothing and losing it gains nothing;
- sharpness: mean gradient of the output over that of the input. Smearing makes it fall below 1,
  in space or, where anything moves, in time; such a clip does not pass however steady it is.

Only blocks whose motion could be found (a good match in the input) count. Everything is
computed on luma, with NumPy alone.

Ratios over a whole clip hide a few blocks that are far off. `measure_static` therefore looks at
each block in which the input stands still, and counts those that change more than it by over a
level of 255: structure that is invented anew in each frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK_PX = 16
REACH_PX = 16
"""Largest motion between frames that is followed, in each direction."""

STATIC = 1.5
"""Levels of 255: what noise is left in an encoded clip changes pixels by no more, in the mean."""

_Array = NDArray[np.float32]
_UNSEEN = 0.5  # levels of 255 below which no change is seen: added to both sides of a ratio
_NOISE = np.float32(10 * BLOCK_PX**2)  # squared gradients that may be noise and tell no motion
_WORST_MATCH = 12.0  # mean difference in levels of 255 above which a match is none


@dataclass(frozen=True)
class Flicker:
    """What `measure` found; each a ratio of output to input, 1 is "as the input".

    Attributes:
        brightness: of the changes of block means.
        detail: of the changes of pixels, relative to detail.
        sharpness: of the mean gradients.
        followed: the share of the input's blocks whose motion could be found.
    """

    brightness: float
    detail: float
    sharpness: float
    followed: float

    def passes(self, limit: float = 1.10) -> bool:
        """Whether it flickers at most `limit` times as much as the input, without smearing."""
        return self.brightness <= limit and self.detail <= limit and self.sharpness >= 1.0


def measure(blurred: Iterable[NDArray[Any]], restored: Iterable[NDArray[Any]]) -> Flicker:
    """Compares the flicker of a restored clip with that of its input.

    Args:
        blurred: the input's frames, (H, W, 3) uint8, in order; at least two.
        restored: the output's frames, of the same number and size.

    Raises:
        ValueError: fewer than two frames, or the motion could not be followed anywhere.
    """
    sums = np.zeros((2, 3))
    followed = blocks = 0
    pairs = zip(map(_luma, blurred), map(_luma, restored), strict=True)
    for (before_in, before_out), (now_in, now_out) in pairwise(pairs):
        # What is blurred says little of its motion: both clips together say where things went.
        before, now = _mean(before_in, before_out), _mean(now_in, now_out)
        places, origins = _follow(before, now)
        motion = _find_fraction(_cut(before, origins), _cut(now, places))
        inside = _lie_inside(now_in, places) & _lie_inside(now_in, origins)
        places, origins, motion = places[inside], origins[inside], motion[inside]
        seen = _compare(before_in, now_in, origins, places, motion)
        made = _compare(before_out, now_out, origins, places, motion)
        good = seen[:, 1] < _WORST_MATCH
        followed, blocks = followed + int(good.sum()), blocks + len(good)
        sums[0] += seen[good].sum(0)
        sums[1] += made[good].sum(0)
    if not followed:
        raise ValueError("no two frames between which motion could be followed")
    (mean_in, pixel_in, gradient_in), (mean_out, pixel_out, gradient_out) = sums / followed
    sharpness = (gradient_out + 1e-9) / (gradient_in + 1e-9)
    return Flicker(
        float((mean_out + _UNSEEN) / (mean_in + _UNSEEN)),
        float((pixel_out / sharpness + _UNSEEN) / (pixel_in + _UNSEEN)),
        float(sharpness),
        followed / blocks,
    )


@dataclass(frozen=True)
class StaticBlocks:
    """What `measure_static` found.

    Attributes:
        count: number of blocks in which the input stands still.
        share: of the clip's blocks.
        worse: share of them that change by over a level more than the input, from frame to frame.
        worst: the largest such difference, in levels of 255.
    """

    count: int
    share: float
    worse: float
    worst: float

    def passes(self, limit: float = 0.01) -> bool:
        """Whether at most that share of the static blocks is worse."""
        return self.worse <= limit


def measure_static(
    blurred: Sequence[NDArray[Any]], restored: Sequence[NDArray[Any]]
) -> StaticBlocks:
    """Looks for blocks that stand still in the input and change in the output.

    A block stands still if its pixels change by less than `STATIC` levels from frame to frame, in
    the mean over the clip: noise is allowed, motion is not.

    Args:
        blurred: the input's frames, (H, W, 3) uint8; at least two, of at least 16×16 pixels.
        restored: the output's.
    """
    changes_in, changes_out = _changes(blurred), _changes(restored)
    static = changes_in < STATIC
    excess = (changes_out - changes_in)[static]
    if not excess.size:
        return StaticBlocks(0, 0.0, 0.0, 0.0)
    worse = float((excess > 1).mean())
    return StaticBlocks(excess.size, float(static.mean()), worse, float(excess.max()))


def _changes(clip: Sequence[NDArray[Any]]) -> _Array:
    """Mean absolute change of each block from frame to frame: (rows, columns)."""
    rows, columns = (side // BLOCK_PX for side in clip[0].shape[:2])
    total = np.zeros((rows, columns), np.float32)
    for before, now in pairwise(map(_luma, clip)):
        change = np.abs(now - before)[: rows * BLOCK_PX, : columns * BLOCK_PX]
        total += change.reshape(rows, BLOCK_PX, columns, BLOCK_PX).mean((1, 3))
    return total / (len(clip) - 1)


def _mean(one: _Array, other: _Array) -> _Array:
    return np.asarray((one + other) / 2, np.float32)


def _luma(frame: NDArray[Any]) -> _Array:
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    return np.asarray(frame @ weights, np.float32)


def _find_fraction(before: _Array, now: _Array) -> _Array:
    """The motion beyond whole pixels of N blocks, (N, 2) pixels, at most one each way.

    By least squares, as Lucas and Kanade, "An iterative image registration technique", 1981.
    """
    down, across = np.gradient((now + before) / 2, axis=(1, 2))
    gradients = np.stack([down, across], -1).reshape(len(now), -1, 2)
    turned = np.swapaxes(gradients, 1, 2)
    squares = turned @ gradients + _NOISE * np.eye(2, dtype=np.float32)
    products = turned @ (now - before).reshape(len(now), -1, 1)
    return np.asarray(np.clip(np.linalg.solve(squares, products)[..., 0], -1, 1), np.float32)


def _compare(
    before: _Array,
    now: _Array,
    origins: NDArray[np.int64],
    places: NDArray[np.int64],
    motion: _Array,
) -> NDArray[np.float64]:
    """Change of the mean, of the pixels, and mean gradient, for each block: (N, 3).

    Both frames are moved half the way, so that interpolation softens them alike.
    """
    half = np.float32(0.5) * motion
    moved = _sample(before, origins, half)
    still = _sample(now, places, -half)
    difference = still - moved
    down, across = np.gradient(still, axis=(1, 2))
    columns = (
        np.abs(difference.mean((1, 2))),
        np.abs(difference).mean((1, 2)),
        np.hypot(down, across).mean((1, 2)),
    )
    return np.stack(columns, 1).astype(np.float64)


def _lie_inside(frame: _Array, places: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which blocks lie so far inside that they can be interpolated."""
    far = np.array(frame.shape) - BLOCK_PX - 3
    return np.asarray(((places >= 2) & (places <= far)).all(1))


def _sample(frame: _Array, places: NDArray[np.int64], motion: _Array) -> _Array:
    """The blocks at `places` + `motion`, interpolated by cubics (Catmull and Rom)."""
    whole = np.floor(motion)
    blocks = _cut(frame, places + whole.astype(np.int64) - 1, BLOCK_PX + 3)
    for axis, t in enumerate((motion - whole).T[..., None, None]):
        weights = (
            t * (-0.5 + t * (1 - 0.5 * t)),
            1 + t * t * (-2.5 + 1.5 * t),
            t * (0.5 + t * (2 - 1.5 * t)),
            t * t * (-0.5 + 0.5 * t),
        )
        parts = (np.take(blocks, range(k, k + BLOCK_PX), 1 + axis) for k in range(4))
        blocks = np.asarray(sum(w * p for w, p in zip(weights, parts, strict=True)), np.float32)
    return blocks


def _follow(before: _Array, now: _Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the blocks of `now` lie, and where they lay in `before`: (N, 2) rows and columns."""
    half_before, half_now = (_halve(frame) for frame in (before, now))
    reach, size = REACH_PX // 2, BLOCK_PX // 2
    height, width = half_now.shape
    rows, columns = (height - 2 * reach) // size, (width - 2 * reach) // size
    if rows < 1 or columns < 1:
        return np.zeros((0, 2), np.int64), np.zeros((0, 2), np.int64)
    inner = half_now[reach : reach + rows * size, reach : reach + columns * size]
    best = np.full((rows, columns), np.inf, np.float32)
    motion = np.zeros((rows, columns, 2), np.int64)
    for down in range(-reach, reach + 1):
        for across in range(-reach, reach + 1):
            moved = half_before[reach + down :, reach + across :]
            cost = np.abs(inner - moved[: inner.shape[0], : inner.shape[1]])
            cost = cost.reshape(rows, size, columns, size).mean((1, 3))
            # Where nothing can be told apart, it did not move.
            cost += 0.01 * (abs(down) + abs(across))
            nearer = cost < best
            best[nearer] = cost[nearer]
            motion[nearer] = (down, across)
    grid = np.indices((rows, columns)).reshape(2, -1).T
    motion = _smooth(motion)
    places = 2 * (reach + size * grid)
    return places, _refine(before, now, places, places + 2 * motion.reshape(-1, 2))


def _smooth(motion: NDArray[np.int64]) -> NDArray[np.int64]:
    """The median of each block's motion and its neighbours': (rows, columns, 2)."""
    padded = np.pad(motion, ((1, 1), (1, 1), (0, 0)), "edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (0, 1))
    return np.asarray(np.median(windows, (3, 4)), np.int64)


def _refine(
    before: _Array, now: _Array, places: NDArray[np.int64], origins: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Improves motion found at half size to whole pixels."""
    patches = _cut(now, places)
    limits = np.array(before.shape) - BLOCK_PX
    best = np.full(len(places), np.inf, np.float32)
    refined = origins.copy()
    for down in (0, -1, 1):
        for across in (0, -1, 1):
            tried = np.clip(origins + np.array((down, across)), 0, limits)
            cost = np.abs(patches - _cut(before, tried)).mean((1, 2))
            nearer = cost < best
            best[nearer] = cost[nearer]
            refined[nearer] = tried[nearer]
    return refined


def _halve(frame: _Array) -> _Array:
    height, width = (n - n % 2 for n in frame.shape)
    return np.asarray(
        frame[:height, :width].reshape(height // 2, 2, width // 2, 2).mean((1, 3)), np.float32
    )


def _cut(frame: _Array, places: NDArray[np.int64], size: int = BLOCK_PX) -> _Array:
    """The blocks whose upper left corners are `places`: (N, size, size)."""
    windows = np.lib.stride_tricks.sliding_window_view(frame, (size, size))
    return np.asarray(windows[places[:, 0], places[:, 1]], np.float32)
