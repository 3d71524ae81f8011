"""Reading and writing photos. (First version: RGB pixels upright; the rest follows.)"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from deblurcli.errors import DeblurError, UsageError
from deblurcli.files import atomic_output

_FORMAT_BY_SUFFIX = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG",
    ".png": "PNG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF",
    ".bmp": "BMP", ".gif": "GIF", ".heic": "HEIF", ".heif": "HEIF", ".hif": "HEIF",
    ".avif": "AVIF",
}  # fmt: skip
PHOTO_SUFFIXES = frozenset(_FORMAT_BY_SUFFIX)


@dataclass
class Photo:
    """A photo as the network gets it, with what is needed to write it back.

    Attributes:
        pixels: ``(H, W, 3)`` uint8 or uint16 sRGB, upright.
        notes: what the user should know, for example "animated GIF: first frame only".
    """

    pixels: npt.NDArray[Any]
    notes: tuple[str, ...] = ()
    format: str = "PNG"


def read(source: Path | BinaryIO, *, name: str | None = None) -> Photo:
    """Reads a photo. Raises DeblurError when that fails."""
    subject = name or (str(source) if isinstance(source, Path) else "-")
    try:
        file: Any = source if isinstance(source, Path) else BytesIO(source.read())
        with Image.open(file) as image:
            format_ = image.format or "PNG"
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except UnidentifiedImageError:
        raise DeblurError(subject, "not a picture", "give a photo") from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise DeblurError(subject, reason, "give another photo") from error
    return Photo(np.array(upright), (), format_)


def write(
    photo: Photo,
    restored: npt.NDArray[Any],
    target: Path | BinaryIO,
    *,
    format: str | None = None,  # noqa: A002
    strip: bool = False,
    overwrite: bool = False,
) -> None:
    """Writes `restored`, shaped like ``photo.pixels``, as the sharp version of `photo`."""
    del strip
    image = Image.fromarray(restored)
    if isinstance(target, Path):
        suffix = target.suffix.lower()
        format_ = format or _FORMAT_BY_SUFFIX.get(suffix)
        if format_ is None:
            raise UsageError(target, f"unknown picture format '{suffix}'", "use .jpg or .png")
        with atomic_output(target, overwrite=overwrite) as part, part.open("wb") as file:
            image.save(file, format_, quality=95)
    else:
        image.save(target, format or photo.format, quality=95)
