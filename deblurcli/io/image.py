"""Images as arrays: what photos and frames of videos have in common."""

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[Any]
"""``(H, W, 3)`` uint8, uint16 or float32, sRGB."""


def to_uint8(values: NDArray[Any]) -> NDArray[np.uint8]:
    """16-bit values rounded to 8 bits; 8-bit ones as they are."""
    if values.dtype == np.uint8:
        return values
    result = np.empty(values.shape, np.uint8)
    for row, rounded in zip(values, result, strict=True):  # so that little is held twice
        rounded[:] = (row.astype(np.uint32) + 128) // 257
    return result


def chunk_bytes(kind: bytes, data: bytes | bytearray) -> bytes:
    """A chunk as it lies in a file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
