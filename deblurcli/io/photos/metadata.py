"""What a photo says of itself besides its pixels, independent of the file format."""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

_STALE_RESOURCES = {0x0409, 0x040C, 0x040F, 0x0422, 0x0423, 0x0424}
"""Photoshop's thumbnails, and its second copies of the ICC profile, EXIF and XMP."""
_IPTC_RESOURCE = 0x0404

_CLAIM = (
    rb"(?:(?:hdrgm|HDRGainMap|GDepth|GImage|GContainer|Container):\w+"
    rb"|G?Camera:(?:MotionPhoto|MicroVideo)\w*)"
)
_CLAIM_ATTRIBUTE = re.compile(rb"\s" + _CLAIM + rb"\s*=\s*(?:\"[^\"]*\"|'[^']*')")
_CLAIM_ELEMENT = re.compile(rb"<(" + _CLAIM + rb")\b(?:[^>]*/>|.*?</\1\s*>)", re.DOTALL)
_MAX_CLEANED_BYTES = 1 << 20


@dataclass(frozen=True)
class Metadata:
    """A photo's metadata, each part as its raw bytes. What a format's reader gives may still be
    damaged or stale; `read` puts it right."""

    exif: bytes | None = None  # from the TIFF header on. Of TIFF files, all their fields
    xmp: bytes | None = None
    photoshop: bytes | None = None  # Photoshop's image resources, which hold the IPTC fields
    comment: bytes | None = None
    dpi: tuple[float, float] | None = None  # horizontally and vertically
    parts: tuple[bytes, ...] | None = None  # what only its format can hold: segments, chunks

    def with_upright_xmp(self) -> "Metadata":
        """The same, but XMP says that the pixels are upright, if it speaks of that at all."""
        pattern = rb"(tiff:Orientation(?:\s*=\s*[\"']|\s*>)\s*)[2-8]"
        return replace(self, xmp=self.xmp and re.sub(pattern, rb"\g<1>1", self.xmp))

    def without_claims(self) -> "Metadata":
        """The same, but XMP says nothing of gain maps, depth maps and videos in the file."""
        xmp = self.xmp
        if xmp is not None and len(xmp) > _MAX_CLEANED_BYTES:
            xmp = None
        return replace(self, xmp=xmp and _CLAIM_ATTRIBUTE.sub(b"", _CLAIM_ELEMENT.sub(b"", xmp)))


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
    found = iter_resources(photoshop or b"")
    return next((content for number, content, _ in found if number == _IPTC_RESOURCE), None)


def photoshop_from_iptc(iptc: bytes) -> bytes:
    """Photoshop's resources that hold nothing but these IPTC fields."""
    padding = b"\0" * (len(iptc) % 2)
    return struct.pack(">4sHHI", b"8BIM", _IPTC_RESOURCE, 0, len(iptc)) + iptc + padding
