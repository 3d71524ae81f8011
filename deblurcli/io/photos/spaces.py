"""The colour spaces that photos come in, each with its way to sRGB and back; see `colour`."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from deblurcli.io.photos.icc import MatrixProfile, Transforms

Samples = npt.NDArray[Any]
"""``(H, W, C)`` uint8 or uint16, C = 1 (grey), 3 (RGB) or 4 (CMYK, 0 = no ink)."""

_BAND_PIXELS = 1 << 19


class ColourSpace(Protocol):
    """A photo's colour space. Both methods take bands of rows and give new arrays."""

    def to_srgb(self, native: Samples) -> Samples:
        """Samples as ``(H, W, 3)`` sRGB of the same dtype."""

    def transfer(self, native: Samples, blurred: Samples, restored: Samples) -> Samples:
        """`native` with the change from `blurred` to `restored`, both ``(H, W, 3)`` sRGB."""


class Srgb:
    """sRGB itself."""

    def to_srgb(self, native: Samples) -> Samples:
        return native

    def transfer(self, native: Samples, blurred: Samples, restored: Samples) -> Samples:
        return restored


class Neutral:
    """RGB that holds only greys, as black-and-white photos mostly come: it stays without tint."""

    def to_srgb(self, native: Samples) -> Samples:
        return native

    def transfer(self, native: Samples, blurred: Samples, restored: Samples) -> Samples:
        return np.repeat(_mean(restored)[..., None], 3, axis=2)


class Grey:
    """One channel, with the tone curve of its profile or that of sRGB.

    Args:
        curve: sRGB values, from 0 to 1, of evenly spaced grey values; None for sRGB's own.
    """

    def __init__(self, curve: npt.NDArray[np.float64] | None = None) -> None:
        self._curve = curve

    def to_srgb(self, native: Samples) -> Samples:
        grey = native[..., 0]
        if self._curve is not None:
            top = np.iinfo(native.dtype).max
            places = np.linspace(0, 1, len(self._curve))
            table = np.interp(np.linspace(0, 1, top + 1), places, self._curve)
            grey = np.rint(table * top).astype(native.dtype)[grey]
        return np.repeat(grey[..., None], 3, axis=2)

    def transfer(self, native: Samples, blurred: Samples, restored: Samples) -> Samples:
        change = self._from_srgb(_mean(restored)) - self._from_srgb(_mean(blurred))
        return _add(native, change[..., None])

    def _from_srgb(self, grey: Samples) -> npt.NDArray[np.float32]:
        top = np.iinfo(grey.dtype).max
        table = np.arange(top + 1, dtype=np.float64)
        if self._curve is not None:
            places = np.linspace(0, top, len(self._curve))
            table = np.interp(table / top, self._curve, places)
        return table.astype(np.float32)[grey]


class IccRgb:
    """RGB with an ICC profile, 8 bits, through littlecms."""

    def __init__(self, transforms: Transforms) -> None:
        self._transforms = transforms

    def to_srgb(self, native: Samples) -> Samples:
        return self._transforms.to_srgb(native)

    def transfer(self, native: Samples, blurred: Samples, restored: Samples) -> Samples:
        before = self._transforms.from_srgb(blurred).astype(np.int16)
        return _add(native, self._transforms.from_srgb(restored) - before)


class MatrixRgb:
    """RGB with a matrix profile, 16 bits."""

    def __init__(self, profile: MatrixProfile) -> None:
        self._profile = profile

    def to_srgb(self, native: Samples) -> Samples:
        return self._profile.to_srgb(native)

    def transfer(self, native: Samples, blurred: Samples, restored: Samples) -> Samples:
        return _add(native, self._profile.from_srgb(restored) - self._profile.from_srgb(blurred))


class IccCmyk:
    """CMYK with an ICC profile, 8 bits.

    The profile turns a change of colour into changes of all four inks by its own black
    generation. Where the photo splits black otherwise (text in black ink only, say), inks hit
    0 or 255 and the change falls short; carrying over what is still missing, from where the
    inks now are, closes the gap after a few rounds. The photo's own split is kept as far as
    the colour allows.
    """

    _ROUNDS = 4

    def __init__(self, transforms: Transforms) -> None:
        self._transforms = transforms

    def to_srgb(self, native: Samples) -> Samples:
        return self._transforms.to_srgb(native)

    def transfer(self, native: Samples, blurred: Samples, restored: Samples) -> Samples:
        inks, wanted = native, self._transforms.from_srgb(restored)
        for round_ in range(self._ROUNDS):
            now = blurred if round_ == 0 else self._transforms.to_srgb(inks)
            before = self._transforms.from_srgb(now).astype(np.int16)
            inks = _add(inks, wanted - before)
        changed = (restored != blurred).any(axis=2, keepdims=True)
        return np.where(changed, inks, native)


class PlainCmyk:
    """CMYK without a profile: each channel of RGB is what its ink and the black let through.

    The share of black ink in a pixel's darkness stays as it is.
    """

    def to_srgb(self, native: Samples) -> Samples:
        light = (255 - native[..., :3].astype(np.uint16)) * (
            255 - native[..., 3:].astype(np.uint16)
        )
        return ((light + 127) // 255).astype(np.uint8)

    def transfer(self, native: Samples, blurred: Samples, restored: Samples) -> Samples:
        black = native[..., 3].astype(np.float32) / 255
        darkness = 1 - blurred.max(axis=2).astype(np.float32) / 255
        share = np.divide(black, darkness, out=np.zeros_like(black), where=darkness > 0)
        wanted = restored.astype(np.float32) / 255
        black = np.clip(share, 0, 1) * (1 - wanted.max(axis=2))
        paper = np.maximum(1 - black, 1e-6)[..., None]
        inks = np.concatenate([1 - np.minimum(wanted / paper, 1), black[..., None]], axis=2)
        changed = (restored != blurred).any(axis=2, keepdims=True)
        return np.where(changed, np.rint(inks * 255).astype(np.uint8), native)


class InEightBits:
    """A colour space that knows 8 bits only, used for 16-bit samples."""

    def __init__(self, space: ColourSpace) -> None:
        self._space = space

    def to_srgb(self, native: Samples) -> Samples:
        return self._space.to_srgb(to_uint8(native)).astype(np.uint16) * np.uint16(257)

    def transfer(self, native: Samples, blurred: Samples, restored: Samples) -> Samples:
        native8 = to_uint8(native)
        after = self._space.transfer(native8, to_uint8(blurred), to_uint8(restored))
        return _add(native, (after.astype(np.int32) - native8) * 257)


def to_uint8(samples: Samples) -> npt.NDArray[np.uint8]:
    """16-bit samples rounded to 8 bits; 8-bit ones as they are."""
    if samples.dtype == np.uint8:
        return samples
    result = np.empty(samples.shape, np.uint8)
    for rows in bands(samples):
        result[rows] = (samples[rows].astype(np.uint32) + 128) // 257
    return result


def bands(samples: Samples) -> list[slice]:
    """Rows to work on at a time, so that intermediate results stay small."""
    rows = max(1, _BAND_PIXELS // max(1, samples.shape[1]))
    return [slice(start, start + rows) for start in range(0, samples.shape[0], rows)]


def _mean(pixels: Samples) -> Samples:
    total = pixels.sum(axis=2, dtype=np.uint32)
    mean: Samples = ((total + 1) // 3).astype(pixels.dtype)
    return mean


def _add(native: Samples, change: npt.NDArray[Any]) -> Samples:
    top = np.iinfo(native.dtype).max
    result: Samples = np.clip(np.rint(native + change), 0, top).astype(native.dtype)
    return result
