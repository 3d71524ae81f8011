"""What a photo says of itself besides its pixels, independent of the file format."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from deblurcli.io.photos.exif import ExifEditor, ExifError, read_tags

_EXIF_PREFIX = b"Exif\0\0"
_STALE_RESOURCES = {0x0409, 0x040C, 0x040F, 0x0422, 0x0423, 0x0424}
"""Photoshop's thumbnails, and its second copies of the ICC profile, EXIF and XMP."""
_IPTC_RESOURCE = 0x0404
_THUMBNAIL_PX = 160


@dataclass(frozen=True)
class Metadata:
    """A photo's metadata, each part as its raw bytes.

    Attributes:
        exif: beginning with the TIFF header.
        xmp: the XMP packet.
        photoshop: Photoshop's image resources, which hold the IPTC fields.
        comment: the file's comment.
        dpi: horizontally and vertically.
        parts: what only the file's own format can hold: JPEG's segments, PNG's chunks or
            TIFF's fields; see the module of the format.
    """

    exif: bytes | None = None
    xmp: bytes | None = None
    photoshop: bytes | None = None
    comment: bytes | None = None
    dpi: tuple[float, float] | None = None
    parts: Any = None

    def without_private(self) -> Metadata:
        """What says nothing about the photographer: only the resolution."""
        return Metadata(dpi=self.dpi)


def make_upright(metadata: Metadata) -> tuple[Metadata, int]:
    """Metadata for the upright picture, and the EXIF orientation (1 to 8) of the one given."""
    if metadata.exif is None:
        return metadata, 1
    try:
        editor = ExifEditor(metadata.exif)
        orientation = editor.orientation
        editor.set_upright()
    except (ExifError, struct.error):
        return metadata, 1
    metadata = replace(metadata, exif=bytes(editor.data))
    return (metadata if orientation == 1 else with_upright_xmp(metadata)), orientation


def with_upright_xmp(metadata: Metadata) -> Metadata:
    """Metadata whose XMP says that the pixels are upright, if it speaks of that at all."""
    if metadata.xmp is None:
        return metadata
    pattern = rb"(tiff:Orientation(?:\s*=\s*[\"']|\s*>)\s*)[2-8]"
    return replace(metadata, xmp=re.sub(pattern, rb"\g<1>1", metadata.xmp))


_CLAIM = (
    rb"(?:(?:hdrgm|HDRGainMap|GDepth|GImage|GContainer|Container):\w+"
    rb"|G?Camera:(?:MotionPhoto|MicroVideo)\w*)"
)
_CLAIM_ATTRIBUTE = re.compile(rb"\s" + _CLAIM + rb"\s*=\s*(?:\"[^\"]*\"|'[^']*')")
_CLAIM_ELEMENT = re.compile(rb"<(" + _CLAIM + rb")\b(?:[^>]*/>|.*?</\1\s*>)", re.DOTALL)
_MAX_CLEANED_BYTES = 1 << 20


def without_claims(metadata: Metadata) -> Metadata:
    """Metadata whose XMP says nothing of gain maps, depth maps and videos in the file."""
    if metadata.xmp is None:
        return metadata
    if len(metadata.xmp) > _MAX_CLEANED_BYTES:
        return replace(metadata, xmp=None)
    xmp = _CLAIM_ATTRIBUTE.sub(b"", _CLAIM_ELEMENT.sub(b"", metadata.xmp))
    return replace(metadata, xmp=xmp)


def apply_orientation(pixels: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Turns ``(H, W, ...)`` pixels upright; a view where possible."""
    if orientation >= 5:
        pixels = np.swapaxes(pixels, 0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def renew_thumbnail(metadata: Metadata, restored: npt.NDArray[Any]) -> Metadata:
    """Metadata whose EXIF thumbnail, if there is one, shows `restored` ((H, W, 3) sRGB)."""
    if metadata.exif is None:
        return metadata
    try:
        editor = ExifEditor(metadata.exif)
        editor.replace_thumbnail(lambda room: _thumbnail(restored, room))
    except (ExifError, struct.error):
        return metadata
    return replace(metadata, exif=bytes(editor.data))


def _thumbnail(restored: npt.NDArray[Any], max_bytes: int) -> bytes | None:
    from PIL import Image

    step = max(1, max(restored.shape[:2]) // (4 * _THUMBNAIL_PX))
    small = np.ascontiguousarray(restored[::step, ::step])
    image = Image.fromarray(small if small.dtype == np.uint8 else (small >> 8).astype(np.uint8))
    image.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
    for quality in (85, 70, 50, 30):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        if len(file.getvalue()) <= max_bytes:
            return file.getvalue()
    return None


def readable_exif(exif: bytes | None) -> bytes | None:
    """The same EXIF data; None if they are damaged, for encoders that fail over that."""
    if exif is not None:
        with suppress(ExifError, struct.error):
            read_tags(io.BytesIO(exif))
            ExifEditor(exif)
            return exif
    return None


def exif_from(data: bytes | None) -> bytes | None:
    """EXIF data from the TIFF header on, however the file format wraps them."""
    if not data:
        return None
    while data.startswith(_EXIF_PREFIX):
        data = data[len(_EXIF_PREFIX) :]
    return data or None


def iter_resources(photoshop: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Number, content and raw bytes of each of Photoshop's image resources."""
    place = 0
    while photoshop[place : place + 4] == b"8BIM":
        try:
            (number,) = struct.unpack_from(">H", photoshop, place + 4)
            content = place + 6 + (photoshop[place + 6] + 2) // 2 * 2
            (size,) = struct.unpack_from(">I", photoshop, content)
        except (struct.error, IndexError):
            return
        content += 4
        end = content + size + size % 2
        yield number, photoshop[content : content + size], photoshop[place:end]
        place = end


def without_stale_resources(photoshop: bytes | None) -> bytes | None:
    """Photoshop's resources without the thumbnails and the second copies of other metadata."""
    found = iter_resources(photoshop or b"")
    return b"".join(raw for number, _, raw in found if number not in _STALE_RESOURCES) or None


def iptc_of(photoshop: bytes | None) -> bytes | None:
    """The IPTC fields among Photoshop's resources."""
    if photoshop is not None:
        with suppress(StopIteration):
            return next(
                data for number, data, _ in iter_resources(photoshop) if number == _IPTC_RESOURCE
            )
    return None


def photoshop_from_iptc(iptc: bytes) -> bytes:
    """Photoshop's resources that hold nothing but these IPTC fields."""
    padding = b"\0" * (len(iptc) % 2)
    return struct.pack(">4sHHI", b"8BIM", _IPTC_RESOURCE, 0, len(iptc)) + iptc + padding
