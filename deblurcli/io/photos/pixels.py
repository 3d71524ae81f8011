"""Between the images that callers hold, NumPy arrays, and the tensors that networks take."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Image = npt.NDArray[Any]
"""``(H, W, 3)`` uint8, uint16 or float32, sRGB."""

_FULL_SCALE = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}


def check_image(image: Image) -> None:
    """Raises TypeError or ValueError, with clear words, for what is not an `Image`."""
    if not isinstance(image, np.ndarray):
        raise TypeError(f"image must be a NumPy array, not {type(image).__name__}")
    if image.dtype.name not in _FULL_SCALE:
        raise TypeError(f"image must be uint8, uint16 or float32, not {image.dtype}")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"image must have shape (H, W, 3) with H, W >= 1, not {image.shape}")
    if image.dtype.kind == "f":
        low, high = float(image.min()), float(image.max())
        if not (low >= 0.0 and high <= 1.0):  # written so that NaN fails, too
            raise ValueError(
                f"float32 values must lie in [0, 1], but go from {low:g} to {high:g}: "
                "divide by 255 or 65535, or clip"
            )


def to_tensor(image: Image) -> Tensor:
    """``(h, w, 3)`` float32 in [0, 1] on the CPU, always a copy."""
    return torch.from_numpy(image.astype(np.float32)).div_(_FULL_SCALE[image.dtype.name])


@torch.inference_mode()  # what a network gives may be changed in place only there
def to_image(values: Tensor, dtype: np.dtype[Any]) -> Image:
    """``(h, w, 3)`` float32, clipped to [0, 1], as `dtype`, rounded to nearest.

    Changes `values`.
    """
    values.clamp_(0.0, 1.0)
    if dtype.kind != "f":
        values.mul_(_FULL_SCALE[dtype.name]).round_()
    return values.numpy().astype(dtype)
