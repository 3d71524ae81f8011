"""A picture as its file holds it, and how that file was encoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Picture:
    """The samples of a picture, upright, in its own colour space.

    Attributes:
        samples: ``(H, W, C)`` uint8 or uint16; C = 1 (grey), 3 (RGB), 4 (CMYK, 0 = no ink).
        alpha: ``(H, W)`` of the same dtype, not multiplied into the samples; None if opaque.
        icc: the ICC profile of the samples; None is sRGB, or plain grey or CMYK.
    """

    samples: npt.NDArray[Any]
    alpha: npt.NDArray[Any] | None = None
    icc: bytes | None = None


@dataclass(frozen=True)
class Encoding:
    """How a file was encoded, for the result to be encoded alike or better.

    Attributes:
        tables: JPEG quantisation tables, for luma and chroma, in Pillow's order.
        subsampling: of JPEG, in Pillow's numbers: 0 is 4:4:4, 1 is 4:2:2, 2 is 4:2:0.
        chroma: of HEIC, ``"420"``, ``"422"`` or ``"444"``.
        progressive: of JPEG.
        lossless: of WebP.
        compression: the number TIFF has for it.
        colour: HEIC's own description of its colours (nclx), where it has no ICC profile.
    """

    tables: tuple[tuple[int, ...], ...] = ()
    subsampling: int = 0
    chroma: str = "420"
    progressive: bool = False
    lossless: bool = False
    compression: int | None = None
    colour: dict[str, Any] | None = None
