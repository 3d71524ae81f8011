"""ICC profiles: through littlecms, and computed here where its 8 bits don't do.

Through Pillow, littlecms converts 8-bit pictures only. Nearly every RGB working space (Adobe
RGB, Display P3, ProPhoto, Rec. 2020) is three curves and a matrix; for 16-bit pictures these
are computed here.

Source: ICC.1:2022, sections 8.3.3 (matrix profiles), 10.6 (curve), 10.18 (parametric curve),
annex F.3 (the model); the matrix of sRGB relative to D50 is that of ICC's own sRGB profile.
"""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

_SRGB_TO_PCS = np.array(
    [
        [0.43606567, 0.38514709, 0.14306641],
        [0.22248840, 0.71687317, 0.06060791],
        [0.01391602, 0.09707642, 0.71409607],
    ]
)


class Transforms:
    """A profile's conversions to and from sRGB by littlecms, for 8-bit arrays.

    Relative colorimetric with black point compensation, as photo software does by default.

    Raises:
        ValueError: littlecms can't use the profile for samples of `mode` (L, RGB or CMYK).
    """

    def __init__(self, profile: bytes, mode: str) -> None:
        from PIL import ImageCms

        space = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}[mode]
        try:
            native = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if native.profile.xcolor_space.strip() != space:
                raise ValueError(f"the profile is not for {mode}")
            srgb = ImageCms.createProfile("sRGB")
            options: dict[str, Any] = {
                "renderingIntent": ImageCms.Intent.RELATIVE_COLORIMETRIC,
                "flags": ImageCms.Flags.BLACKPOINTCOMPENSATION,
            }
            self._forth = ImageCms.buildTransform(native, srgb, mode, "RGB", **options)
            if mode != "L":
                self._back = ImageCms.buildTransform(srgb, native, "RGB", mode, **options)
        except (ImageCms.PyCMSError, OSError, TypeError) as error:
            raise ValueError(f"littlecms can't use the profile: {error}") from error

    def to_srgb(self, native: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return self._apply(self._forth, native)

    def from_srgb(self, srgb: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return self._apply(self._back, srgb)

    @staticmethod
    def _apply(transform: Any, samples: npt.NDArray[Any]) -> npt.NDArray[Any]:
        from PIL import Image

        mode = {1: "L", 3: "RGB", 4: "CMYK"}[samples.shape[2]]
        flat = samples[..., 0] if mode == "L" else samples
        height, width = samples.shape[:2]
        image = Image.frombytes(mode, (width, height), np.ascontiguousarray(flat).tobytes())
        return np.asarray(transform.apply(image))


class MatrixProfile:
    """The colours of a matrix profile, to and from sRGB, for 16-bit samples.

    Args:
        profile: an ICC profile's bytes.

    Raises:
        ValueError: it is not an RGB matrix profile, or damaged.
    """

    def __init__(self, profile: bytes) -> None:
        tags = _read_tags(profile)
        if profile[16:20] != b"RGB " or profile[20:24] != b"XYZ " or b"A2B0" in tags:
            raise ValueError("not an RGB matrix profile")
        try:
            columns = [_read_xyz(tags[name]) for name in (b"rXYZ", b"gXYZ", b"bXYZ")]
            curves = [_read_curve(tags[name]) for name in (b"rTRC", b"gTRC", b"bTRC")]
        except (KeyError, struct.error) as error:
            raise ValueError("not an RGB matrix profile") from error
        if not np.isfinite(curves).all() or abs(np.linalg.det(np.array(columns))) < 1e-6:
            raise ValueError("damaged profile")
        self._curves = [np.maximum.accumulate(curve).astype(np.float32) for curve in curves]
        self._to_srgb = (np.linalg.inv(_SRGB_TO_PCS) @ np.array(columns).T).astype(np.float32)
        self._from_srgb = np.linalg.inv(self._to_srgb).astype(np.float32)

    def to_srgb(self, native: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
        """``(H, W, 3)`` samples of the profile as sRGB, clipped to its gamut."""
        linear = np.stack([self._curves[c][native[..., c]] for c in range(3)], axis=-1)
        encoded = _encode_srgb(np.clip(linear @ self._to_srgb.T, 0, 1))
        return np.rint(encoded * 65535).astype(np.uint16)

    def from_srgb(self, srgb: npt.NDArray[np.uint16]) -> FloatArray:
        """``(H, W, 3)`` sRGB samples in the profile, unrounded, in [0, 65535]."""
        linear = np.clip(_decode_srgb()[srgb] @ self._from_srgb.T, 0, 1)
        samples = np.arange(65536, dtype=np.float32)
        channels = [np.interp(linear[..., c], self._curves[c], samples) for c in range(3)]
        return np.stack(channels, axis=-1).astype(np.float32)


def _encode_srgb(linear: FloatArray) -> FloatArray:
    curved = 1.055 * np.power(np.maximum(linear, 0.0031308), np.float32(1 / 2.4)) - 0.055
    return np.where(linear <= 0.0031308, 12.92 * linear, curved).astype(np.float32)


def _decode_srgb() -> FloatArray:
    encoded = np.linspace(0, 1, 65536)
    curved = ((encoded + 0.055) / 1.055) ** 2.4
    return np.where(encoded <= 0.04045, encoded / 12.92, curved).astype(np.float32)


def _read_tags(profile: bytes) -> dict[bytes, bytes]:
    try:
        (count,) = struct.unpack_from(">I", profile, 128)
        entries = [
            struct.unpack_from(">4sII", profile, 132 + 12 * i) for i in range(min(count, 200))
        ]
    except struct.error as error:
        raise ValueError("damaged profile") from error
    return {name: profile[start : start + size] for name, start, size in entries}


def _read_xyz(data: bytes) -> tuple[float, float, float]:
    x, y, z = struct.unpack_from(">3i", data, 8)
    return x / 65536, y / 65536, z / 65536


def _read_curve(data: bytes) -> npt.NDArray[np.float64]:
    """A tone curve at 65536 evenly spaced places, from [0, 1] to [0, 1]."""
    x = np.linspace(0, 1, 65536)
    if data[:4] == b"curv":
        (count,) = struct.unpack_from(">I", data, 8)
        if count == 0:
            return x
        values = struct.unpack_from(f">{count}H", data, 12)
        if count == 1:
            power: npt.NDArray[np.float64] = x ** (values[0] / 256)
            return power
        sampled: npt.NDArray[np.float64] = np.interp(
            x, np.linspace(0, 1, count), np.array(values) / 65535
        )
        return sampled
    if data[:4] == b"para":
        (kind,) = struct.unpack_from(">H", data, 8)
        lengths = (1, 3, 4, 5, 7)
        if kind < len(lengths):
            numbers = [v / 65536 for v in struct.unpack_from(f">{lengths[kind]}i", data, 12)]
            return np.clip(_parametric_curve(x, kind, numbers), 0, 1)
    raise ValueError("a tone curve of unknown kind")


def _parametric_curve(
    x: npt.NDArray[np.float64], kind: int, numbers: list[float]
) -> npt.NDArray[np.float64]:
    g, a, b, c, d, e, f = (*numbers, *[0.0] * (7 - len(numbers)))
    if kind == 0:
        a, d = 1.0, -1.0
    elif kind in (1, 2):
        c, d, e, f = 0.0, -b / (a or 1.0), c, c
    with np.errstate(all="ignore"):  # a damaged curve is found out by its values
        power = np.maximum(a * x + b, 0) ** g + e
    return np.where(x >= d, power, c * x + f)
