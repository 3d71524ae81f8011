"""How near a restored picture is to the sharp one, in the conventions of the published tables.

All functions take ``(H, W, 3) uint8`` sRGB arrays, leave them untouched, compute in float64 and
return a Python float. They need nothing but NumPy.

Three conventions of SSIM are in use for the same data sets, and they differ by several
hundredths, so each has its own name here and every table says which it holds:

- `ssim`: scikit-image with Gaussian weights and without sample covariance, the mean of the
  three channels. The authors' PyTorch re-release uses it.
- `ssim_matlab_rgb`: MATLAB's ``ssim`` given an RGB image. It takes the three channels for the
  depth of a volume and smooths across them too. The 2017 paper's 0.9135 is this one (so its
  author: SeungjunNah/DeepDeblur_release, issue 51), as are MPRNet's and Restormer's tables.
- `ssim_luminance`: Wang's original index on the grey picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
_Array = NDArray[np.float64]
_Smoothing = Callable[[_Array], _Array]

PSNR_CONVENTION = "PSNR: RGB, 8-bit rounded output, mean of per-image values"
SSIM_CONVENTION = (
    "SSIM: Gaussian weights sigma 1.5, 11x11, no sample covariance, mean over RGB channels "
    "(scikit-image; DeepDeblur-PyTorch)"
)
SSIM_MATLAB_CONVENTION = "SSIM (MATLAB RGB): MATLAB's ssim on the RGB array as a volume"

_SIGMA_PX = 1.5
_RADIUS_PX = 5  # 11x11 window

LEAST_PX = 2 * _RADIUS_PX + 1
"""What both sides of a picture must have for SSIM."""
_C1 = (0.01 * 255) ** 2
_C2 = (0.03 * 255) ** 2


def psnr(restored: Image, sharp: Image) -> float:
    """Peak signal-to-noise ratio in dB over all pixels and channels; inf where they are equal.

    Raises:
        ValueError: the arrays are not uint8 RGB of one size.
    """
    _check(restored, sharp)
    difference = restored.astype(np.float64) - sharp
    squared_error = float(np.mean(np.square(difference)))
    return math.inf if squared_error == 0 else 10 * math.log10(255**2 / squared_error)


def ssim(restored: Image, sharp: Image) -> float:
    """Structural similarity per channel, then the mean: what scikit-image computes with
    ``gaussian_weights=True, use_sample_covariance=False, channel_axis=2``.

    Wang, Bovik, Sheikh, Simoncelli: "Image quality assessment: from error visibility to
    structural similarity", IEEE TIP 2004. Only windows wholly inside the picture count.

    Raises:
        ValueError: the arrays are not uint8 RGB of one size, or smaller than 11 px.
    """
    _check(restored, sharp, at_least_px=LEAST_PX)
    pairs = zip(_planes(restored), _planes(sharp), strict=True)
    return sum(_ssim_mean(a, b, _smooth) for a, b in pairs) / 3


def ssim_luminance(restored: Image, sharp: Image) -> float:
    """Structural similarity of the grey pictures: Wang's ``ssim_index.m`` on ``rgb2gray``.

    Grey is 0.2989 R + 0.5870 G + 0.1140 B rounded to 8 bit, as MATLAB makes it.

    Raises:
        ValueError: the arrays are not uint8 RGB of one size, or smaller than 11 px.
    """
    _check(restored, sharp, at_least_px=LEAST_PX)
    a, b = np.floor(_grey(restored) + 0.5), np.floor(_grey(sharp) + 0.5)
    return _ssim_mean(a, b, _smooth)


def ssim_matlab_rgb(restored: Image, sharp: Image) -> float:
    """MATLAB's ``ssim(restored, sharp)`` on RGB arrays, which it takes for volumes.

    The 11x11x11 Gaussian reaches over the channel axis as well, edges repeat the outermost
    pixel and channel, and every position counts. Not a sensible measure, but the one of the
    2017 paper and of many tables since.

    Raises:
        ValueError: the arrays are not uint8 RGB of one size.
    """
    _check(restored, sharp)
    mixing = _channel_mixing()

    def smooth(volume: _Array) -> _Array:
        planes = np.stack([_smooth(plane) for plane in volume])
        return np.asarray((mixing @ planes.reshape(3, -1)).reshape(planes.shape))

    edges = ((0, 0), (_RADIUS_PX, _RADIUS_PX), (_RADIUS_PX, _RADIUS_PX))
    a, b = (np.pad(_planes(image), edges, mode="edge") for image in (restored, sharp))
    return _ssim_mean(a, b, smooth)


def sharpness(image: Image) -> float:
    """A measure of sharpness that needs no reference, from 0 (blurred) to 1 (sharp).

    One minus the blur effect of Crété, Dolmière, Ladret and Nicolas: "The blur effect:
    perception and estimation with a new no-reference perceptual blur metric" (SPIE 2007), as
    scikit-image computes it (window of 11 px, the blurrier of the two directions): how much of
    the picture's detail a further blur takes away. It rewards noise and halos too, so it is a
    hint beside the other figures and never a score of its own.

    Raises:
        ValueError: the array is not uint8 RGB, or smaller than 4 px.
    """
    _check(image, image, at_least_px=4)
    grey = (image.astype(np.float64) / 255) @ np.array([0.2125, 0.7154, 0.0721])
    return 1 - max(_blur_effect(grey), _blur_effect(np.ascontiguousarray(grey.T)))


def _blur_effect(grey: _Array) -> float:
    """The blur effect along the first axis of an ``(H, W)`` picture."""
    radius = 5
    sums = np.cumsum(np.pad(grey, ((radius + 1, radius), (0, 0)), mode="symmetric"), axis=0)
    blurred = (sums[2 * radius + 1 :] - sums[: -2 * radius - 1]) / (2 * radius + 1)
    inside = (slice(2, -1), slice(2, -1))
    edges, blurred_edges = np.abs(_sobel(grey))[inside], np.abs(_sobel(blurred))[inside]
    total = float(edges.sum())
    lost = float(np.maximum(0, edges - blurred_edges).sum())
    return 1.0 if total == 0 else (total - lost) / total


def _sobel(grey: _Array) -> _Array:
    padded = np.pad(grey, 1, mode="symmetric")
    steps = padded[2:] - padded[:-2]
    return (steps[:, :-2] + 2 * steps[:, 1:-1] + steps[:, 2:]) / 4


def _grey(image: Image) -> _Array:
    weights = np.array([0.2989, 0.5870, 0.1140])
    return np.asarray(image.astype(np.float64) @ weights)


def _planes(image: Image) -> _Array:
    """(3, H, W)"""
    return np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float64)


def _ssim_mean(a: _Array, b: _Array, smooth: _Smoothing) -> float:
    mean_a, mean_b = smooth(a), smooth(b)
    product = mean_a * mean_b
    squares = mean_a * mean_a + mean_b * mean_b
    covariance = smooth(a * b) - product
    variances = smooth(a * a + b * b) - squares
    numerator = (2 * product + _C1) * (2 * covariance + _C2)
    return float(np.mean(numerator / ((squares + _C1) * (variances + _C2))))


def _gaussian() -> _Array:
    distances = np.arange(-_RADIUS_PX, _RADIUS_PX + 1)
    weights = np.exp(-0.5 * (distances / _SIGMA_PX) ** 2)
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def _channel_mixing() -> _Array:
    """(3, 3): the share of each channel in a Gaussian along a channel axis of length 3 whose
    ends are repeated."""
    mixing = np.zeros((3, 3))
    for channel in range(3):
        for offset, weight in enumerate(_gaussian(), start=-_RADIUS_PX):
            mixing[channel, min(max(channel + offset, 0), 2)] += weight
    return mixing


def _smooth(plane: _Array) -> _Array:
    """Gaussian smoothing, windows inside the plane only: ``(H, W)`` to ``(H - 10, W - 10)``."""
    return _smooth_rows(_smooth_rows(plane).T).T


def _smooth_rows(plane: _Array) -> _Array:
    # One multiplication by a banded matrix per 64 rows: BLAS does the six-fold superfluous
    # work several times faster than NumPy sums eleven shifted copies.
    block = 64
    kernel = _gaussian()
    band = np.zeros((block, block + 2 * _RADIUS_PX))
    for row in range(block):
        band[row, row : row + kernel.size] = kernel
    rows = plane.shape[0] - 2 * _RADIUS_PX
    smoothed = np.empty((rows, plane.shape[1]))
    for start in range(0, rows, block):
        count = min(block, rows - start)
        source = plane[start : start + count + 2 * _RADIUS_PX]
        smoothed[start : start + count] = band[:count, : count + 2 * _RADIUS_PX] @ source
    return smoothed


def _check(a: Image, b: Image, at_least_px: int = 1) -> None:
    for image in (a, b):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"(H, W, 3) uint8 wanted, not {image.shape} {image.dtype}")
    if a.shape != b.shape:
        raise ValueError(f"pictures of one size wanted, not {a.shape} and {b.shape}")
    if min(a.shape[:2]) < at_least_px:
        raise ValueError(f"at least {at_least_px} px a side wanted, not {a.shape}")
