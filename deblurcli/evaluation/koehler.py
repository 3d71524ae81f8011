"""Köhler's benchmark of camera shake: 48 blurred pictures, about 199 sharp frames for each.

R. Köhler, M. Hirsch, B. Mohler, B. Schölkopf, S. Harmeling: "Recording and playback of camera
shake: benchmarking blind deconvolution with a real-world database" (ECCV 2012). The sharp frames
are the scene from every point of the camera's path. A restored picture is compared with each of
them, brought to its brightness and shifted onto it first, and the best PSNR counts.

Layout, as its archives unpack: ``Blurry1_1.png`` … ``Blurry4_12.png`` and
``Image1/Kernel1/GroundTruth1_1_1.png`` …
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from natsort import natsorted
from numpy.typing import NDArray

from deblurcli.errors import DeblurError

Image = NDArray[np.uint8]

_BLURRED = re.compile(r"Blurry(\d+)_(\d+)\.png", re.IGNORECASE)


@dataclass(frozen=True)
class Shot:
    """One blurred picture with the frames along the camera's path.

    Attributes:
        name: ``"1_12"``: scene and path.
        blurred: the file.
        frames: the sharp files in order; their numbers end their names.
    """

    name: str
    blurred: Path
    frames: tuple[Path, ...]


@dataclass(frozen=True)
class Match:
    """The sharp frame nearest to a restored picture.

    Attributes:
        frame: its place among the frames, from 0.
        psnr_db: by the benchmark's definition.
        restored, sharp: ``(h, w, 3) uint8``, where the two overlap, aligned, the restored one at
            the brightness of the sharp one.
    """

    frame: int
    psnr_db: float
    restored: Image
    sharp: Image


def find_shots(root: Path) -> list[Shot]:
    """The pictures of the benchmark below `root`; empty where this is another data set.

    Raises:
        DeblurError: a blurred picture has no sharp frames.
    """
    blurred = [path for path in root.rglob("*.png") if _BLURRED.fullmatch(path.name)]
    return [_shot(root, path) for path in natsorted(blurred)]


def _shot(root: Path, blurred: Path) -> Shot:
    match = _BLURRED.fullmatch(blurred.name)
    assert match
    scene, path = match.groups()
    pattern = f"**/Image{scene}/Kernel{path}/GroundTruth{scene}_{path}_*.png"
    frames = natsorted(root.glob(pattern))
    if (scene, path) == ("1", "3"):
        # The benchmark's own script leaves these out: one of them is missing there.
        frames = [f for f in frames if _number(f) != 30 and _number(f) <= 198]
    if not frames:
        raise DeblurError(
            blurred,
            f"has no sharp frames (Image{scene}/Kernel{path}/GroundTruth{scene}_{path}_1.png …)",
            "unpack the archives GroundTruth_pngs_Image1.zip … into the same folder",
        )
    return Shot(f"{scene}_{path}", blurred, tuple(frames))


def _number(frame: Path) -> int:
    return int(frame.stem.rpartition("_")[2])


def match_frames(restored: Image, frames: Iterable[Image]) -> Match:
    """The best of `frames` by PSNR.

    For each frame x and restored picture z: z is scaled by <x, z> / <z, z>, shifted by the whole
    pixels at which the cross-correlation of the two (means over the channels) peaks, what
    the shift left empty is black in both, and PSNR is that of the grey pictures
    (0.299 R + 0.587 G + 0.114 B, not rounded) over the whole area.

    Args:
        restored: ``(H, W, 3) uint8``.
        frames: likewise, of the same size.

    Raises:
        ValueError: no frames, or frames of another size.
    """
    values = restored.astype(np.float64)
    power = float(np.vdot(values, values))
    spectrum = np.conj(np.fft.rfft2(values.mean(axis=2)))
    best: tuple[float, int, Image, float, tuple[int, int]] | None = None
    for index, frame in enumerate(frames):
        if frame.shape != restored.shape:
            raise ValueError(f"frames of {restored.shape} wanted, not {frame.shape}")
        sharp = frame.astype(np.float64)
        scale = float(np.vdot(sharp, values)) / power if power else 1.0
        shift = _shift_px(np.fft.rfft2(sharp.mean(axis=2)) * spectrum, restored.shape[:2])
        error = np.zeros(restored.shape[:2])
        there, here = _overlap(restored.shape[:2], shift)
        error[there] = (sharp[there] - scale * values[here]) @ np.array([0.299, 0.587, 0.114])
        squared_error = float(np.mean(error**2))
        psnr_db = math.inf if squared_error == 0 else 10 * math.log10(255**2 / squared_error)
        if best is None or psnr_db > best[0]:
            best = (psnr_db, index, frame, scale, shift)
    if best is None:
        raise ValueError("at least one frame wanted")
    psnr_db, index, frame, scale, shift = best
    there, here = _overlap(restored.shape[:2], shift)
    bright = np.clip(np.rint(values[here] * scale), 0, 255).astype(np.uint8)
    return Match(index, psnr_db, bright, np.ascontiguousarray(frame[there]))


def _shift_px(cross_spectrum: NDArray[np.complex128], size: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns to shift the restored picture by."""
    height, width = size
    correlation = np.fft.irfft2(cross_spectrum, s=(height, width))
    row, column = divmod(int(np.argmax(np.abs(correlation))), width)
    return (
        row - height if row > height // 2 else row,
        column - width if column > width // 2 else column,
    )


def _overlap(
    size: tuple[int, ...], shift_px: tuple[int, int]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where the shifted picture lies in the frame, and which part of it that is."""
    there, here = [], []
    for length, shift in zip(size, shift_px, strict=True):
        there.append(slice(max(shift, 0), length + min(shift, 0)))
        here.append(slice(max(-shift, 0), length - max(shift, 0)))
    return (there[0], there[1]), (here[0], here[1])
