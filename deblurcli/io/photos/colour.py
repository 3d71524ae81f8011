"""From a photo's own colours to sRGB, which the network sees, and back without loss.

A restored photo is written in its own colour space. Converting it to sRGB and back would clip
the colours that sRGB lacks and round all others. So only the network's change is carried over:

    restored_native = native + (from_srgb(restored) - from_srgb(blurred))

A pixel that the network did not change keeps its samples exactly, also one outside sRGB.
Profiles are littlecms' matter, through imagecodecs, which converts 16-bit samples, too.
"""

from dataclasses import replace

import numpy as np

from deblurcli.io.photos.photo import Picture, Samples, bands

_SAME_WITHIN = 2  # of 255: profiles this near to sRGB are sRGB, in one of its many editions


class ColourSpace:
    """A photo's colour space: here sRGB, or one channel with its tone curve. It takes bands."""

    def to_srgb(self, native: Samples) -> Samples:
        """Samples as ``(H, W, 3)`` sRGB of the same dtype."""
        return native if native.shape[2] == 3 else np.repeat(native, 3, axis=2)

    def transfer(self, native: Samples, restored: Samples) -> Samples:
        """`native` with the change from what `to_srgb` gives to `restored`."""
        return restored


class Grey(ColourSpace):
    """One channel, or RGB of greys, as black-and-white photos mostly come: it gets no tint."""

    def transfer(self, native: Samples, restored: Samples) -> Samples:
        mean = (restored.sum(axis=2, dtype=np.uint32, keepdims=True) + 1) // 3
        return np.repeat(mean.astype(restored.dtype), native.shape[2], axis=2)


class Icc(ColourSpace):
    """Grey, RGB or CMYK with an ICC profile.

    Relative colorimetric with black point compensation, as photo software does by default.

    A CMYK profile turns a change of colour into changes of all four inks by its own black
    generation. Where the photo splits black otherwise (text in black ink only, say), inks hit 0 or
    255 and the change falls short; carrying over what is still missing, from where the inks now
    are, closes the gap after a few rounds. The photo's own split is kept as far as the colour
    allows. Raises ValueError where littlecms can't use the profile for this many channels.
    """

    _CMYK_ROUNDS = 4

    def __init__(self, profile: bytes, channels: int) -> None:
        import imagecodecs

        self._profile, self._srgb = profile, imagecodecs.cms_profile("srgb")
        signature = {1: b"GRAY", 3: b"RGB ", 4: b"CMYK"}[channels]
        self._space = signature.decode().strip().lower()
        if profile[16:20] != signature:
            raise ValueError("the profile is for another kind of picture")
        try:
            self._from_srgb(self.to_srgb(np.zeros((1, 1, channels), np.uint8)))
        except RuntimeError as error:
            raise ValueError(f"littlecms can't use the profile: {error}") from error

    def to_srgb(self, native: Samples) -> Samples:
        samples = native[..., 0] if self._space == "gray" else native
        return self._convert(samples, self._profile, self._srgb, self._space, "rgb")

    def _from_srgb(self, pixels: Samples) -> Samples:
        own = self._convert(pixels, self._srgb, self._profile, "rgb", self._space)
        return own.reshape(*pixels.shape[:2], -1).astype(np.int32)

    def _convert(self, samples: Samples, from_: bytes, to: bytes, space: str, out: str) -> Samples:
        from imagecodecs import CMS, cms_transform

        flags = int(CMS.FLAGS.BLACKPOINTCOMPENSATION)
        if samples.dtype == np.uint16:
            flags |= CMS.FLAGS.NOOPTIMIZE  # littlecms' tables are good for 8 bits only
        intent = CMS.INTENT.RELATIVE_COLORIMETRIC
        values = np.ascontiguousarray(samples)
        return cms_transform(
            values, from_, to, colorspace=space, outcolorspace=out, intent=intent, flags=flags
        )

    def transfer(self, native: Samples, restored: Samples) -> Samples:
        result, wanted, blurred = native, self._from_srgb(restored), self.to_srgb(native)
        for round_ in range(self._CMYK_ROUNDS if self._space == "cmyk" else 1):
            now = self.to_srgb(result) if round_ else blurred
            moved = result + (wanted - self._from_srgb(now))
            result = np.clip(moved, 0, np.iinfo(native.dtype).max).astype(native.dtype)
        changed = (restored != blurred).any(axis=2, keepdims=True)
        return np.where(changed, result, native)


