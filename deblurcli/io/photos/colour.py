"""From a photo's own colours to sRGB, which the network sees, and back without loss.

A restored photo is written in its own colour space. Converting it to sRGB and back would clip
the colours that sRGB lacks and round all others. So only the network's change is carried over:

    restored_native = native + (from_srgb(restored) - from_srgb(blurred))

A pixel that the network did not change keeps its samples exactly, also one outside sRGB.

Precision: for 8-bit photos each conversion rounds to 8 bits, so a changed pixel is within
one or two steps of the exact result. For 16-bit photos in matrix profiles (`icc`) and in grey
it is computed in float and rounded once to 16 bits. For other 16-bit photos (CMYK, lookup-table
profiles) the change is precise to 8 bits, on top of the photo's own 16 bits.
"""

from __future__ import annotations

from contextlib import suppress

import numpy as np

from deblurcli.io.photos.icc import MatrixProfile, Transforms
from deblurcli.io.photos.spaces import (
    ColourSpace,
    Grey,
    IccCmyk,
    IccRgb,
    InEightBits,
    MatrixRgb,
    Neutral,
    PlainCmyk,
    Samples,
    Srgb,
    bands,
)

_SAME_WITHIN = 2  # of 255: profiles this near to sRGB are sRGB, in one of its many editions


def choose_space(samples: Samples, profile: bytes | None) -> tuple[ColourSpace, bool]:
    """The colour space of samples with this ICC profile.

    Returns:
        the space, and whether the profile could be used; if not, the samples are taken for
        what they would be without one.
    """
    usable = True
    if profile:
        try:
            return _space_of_profile(samples, profile), True
        except ValueError:
            usable = False
    if samples.shape[2] == 1:
        return Grey(), usable
    if samples.shape[2] == 4:
        return _for_depth(PlainCmyk(), samples), usable
    return _srgb(samples), usable


def _space_of_profile(samples: Samples, profile: bytes) -> ColourSpace:
    channels = samples.shape[2]
    transforms = Transforms(profile, {1: "L", 3: "RGB", 4: "CMYK"}[channels])
    if channels == 1:
        return _grey(transforms)
    if channels == 4:
        return _for_depth(IccCmyk(transforms), samples)
    # Greys are greys in every RGB space; only their curve may differ a bit.
    if _is_srgb(transforms) or _is_neutral(samples):
        return _srgb(samples)
    if samples.dtype == np.uint16:
        with suppress(ValueError):
            return MatrixRgb(MatrixProfile(profile))
    return _for_depth(IccRgb(transforms), samples)


def _for_depth(space: ColourSpace, samples: Samples) -> ColourSpace:
    return space if samples.dtype == np.uint8 else InEightBits(space)


def _srgb(samples: Samples) -> ColourSpace:
    return Neutral() if _is_neutral(samples) else Srgb()


def _grey(transforms: Transforms) -> ColourSpace:
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 256, 1)
    curve = transforms.to_srgb(ramp)[0].mean(axis=1)
    if np.abs(curve - ramp[0, :, 0]).max() <= _SAME_WITHIN:
        return Grey()
    return Grey(np.maximum.accumulate(curve) / 255)


def _is_srgb(transforms: Transforms) -> bool:
    axis = np.linspace(0, 255, 9).astype(np.uint8)
    grid = np.stack(np.meshgrid(axis, axis, axis), axis=-1).reshape(1, -1, 3)
    return bool(np.abs(transforms.to_srgb(grid).astype(int) - grid).max() <= _SAME_WITHIN)


def convert_to_srgb(space: ColourSpace, native: Samples) -> Samples:
    """All of a picture as sRGB; the same array where nothing is to do. Works in bands of rows."""
    if isinstance(space, (Srgb, Neutral)):
        return native
    pixels = np.empty((*native.shape[:2], 3), native.dtype)
    for rows in bands(native):
        pixels[rows] = space.to_srgb(native[rows])
    return pixels


def transfer_change(
    space: ColourSpace, native: Samples, blurred: Samples, restored: Samples
) -> Samples:
    """`ColourSpace.transfer` for all of a picture, in bands of rows to save memory."""
    if isinstance(space, Srgb):
        return restored
    result = np.empty_like(native, order="C")
    for rows in bands(native):
        result[rows] = space.transfer(native[rows], blurred[rows], restored[rows])
    return result


def _is_neutral(samples: Samples) -> bool:
    return all(
        bool((band[..., 0] == band[..., 1]).all() and (band[..., 1] == band[..., 2]).all())
        for band in (samples[::64], *(samples[rows] for rows in bands(samples)))
    )
