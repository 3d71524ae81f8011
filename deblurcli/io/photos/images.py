"""Reading and writing photos: pixels for the network, everything else kept as it was.

The way of a photo: `read` decodes the file, turns it upright and gives sRGB pixels; `write`
carries the network's change over to the photo's own samples, colours and encoding.
"""

from __future__ import annotations

import io
import logging
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from deblurcli.errors import DeblurError, UsageError, cannot_read
from deblurcli.io.files import atomic_output
from deblurcli.io.photos import encoding, png
from deblurcli.io.photos.colour import choose_space, convert_to_srgb, transfer_change
from deblurcli.io.photos.decoding import Decoded, decode
from deblurcli.io.photos.metadata import renew_thumbnail
from deblurcli.io.photos.opening import UnreadableError
from deblurcli.io.photos.picture import Picture
from deblurcli.io.photos.spaces import ColourSpace

log = logging.getLogger("deblurcli")

_FORMAT_BY_SUFFIX = {
    suffix: name for name, format_ in encoding.FORMATS.items() for suffix in format_.suffixes
}

PHOTO_SUFFIXES = frozenset(_FORMAT_BY_SUFFIX)
"""Every file name ending that photos have, in lower case, with the dot."""


def is_same_format(one: str, other: str) -> bool:
    """Whether two endings, such as ``".jpg"`` and ``".JPEG"``, are of one format."""
    return _FORMAT_BY_SUFFIX.get(one.lower()) == _FORMAT_BY_SUFFIX.get(other.lower())


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo as the network gets it, with all that is needed to write it back.

    Attributes:
        pixels: ``(H, W, 3)`` uint8 or uint16 (for photos of 16 bits) sRGB, upright.
        format: of its file: JPEG, PNG, WEBP, TIFF, BMP, GIF, HEIF or AVIF.
        notes: what the user should know, for example "animated: only the first frame is
            restored".
    """

    pixels: npt.NDArray[Any]
    format: str
    notes: tuple[str, ...]
    _decoded: Decoded = field(repr=False)
    _space: ColourSpace = field(repr=False)


def read(source: Path | BinaryIO, *, name: str | None = None) -> Photo:
    """Reads a photo: JPEG, PNG, WebP, TIFF, BMP, GIF, HEIC or AVIF, whatever its name says.

    A file of which a part is missing is refused: half a photo is not what the user wants to
    keep in place of the original. Damaged metadata fail nothing.

    Args:
        source: a path, or an open binary file or pipe.
        name: what errors call it; by default the path, or ``-``.

    Raises:
        DeblurError: it can't be read: missing, a folder, no permission, empty, no photo,
            damaged, truncated, of an unsupported kind or of more than 500 megapixels.
    """
    subject = name or (os.fspath(source) if isinstance(source, Path) else "-")
    try:
        if isinstance(source, Path):
            with source.open("rb") as file:
                decoded = decode(_seekable(file))
        else:
            decoded = decode(_seekable(source))
    except UnreadableError as error:
        raise DeblurError(subject, error.reason, error.remedy) from error
    except OSError as error:
        raise cannot_read(subject, error) from error
    picture, notes = decoded.picture, decoded.notes
    space, usable = choose_space(picture.samples, picture.icc)
    if not usable:
        notes = (*notes, "its colour profile can't be used: taken for sRGB")
    pixels = convert_to_srgb(space, picture.samples)
    return Photo(pixels, decoded.format, notes, decoded, space)


def write(
    photo: Photo,
    restored: npt.NDArray[Any],
    target: Path | BinaryIO,
    *,
    format: str | None = None,  # noqa: A002
    strip: bool = False,
    overwrite: bool = False,
) -> None:
    """Writes the sharp version of a photo.

    The photo keeps its colour space, transparency, metadata and depth where the format can
    hold them, and its encoding where the format is the same. Where the network changed
    nothing, the samples are those of the input, exactly. A format that can't hold the
    photo's colour space (CMYK outside JPEG and TIFF; any profile in GIF and BMP) gets sRGB.

    Args:
        photo: as `read` gave it; unchanged.
        restored: the network's output for ``photo.pixels``, same shape and dtype.
        target: a path, written atomically, or an open binary file such as standard output.
        format: a name as in ``Photo.format`` or a suffix; by default by `target`'s suffix,
            or the input's where there is none.
        strip: leave out all metadata but the colour profile and the resolution.
        overwrite: whether an existing file may be replaced.

    Raises:
        UsageError: the format is unknown, or the file exists and `overwrite` is false.
        DeblurError: the file can't be written, or the format can't hold a picture that large.
        ValueError: `restored` does not match the photo.
    """
    if restored.shape != photo.pixels.shape or restored.dtype != photo.pixels.dtype:
        raise ValueError(
            f"restored is {restored.shape} {restored.dtype}, "
            f"the photo {photo.pixels.shape} {photo.pixels.dtype}"
        )
    name = _choose_format(photo, target, format)
    if not isinstance(target, Path):
        for piece in _encode(photo, restored, name, strip, "-"):
            target.write(piece)
        target.flush()
        return
    with atomic_output(target, overwrite=overwrite) as part:
        pieces = _encode(photo, restored, name, strip, target)
        with part.open("wb") as file:
            file.writelines(pieces)


def _encode(
    photo: Photo, restored: npt.NDArray[Any], format_: str, strip: bool, subject: Path | str
) -> encoding.Pieces:
    decoded = photo._decoded
    picture = _restored_picture(photo, restored, encoding.FORMATS[format_])
    same_format = format_ == photo.format
    metadata = decoded.metadata
    if strip:
        parts = png.public_parts(metadata) if same_format and format_ == "PNG" else None
        metadata = replace(metadata.without_private(), parts=parts)
    else:
        metadata = renew_thumbnail(metadata, restored)
        if not same_format:
            metadata = replace(metadata, parts=None)
    try:
        return encoding.encode(
            format_,
            picture,
            metadata,
            decoded.encoding if same_format else None,
            lambda text: log.warning("%s: %s", subject, text),
        )
    except encoding.UnwritableError as error:
        raise DeblurError(subject, error.reason, error.remedy) from error


def _restored_picture(photo: Photo, restored: npt.NDArray[Any], holds: encoding.Format) -> Picture:
    blurred = photo._decoded.picture
    channels = blurred.samples.shape[2]
    # A profile for grey fits no RGB, which some formats make of grey pictures.
    becomes_rgb = channels == 1 and not (
        holds.grey_alpha if blurred.alpha is not None else holds.grey
    )
    keeps_profile = holds.icc and not becomes_rgb
    if (holds.cmyk or channels != 4) and (keeps_profile or not blurred.icc):
        samples = transfer_change(photo._space, blurred.samples, photo.pixels, restored)
        return replace(blurred, samples=samples)
    if channels == 1:
        restored = np.rint(restored.mean(axis=2, keepdims=True)).astype(restored.dtype)
    return Picture(restored, blurred.alpha)


def _choose_format(photo: Photo, target: Path | BinaryIO, wanted: str | None) -> str:
    if wanted is not None:
        name = wanted.lower().lstrip(".")
        by_name = {key.lower(): key for key in encoding.FORMATS}
        found = by_name.get(name) or _FORMAT_BY_SUFFIX.get(f".{name}")
        subject = wanted
    elif isinstance(target, Path) and target.suffix:
        found, subject = _FORMAT_BY_SUFFIX.get(target.suffix.lower()), os.fspath(target)
    else:
        return photo.format
    if found is None:
        known = " ".join(format_.suffixes[0] for format_ in encoding.FORMATS.values())
        raise UsageError(subject, "not a picture format that can be written", f"use {known}")
    return found


def _seekable(file: BinaryIO) -> BinaryIO:
    return file if file.seekable() else io.BytesIO(file.read())