class PlainCmyk(ColourSpace):
    """CMYK without a profile: each channel of RGB is what its ink and the black let through. The
    share of black ink in a pixel's darkness stays as it is."""

    def to_srgb(self, native: Samples) -> Samples:
        top = int(np.iinfo(native.dtype).max)
        light = (top - native[..., :3].astype(np.uint32)) * (top - native[..., 3:])
        pixels: Samples = ((light + top // 2) // top).astype(native.dtype)
        return pixels

    def transfer(self, native: Samples, restored: Samples) -> Samples:
        top, blurred = np.iinfo(native.dtype).max, self.to_srgb(native)
        black = native[..., 3].astype(np.float32) / top
        darkness = 1 - blurred.max(axis=2).astype(np.float32) / top
        share = np.divide(black, darkness, out=np.zeros_like(black), where=darkness > 0)
        wanted = restored.astype(np.float32) / top
        black = np.clip(share, 0, 1) * (1 - wanted.max(axis=2))
        paper = np.maximum(1 - black, 1e-6)[..., None]
        inks = np.concatenate([1 - np.minimum(wanted / paper, 1), black[..., None]], axis=2)
        changed = (restored != blurred).any(axis=2, keepdims=True)
        return np.where(changed, np.rint(inks * top).astype(native.dtype), native)


# Of the numbers of ITU-T H.273: x and y of white, red, green and blue.
_D65 = (0.3127, 0.3290)
SRGB_PRIMARIES: tuple[float, ...] = (*_D65, 0.640, 0.330, 0.300, 0.600, 0.150, 0.060)
_PRIMARIES = {
    1: SRGB_PRIMARIES,
    5: (*_D65, 0.640, 0.330, 0.290, 0.600, 0.150, 0.060),  # BT.601, 625 lines
    6: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),  # BT.601, 525 lines
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),  # BT.2020
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),  # P3 of cinemas
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),  # Display P3
}
_CODED_LIKE_SRGB = (1, 6, 13, 14, 15)  # software shows BT.709's curve as that of sRGB
_GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0}
_PQ, _HLG = 16, 18
_UNSPECIFIED = 2


def are_srgb_primaries(primaries: tuple[float, ...]) -> bool:
    """Whether x and y of white, red, green and blue are those of sRGB, as far as one sees."""
    return bool(np.allclose(primaries, SRGB_PRIMARIES, rtol=0, atol=0.005))


def make_profile(gamma: float | None, primaries: tuple[float, ...] = SRGB_PRIMARIES) -> bytes:
    """The ICC profile of an RGB space by the exponent of its curve, None being the curve of sRGB,
    and x and y of white, red, green and blue. Raises ValueError where these are no colours."""
    import imagecodecs

    curve = None
    if gamma is None:
        encoded = np.linspace(0, 1, 4096)
        above = ((encoded + 0.055) / 1.055) ** 2.4
        linear = np.where(encoded <= 0.04045, encoded / 12.92, above)
        curve = np.rint(linear * 65535).astype(np.uint16)
    try:
        white, colours = primaries[:2], primaries[2:]
        return imagecodecs.cms_profile(
            "rgb", whitepoint=white, primaries=colours, transferfunction=curve, gamma=gamma
        )
    except RuntimeError as error:
        raise ValueError(str(error)) from error


def with_cicp(picture: Picture, cicp: tuple[int, int]) -> Picture:
    """A picture with the colours that the numbers of ITU-T H.273 for primaries and transfer curve
    describe, as an ICC profile, which every format can hold, but for PQ and HLG. An ICC profile
    that the picture has already counts for more."""
    if picture.icc is not None or picture.samples.shape[2] != 3:
        return picture
    primaries, transfer = (1 if number == _UNSPECIFIED else number for number in cicp)
    if transfer in (_PQ, _HLG):
        return replace(picture, cicp=(primaries, transfer))
    if primaries not in _PRIMARIES or transfer not in (*_CODED_LIKE_SRGB, *_GAMMAS):
        return picture.noted(f"colours of unknown kind (CICP {cicp[0]}/{cicp[1]}): taken for sRGB")
    if primaries == 1 and transfer in _CODED_LIKE_SRGB:
        return picture
    return replace(picture, icc=make_profile(_GAMMAS.get(transfer), _PRIMARIES[primaries]))


def choose_space(samples: Samples, profile: bytes | None) -> ColourSpace:
    """The colour space of samples with this ICC profile, or ValueError if it can't be used."""
    channels = samples.shape[2]
    space = Icc(profile, channels) if profile else None
    if channels != 3:
        return space or (PlainCmyk() if channels == 4 else Grey())

    def has_only_greys(values: Samples) -> bool:
        return bool((values == values[..., :1]).all())

    # Greys are greys in every RGB space; only their curve may differ a bit.
    if has_only_greys(samples[::64]) and all(has_only_greys(samples[r]) for r in bands(samples)):
        return Grey()
    axis = np.linspace(0, 255, 9).astype(np.uint8)
    grid = np.stack(np.meshgrid(axis, axis, axis), axis=-1).reshape(1, -1, 3)
    if space is None or np.abs(space.to_srgb(grid).astype(int) - grid).max() <= _SAME_WITHIN:
        return ColourSpace()
    return space


def convert_to_srgb(space: ColourSpace, native: Samples) -> Samples:
    """All of a picture as sRGB; the same array where nothing is to do. Works in bands of rows."""
    if native.shape[2] == 3 and not isinstance(space, Icc):
        return native
    pixels = np.empty((*native.shape[:2], 3), native.dtype)
    for rows in bands(native):
        pixels[rows] = space.to_srgb(native[rows])
    return pixels
