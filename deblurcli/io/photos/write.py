"""From a restored photo to a file, as near to the input's encoding as the format allows."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from deblurcli.errors import DeblurError, UsageError, logger
from deblurcli.io.files import atomic_output
from deblurcli.io.image import to_uint8
from deblurcli.io.photos import heif, jpeg, pillow, png, tiff
from deblurcli.io.photos.colour import Grey
from deblurcli.io.photos.metadata import Metadata
from deblurcli.io.photos.photo import Encoding, Photo, PhotoError, Picture, Samples, bands


@dataclass(frozen=True)
class Format:
    """What a file format can hold."""

    title: str  # as people call it
    suffixes: tuple[str, ...]  # of its files, the usual one first
    alpha: bool = True
    icc: bool = True
    cmyk: bool = False
    deep: bool = False  # 16 bits
    cicp: bool = False  # colours of high dynamic range
    grey: bool = True  # pictures of one channel stay so,
    grey_alpha: bool = True  # also with transparency
    max_px: int = 2**31 - 1  # the longest side


FORMATS = {
    "JPEG": Format("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif"), False, cmyk=True, max_px=65500),
    "PNG": Format("PNG", (".png", ".apng"), deep=True, cicp=True, max_px=1_000_000),
    "WEBP": Format("WebP", (".webp",), grey=False, grey_alpha=False, max_px=16383),
    "TIFF": Format("TIFF", (".tif", ".tiff"), cmyk=True, deep=True),
    "BMP": Format("BMP", (".bmp",), alpha=False, icc=False),
    "GIF": Format("GIF", (".gif",), icc=False, max_px=65535),
    "HEIF": Format(
        "HEIC", (".heic", ".heif", ".hif"), deep=True, cicp=True, grey_alpha=False, max_px=16384
    ),
    "AVIF": Format("AVIF", (".avif",), grey_alpha=False, max_px=65536),
}

_ENCODERS: dict[str, Callable[[Picture], Iterable[bytes | memoryview]]] = {
    "PNG": png.encode,
    "TIFF": tiff.encode,
}
_FORMAT_BY_SUFFIX = {
    suffix: name for name, format_ in FORMATS.items() for suffix in format_.suffixes
}

PHOTO_SUFFIXES = frozenset(_FORMAT_BY_SUFFIX)
"""Every file name ending that photos have, in lower case, with the dot."""


def is_same_format(one: str, other: str) -> bool:
    """Whether two endings, such as ``".jpg"`` and ``".JPEG"``, are of one format."""
    return _FORMAT_BY_SUFFIX.get(one.lower()) == _FORMAT_BY_SUFFIX.get(other.lower())


def write(
    photo: Photo,
    restored: Samples,
    target: Path | BinaryIO,
    *,
    format: str | None = None,  # noqa: A002
    strip: bool = False,
    overwrite: bool = False,
    use_up: bool = False,
) -> None:
    """Writes the sharp version of a photo.

    The photo keeps its colour space, transparency, metadata and depth where the format can
    hold them, and its encoding where the format is the same. Where the network changed
    nothing, the samples are those of the input, exactly. A format that can't hold the
    photo's colour space (CMYK outside JPEG and TIFF; any profile in GIF and BMP) gets sRGB.
    Where it can't hold something else (16 bits, transparency), a warning is logged.

    Args:
        photo: as `read` gave it; unchanged.
        restored: the network's output for ``photo.pixels``, same shape and dtype.
        target: a path, written atomically, or an open binary file such as standard output.
        format: a name as in `Photo.format` or a suffix; by default that of `target`, or the
            input's where there is none.
        strip: leave out all metadata but the colour profile and the resolution.
        use_up: the photo is no longer needed: its memory may be changed, and its pixels may have
            been restored in place. Else its channels are copied.

    Raises UsageError where the format is unknown, or the file exists and `overwrite` is false,
    DeblurError where it can't be written, or the format can't hold a picture that large.
    """
    if restored.shape != photo.pixels.shape or restored.dtype != photo.pixels.dtype:
        wanted = f"{photo.pixels.shape} {photo.pixels.dtype}"
        raise ValueError(f"restored is {restored.shape} {restored.dtype}, the photo {wanted}")
    if not use_up:
        picture = replace(photo.picture, channels=photo.picture.channels.copy())
        photo = replace(photo, picture=picture)
    path = target if isinstance(target, Path) else Path("-")
    wanted = format or path.suffix
    name = _FORMAT_BY_SUFFIX.get("." + wanted.lower().lstrip(".")) if wanted else photo.format
    if name is None:
        known = " ".join(format_.suffixes[0] for format_ in FORMATS.values())
        reason = "not a picture format that can be written"
        raise UsageError(format or os.fspath(path), reason, f"use {known}")
    if isinstance(target, Path):
        with atomic_output(target, overwrite=overwrite) as part:
            pieces = _encode(photo, restored, name, strip, path)
            with part.open("wb") as file:
                file.writelines(pieces)
    else:
        target.writelines(_encode(photo, restored, name, strip, path))
        target.flush()


def _encode(
    photo: Photo, restored: Samples, name: str, strip: bool, subject: Path
) -> Iterable[bytes | memoryview]:
    def warn(text: str) -> None:
        logger.warning("%s: %s", subject, text)

    holds = FORMATS[name]
    if max(restored.shape[:2]) > holds.max_px:
        text = f"{holds.title} holds at most {holds.max_px} pixels a side"
        raise DeblurError(subject, text, "write .tif" if name == "PNG" else "write .png or .tif")
    if photo.picture.cicp is not None and not holds.cicp:
        text = f"{holds.title} is not written with high dynamic range (PQ or HLG)"
        raise DeblurError(subject, text, "write .png or .heic")
    picture = _restored_picture(photo, restored, holds)
    metadata, encoding = picture.metadata, picture.encoding
    if strip:
        metadata = Metadata(dpi=metadata.dpi)
    if name != photo.format:
        metadata, encoding = replace(metadata, parts=None), Encoding(bits=encoding.bits)
    picture = replace(picture, format=name, metadata=metadata, encoding=encoding)
    if not holds.deep and picture.samples.dtype == np.uint16:
        picture = replace(picture, channels=to_uint8(picture.channels))
        warn(f"{holds.title} is written with 8 bits a channel: the photo's others were rounded")
    elif name == "HEIF" and picture.samples.dtype == np.uint16 and picture.encoding.bits == 8:
        warn("HEIC is written with 10 bits a channel: the photo's 16 were rounded")
    if not holds.alpha and picture.alpha is not None:
        if (picture.alpha != 255).any():
            for rows in bands(picture.samples):
                opacity = picture.alpha[rows, :, None].astype(np.uint32)
                white = 255 * (255 - opacity)
                picture.samples[rows] = (picture.samples[rows] * opacity + white + 127) // 255
            warn(f"{holds.title} holds no transparency: laid on white")
        picture = replace(picture, channels=picture.samples, has_alpha=False)
    try:
        if name == "JPEG":
            return jpeg.encode(picture, warn)
        if name == "HEIF":
            return heif.encode(picture, warn)
        return _ENCODERS.get(name, pillow.encode)(picture)
    except PhotoError as error:
        raise DeblurError(subject, *error.args) from error


def _restored_picture(photo: Photo, restored: Samples, holds: Format) -> Picture:
    """The restored picture in its own colours if the format can hold them, else in sRGB."""
    blurred = photo.picture
    channels = blurred.samples.shape[2]
    # A profile for grey fits no RGB, which some formats make of grey pictures.
    stays_grey = holds.grey if blurred.alpha is None else holds.grey_alpha
    keeps_profile = holds.icc and (channels != 1 or stays_grey)
    keeps_space = (holds.cmyk or channels != 4) and (keeps_profile or not blurred.icc)
    if keeps_space or channels == 1:
        space, samples = photo.space if keeps_space else Grey(), blurred.samples
        for rows in bands(samples):
            samples[rows] = space.transfer(samples[rows], restored[rows])
        return blurred if keeps_space else replace(blurred, icc=None)
    if blurred.alpha is not None:
        restored = np.concatenate([restored, blurred.alpha[..., None]], axis=2)
    return replace(blurred, channels=restored, icc=None)
