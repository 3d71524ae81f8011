"""How blurred a photo is, and whether restoring helps: the network's own answer on a few parts.

What is sharp the network leaves nearly as it is; in what is blurred by motion it redraws the
edges. How much it changes the gradients, relative to those that are there, tells the two apart far
better than how strong they are, which depends on the subject (measured in docs/command-line.md).
"""

import math
import tempfile
import time
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deblurcli.batch.plan import Job
from deblurcli.deblurrer import Deblurrer
from deblurcli.io.image import Image
from deblurcli.io.options import ClipOptions

SLIGHT, BLURRED = 0.24, 0.30
"""Changes from which on a photo counts as slightly blurred, and as blurred."""

# The median change of 14 photos that were blurred along straight lines of so many pixels, in random
# directions and linear light, with a little noise, and restored by the shipped network. Longer
# blur changes no more: 0.76 at 24 px.
_BLUR_PX = (0, 1, 2, 3, 4, 6, 8)
_CHANGES = (0.02, 0.08, 0.22, 0.31, 0.45, 0.68, 0.78)

_PARTS = 4
_MAX_SHARE = 0.1  # of the picture's pixels, which is about the share of the time
_MIN_SIDE_PX, _MAX_SIDE_PX = 96, 160
_BORDER_PX = 16  # near its edge a part shows the network too little


@dataclass(frozen=True)
class BlurEstimate:
    """What the network says of a photo.

    Attributes:
        change: root mean square of what it changes in the gradients, relative to that of the
            gradients; below 0.2 for sharp photos, 0.3 to 1.6 for blurred ones.
        blur_px: the length of motion blur at which photos change so much; 8 is 8 or more.
    """

    change: float
    blur_px: float

    @property
    def is_sharp(self) -> bool:
        """Whether it is best left alone."""
        return self.change < SLIGHT

    @property
    def verdict(self) -> str:
        if self.is_sharp:
            return "sharp"
        return "slightly blurred" if self.change < BLURRED else "blurred"

    def to_json(self) -> dict[str, float | str]:
        numbers = {"change": round(self.change, 3), "blur_px": round(self.blur_px, 1)}
        return {"verdict": self.verdict, **numbers}


def estimate_blur(deblurrer: Deblurrer, image: Image) -> BlurEstimate:
    """Restores the parts of a photo with the strongest gradients, and looks at the change.

    The estimate is the mean of the two parts that change most, as moving objects may be small. The
    deblurrer's strength and ensemble do not matter. Takes and raises what `restore` does.
    """
    height, width = image.shape[:2]
    if min(height, width) <= _BORDER_PX:  # there are no edges to judge by
        return BlurEstimate(0.0, 0.0)
    side = math.isqrt(int(height * width * _MAX_SHARE / _PARTS)) // 16 * 16
    side = min(max(side, _MIN_SIDE_PX), _MAX_SIDE_PX)
    rows, columns = min(side, height), min(side, width)
    scale = 255.0 if image.dtype.kind == "f" else 255.0 / np.iinfo(image.dtype).max
    strengths: list[tuple[float, int, int]] = []
    for top in range(0, height - rows + 1, rows // 2):
        across = np.abs(_gradients(image[top : top + rows], scale)).mean(axis=(0, 1))
        for left in range(0, width - columns + 1, columns // 2):
            strengths.append((float(across[left : left + columns].mean()), top, left))
    chosen: list[tuple[int, int]] = []
    for _, top, left in sorted(strengths, reverse=True):
        if all(abs(top - y) >= rows or abs(left - x) >= columns for y, x in chosen):
            chosen.append((top, left))
        if len(chosen) == _PARTS:
            break
    plain, changes = copy(deblurrer), []
    plain.strength, plain.ensemble = 1.0, 1
    for top, left in chosen:
        part = image[top : top + rows, left : left + columns]
        blurred = part.astype(np.float32) * np.float32(scale / 255)  # floats are not rounded
        restored = plain.restore(blurred)
        border = [_BORDER_PX if length > 3 * _BORDER_PX else 0 for length in (rows, columns)]
        inner = np.s_[border[0] : rows - border[0], border[1] : columns - border[1]]
        before, after = (_gradients(whole[inner], 255.0) for whole in (blurred, restored))
        # The 1 keeps the noise of empty areas from being taken for edges.
        changes.append(_rms(after - before) / (_rms(before) + 1.0))
    change = float(np.mean(sorted(changes)[-2:]))
    return BlurEstimate(change, float(np.interp(change, _CHANGES, _BLUR_PX)))


def _gradients(part: Image, scale: float) -> NDArray[np.float32]:
    """``(2, h - 1, w - 1)`` differences of the luma, 0 to 255, to the right and downwards."""
    luma = part.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32) * np.float32(scale)
    return np.stack([np.diff(luma, axis=1)[:-1], np.diff(luma, axis=0)[:, :-1]])


def _rms(values: NDArray[np.float32]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


@dataclass(frozen=True)
class ClipEstimate:
    """What restoring a video will take, about: `seconds` here, and bytes of the result."""

    frames: int
    size_bytes: int
    seconds: float


def estimate_clip(deblurrer: Deblurrer, job: Job, wishes: ClipOptions) -> ClipEstimate | None:
    """Encodes two seconds from the middle of a video, and times the network on a frame of its size;
    None where the video does not say how long it is."""
    from deblurcli.io import videos  # takes its time, and most runs hold none

    assert job.source is not None and job.target is not None
    info, begin = videos.probe(job.source), wishes.start or 0.0
    if info.seconds is None or info.frame_count is None:
        return None
    end = info.seconds if wishes.end is None else min(wishes.end, info.seconds)
    middle = (begin + end) / 2
    frame = np.random.default_rng(0).integers(0, 256, (info.height, info.width, 3), np.uint8)
    with tempfile.TemporaryDirectory(prefix="deblur-") as folder:
        sample = Path(folder, f"sample{job.target.suffix}")
        part = replace(wishes, start=max(begin, middle - 1), end=min(end, middle + 1))
        encoded = videos.restore_video(job.source, sample, lambda frame: frame, part).frame_count
        size_bytes = sample.stat().st_size
    deblurrer.restore(frame)  # the first one also warms up
    start = time.perf_counter()
    deblurrer.restore(frame)
    seconds = time.perf_counter() - start
    frames = max(1, round(info.frame_count * (end - begin) / info.seconds))
    return ClipEstimate(frames, round(size_bytes * frames / encoded), seconds * frames)
