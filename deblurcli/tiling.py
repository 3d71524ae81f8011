"""Where the tiles of a large image lie, and how much each counts where two overlap: the result
fades from one to the other, so that no seam shows."""

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float32]
"""``(h, w, C)``, or one number for each row or column."""


def plan_spans(length_px: int, tile_px: int, overlap_px: int, alignment_px: int = 1) -> list[slice]:
    """Covers 0 to `length_px` with overlapping spans, as few and as equal as possible, in order.

    Every span starts at a multiple of `alignment_px`, so that a network that works on a coarser
    grid sees the same grid in each tile as in the whole image. Raises ValueError for a length or
    tile below 1 or a negative overlap.

    Args:
        tile_px: how long a span may be; rounded down to a multiple of `alignment_px`, but to
            no less than one.
        overlap_px: what neighbours share at least; rounded up to a multiple of `alignment_px`
            and limited to half a tile.
    """
    if length_px < 1 or tile_px < 1 or overlap_px < 0 or alignment_px < 1:
        raise ValueError("length, tile and alignment must be at least 1, overlap at least 0")
    if length_px <= tile_px:
        return [slice(0, length_px)]
    # From here on in units of the alignment; the last unit of the image may be incomplete.
    units = -(-length_px // alignment_px)
    tile = max(1, tile_px // alignment_px)
    overlap = min(-(-overlap_px // alignment_px), tile // 2)
    count = max(1, -(-(units - overlap) // (tile - overlap)))
    tile = -(-(units + (count - 1) * overlap) // count)
    # Equal steps, rounded down: neighbours then share at least the overlap.
    starts = [i * (units - tile) // (count - 1) if count > 1 else 0 for i in range(count)]
    return [
        slice(start * alignment_px, min((start + tile) * alignment_px, length_px))
        for start in starts
    ]


def blend_weights(spans: list[slice]) -> list[Values]:
    """How much each span counts at each of its pixels, where the weights of all sum to 1. Of what
    two neighbours share, the outer quarters belong to one of them alone, because a network errs
    most where its input ends; over the half between, one fades into the other linearly."""
    total = np.zeros(max(span.stop for span in spans), np.float32)
    ramps: list[Values] = []
    for i, span in enumerate(spans):
        before = spans[i - 1].stop - span.start if i else 0
        after = span.stop - spans[i + 1].start if i + 1 < len(spans) else 0
        ramp = np.ones(span.stop - span.start, np.float32)
        position = np.arange(len(ramp), dtype=np.float32) + 0.5
        for shared, distance in ((before, position), (after, position[::-1])):
            if shared > 0:  # 0 in the first quarter, 1 from the last on
                ramp = np.minimum(ramp, np.clip((distance - shared / 4) / (shared / 2), 0, 1))
        ramps.append(ramp)
        total[span] += ramp
    for ramp, span in zip(ramps, spans, strict=True):
        np.divide(ramp, total[span], out=ramp)
    return ramps
