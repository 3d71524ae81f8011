"""Köhler's benchmark of camera shake: 48 blurred pictures, about 199 sharp frames for each.

R. Köhler, M. Hirsch, B. Mohler, B. Schölkopf, S. Harmeling: "Recording and playback of camera
shake: benchmarking blind deconvolution with a real-world database" (ECCV 2012). The sharp frames
are the scene from every point of the camera's path. A restored picture is compared with each of
them, brought to its brightness and shifted onto it first, and the best PSNR counts.

Layout, as its archives unpack: ``Blurry1_1.png`` … ``Blurry4_12.png`` and
``Image1/Kernel1/GroundTruth1_1_1.png`` …
"""

import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from natsort import natsorted

from deblurcli.errors import DeblurError
from deblurcli.evaluation.metrics import MSSIM_MIN_PX, Metric, decibels, mssim
from deblurcli.io.image import Image

_GREY = np.array([0.299, 0.587, 0.114])
_BLURRED = re.compile(r"Blurry(\d+)_(\d+)\.png", re.IGNORECASE)

CONVENTION = (
    "Köhler: PSNR and MSSIM (multi-scale SSIM, MeTriX MuX) by the benchmark's scripts: grey, "
    "best of the sharp frames after scaling and shifting; other figures on the overlap with "
    "the frame of the best PSNR"
)


def score(restored: Image, sharp: Iterable[Image], metrics: Sequence[Metric]) -> dict[str, float]:
    """The figures by the protocol of the benchmark's own scripts.

    For each frame x and restored picture z: z is scaled by <x, z> / <z, z>, shifted by the whole
    pixels at which the cross-correlation of the two (means over the channels) peaks, and what
    the shift left empty is black in both. PSNR and MSSIM are those of the grey pictures
    (0.299 R + 0.587 G + 0.114 B, not rounded) over the whole area, each of its best frame. The
    other metrics are taken where the two overlap, of the frame with the best PSNR, whose number
    is ``frame``, from 1.

    Raises ValueError for frames of another size.
    """
    values = restored.astype(np.float64)
    power = float(np.vdot(values, values))
    spectrum = np.conj(np.fft.rfft2(values.mean(axis=2)))
    # PSNR alone must work without SciPy, which MSSIM needs.
    with_mssim = len(metrics) > 1 and min(values.shape[:2]) >= MSSIM_MIN_PX
    best: dict[str, float] = {"psnr_db": -math.inf}
    overlap = (restored, restored)
    for number, frame in enumerate(sharp, start=1):
        if frame.shape != restored.shape:
            raise ValueError(f"frames of {restored.shape} wanted, not {frame.shape}")
        truth = frame.astype(np.float64)
        scaled = values * (float(np.vdot(truth, values)) / power if power else 1.0)
        product = np.fft.rfft2(truth.mean(axis=2)) * spectrum
        correlation = np.fft.irfft2(product, s=restored.shape[:2])
        peak = np.unravel_index(np.argmax(np.abs(correlation)), correlation.shape)
        # Where the shifted picture lies in the frame, and which part of it that is.
        there, here = [], []
        for place, length in zip(map(int, peak), correlation.shape, strict=True):
            shift = place - length if place > length // 2 else place
            there.append(slice(max(shift, 0), length + min(shift, 0)))
            here.append(slice(max(-shift, 0), length - max(shift, 0)))
        grey = np.zeros((2, *correlation.shape))
        grey[0][tuple(there)] = scaled[tuple(here)] @ _GREY
        grey[1][tuple(there)] = truth[tuple(there)] @ _GREY
        psnr_db = decibels(float(np.mean((grey[0] - grey[1]) ** 2)))
        if psnr_db > best["psnr_db"]:
            best |= {"psnr_db": psnr_db, "frame": float(number)}
            bright = np.clip(np.rint(scaled[tuple(here)]), 0, 255).astype(np.uint8)
            overlap = bright, np.ascontiguousarray(frame[tuple(there)])
        if with_mssim:
            best["mssim"] = max(best.get("mssim", 0.0), mssim(*grey))
    others = (metric for metric in metrics if metric.name != "psnr_db")
    return best | {metric.name: metric.measure(*overlap) for metric in others}


def find_shots(root: Path) -> dict[Path, tuple[Path, ...]]:
    """The blurred pictures of the benchmark below `root`, each with its sharp frames in order;
    empty where this is another data set. Raises DeblurError for a picture without frames."""
    shots = {}
    for blurred in natsorted(root.rglob("*.png")):
        if not (match := _BLURRED.fullmatch(blurred.name)):
            continue
        scene, path = match.groups()
        first = f"Image{scene}/Kernel{path}/GroundTruth{scene}_{path}_"
        frames = natsorted(root.glob(f"**/{first}*.png"))
        if (scene, path) == ("1", "3"):
            # The benchmark's own script leaves these out: one of them is missing there.
            left_out = {30, *range(199, 1000)}
            frames = [f for f in frames if int(f.stem.rpartition("_")[2]) not in left_out]
        if not frames:
            remedy = "unpack the archives GroundTruth_pngs_Image1.zip … into the same folder"
            raise DeblurError(blurred, f"has no sharp frames ({first}1.png …)", remedy)
        shots[blurred] = tuple(frames)
    return shots
