"""Opening picture files with Pillow, safely, and taking their samples out."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from deblurcli.io.photos.picture import Picture

MOST_PIXELS = 500_000_000
"""Pictures with more are refused: no camera makes them, and decoding takes gigabytes."""

_PLUGINS = {"JPEG": ["JPEG", "MPO"]}
_BAND_PIXELS = 1 << 22
_SIMPLE_MODES = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr"}


class UnreadableError(Exception):
    """The file can't be read as a photo: `reason`, and what the user can do, `remedy`."""

    def __init__(self, reason: str, remedy: str) -> None:
        self.reason = reason
        self.remedy = remedy
        super().__init__(reason, remedy)


@contextmanager
def opened(file: BinaryIO, format_: str) -> Iterator[Image.Image]:
    # Pillow warns of damaged metadata, which here never fails a photo. A filter that stays is
    # safe between threads; one that is taken back is not.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    with _BOMB_GUARD, Image.open(file, formats=_PLUGINS.get(format_, [format_])) as image:
        refuse_too_large(*image.size)
        yield image


def refuse_too_large(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise UnreadableError(
            f"{width}x{height} pixels are more than the {MOST_PIXELS // 1_000_000} million allowed",
            "scale it down or cut it into parts",
        )


class _BombGuard:
    """While one is entered, Pillow leaves the limit of size to `refuse_too_large`.

    Pillow's own limit is a global of 179 megapixels, with a warning from 89 on. It is put back
    when the last of several threads leaves.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._limit: int | None = None

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._limit = Image.MAX_IMAGE_PIXELS
                Image.MAX_IMAGE_PIXELS = None
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                Image.MAX_IMAGE_PIXELS = self._limit


_BOMB_GUARD = _BombGuard()


def read_picture(image: Image.Image) -> tuple[Picture, tuple[str, ...]]:
    """The samples of an opened image, and what the user should know."""
    notes: list[str] = []
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        notes.append(
            "holds further pictures (a preview, depth or gain map): only the main one is kept"
            if image.format == "MPO"
            else f"{frames} pages: only the first is restored"
            if image.format == "TIFF"
            else "animated: only the first frame is restored"
        )
    icc = image.info.get("icc_profile")
    image.load()
    image = _simplify(image, has_icc=bool(icc))
    alpha = None
    if image.mode in ("LA", "RGBA"):
        alpha = _to_array(image.getchannel("A"))
    colours = {"LA": "L", "RGBA": "RGB"}.get(image.mode, image.mode)
    samples = _to_array(image, colours)
    if samples.ndim == 2:
        samples = samples[..., None]
    return Picture(samples, alpha, icc or None), tuple(notes)


def _simplify(image: Image.Image, has_icc: bool) -> Image.Image:
    """The same picture in one of the modes L, LA, RGB, RGBA, CMYK or I;16*."""
    mode = image.mode
    if mode == "LAB":
        return _from_lab(image)
    if mode == "CMYK" or mode.startswith("I;16"):
        return image
    if mode not in _SIMPLE_MODES:
        raise UnreadableError(f"pixels of kind {mode} are not supported", "convert it to 16 bits")
    see_through = image.has_transparency_data
    is_grey = mode in ("1", "L", "LA", "La") or (
        # Without a profile only: one for RGB fits no grey.
        mode == "P" and not has_icc and not see_through and _has_grey_palette(image)
    )
    wanted = ("L" if is_grey else "RGB") + ("A" if see_through else "")
    return image if mode == wanted else image.convert(wanted)


def _has_grey_palette(image: Image.Image) -> bool:
    colours = np.array(image.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
    return bool((colours == colours[:, :1]).all())


def _from_lab(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    image.info.pop("icc_profile", None)
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(lab, srgb, "LAB", "RGB").apply(image)


def _to_array(image: Image.Image, mode: str | None = None) -> npt.NDArray[Any]:
    """A writable array of an image's pixels, copied in bands to save memory."""
    mode = mode or image.mode
    deep_grey = mode.startswith("I;16")
    width, height = image.size
    channels = len(Image.new(mode, (1, 1)).getbands())
    shape = (height, width) if channels == 1 else (height, width, channels)
    array = np.empty(shape, np.uint16 if deep_grey else np.uint8)
    rows = max(1, _BAND_PIXELS // width)
    for top in range(0, height, rows):
        band = image.crop((0, top, width, min(height, top + rows)))
        if band.mode != mode:
            band = band.convert(mode)
        array[top : top + rows] = np.asarray(band)
    return array
