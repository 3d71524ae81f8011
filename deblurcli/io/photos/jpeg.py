"""JPEG files: their segments, and encoding no coarser than the input was.

Pillow encodes the pixels; the metadata segments are put in as they were, byte for byte where
nothing had to change.

Source: ITU-T T.81, annex B (segments); XMP specification part 3, 1.1.3 (in JPEG).
"""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Callable, Iterable
from typing import Any

from PIL import Image

from deblurcli.io.photos.metadata import Metadata, exif_from, without_stale_resources
from deblurcli.io.photos.picture import Encoding

_LEAST_QUALITY = 92
_QUALITY_FROM_OTHER_FORMATS = 95
_MOST_SEGMENT_BYTES = 65533

_APP0, _APP1, _APP2, _APP13, _APP14, _COMMENT = 0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE
_JFIF = b"JFIF\0"
_EXIF = b"Exif\0\0"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_ICC = b"ICC_PROFILE\0"
_PHOTOSHOP = b"Photoshop 3.0\0"
_REWRITTEN = {
    _APP0: (b"JFXX\0",),  # a thumbnail
    _APP1: (_EXIF, _XMP),
    # Of further pictures in the file (previews, depth, gain maps), which don't come along.
    _APP2: (_ICC, b"MPF\0", b"urn:iso:std:iso:ts:21496:-1\0"),
    _APP13: (_PHOTOSHOP,),
    _APP14: (b"Adobe",),
}

Segment = tuple[int, bytes]
"""A marker's number and what follows its length."""


def read_metadata(image: Any) -> Metadata:
    """The metadata of an opened JPEG (or MPO) file; `parts` are the segments nobody else knows."""
    segments: list[Segment] = [
        (_COMMENT if name == "COM" else _APP0 + int(name[3:]), data) for name, data in image.applist
    ]
    photoshop = b"".join(
        data[len(_PHOTOSHOP) :]
        for marker, data in segments
        if marker == _APP13 and data.startswith(_PHOTOSHOP)
    )
    return Metadata(
        exif=exif_from(image.info.get("exif")),
        xmp=image.info.get("xmp"),
        photoshop=without_stale_resources(photoshop) if photoshop else None,
        comment=image.info.get("comment"),
        dpi=image.info.get("dpi"),
        parts=tuple(
            (marker, data)
            for marker, data in segments
            if not data.startswith(_REWRITTEN.get(marker, ()))
        ),
    )


def read_encoding(image: Any) -> Encoding:
    """How an opened JPEG file was encoded."""
    from PIL.JpegImagePlugin import get_sampling

    tables = [tuple(table) for _, table in sorted(image.quantization.items())]
    if len(tables) > 2:  # one for each chroma channel: the finer of the two for both
        tables = [tables[0], tuple(map(min, *tables[1:]))]
    return Encoding(
        tables=tuple(tables),
        subsampling=max(0, get_sampling(image)),
        progressive=bool(image.info.get("progressive")),
    )


def encode(
    image: Image.Image,
    encoding: Encoding | None,
    metadata: Metadata,
    icc: bytes | None,
    warn: Callable[[str], None],
) -> list[bytes]:
    """A JPEG file, in pieces.

    Its quantisation tables are the input's where those are finer than at quality 92, and those
    of quality 92 elsewhere, so that what was restored isn't lost again. The chroma subsampling
    is the input's. What was no JPEG is written at quality 95 without subsampling.

    Args:
        image: L, RGB or CMYK.
        encoding: the input's, if it was a JPEG.
        metadata: to put in; what is too long for JPEG is left out.
        icc: the ICC profile to put in.
        warn: told what was left out.
    """
    options: dict[str, Any] = {"quality": _QUALITY_FROM_OTHER_FORMATS, "subsampling": 0}
    if encoding is not None and encoding.tables:
        least = _standard_tables(_LEAST_QUALITY)
        own = (encoding.tables * 2)[:2]
        tables = [list(map(min, *pair)) for pair in zip(own, least, strict=True)]
        # The quality only makes Pillow take a large enough buffer.
        options = {"quality": 100, "qtables": tables, "subsampling": encoding.subsampling}
    if metadata.dpi is not None:
        options["dpi"] = tuple(min(65535, max(1, round(dpi))) for dpi in metadata.dpi)
    file = io.BytesIO()
    try:
        image.save(
            file, "JPEG", progressive=encoding is not None and encoding.progressive, **options
        )
    except OSError:  # a noisy picture does not fit Pillow's buffer for progressive files
        file = io.BytesIO()
        image.save(file, "JPEG", **options)
    encoded = file.getvalue()
    own_segments, start = _read_leading_segments(encoded)
    jfif = own_segments if metadata.parts is None else metadata.parts
    segments = [
        *((marker, data[:12] + b"\0\0") for marker, data in jfif if data.startswith(_JFIF)),
        *_segments(metadata, icc, warn),
        *(segment for segment in own_segments if segment[0] == _APP14),
    ]
    return [b"\xff\xd8", *map(_segment_bytes, segments), encoded[start:]]


def _segments(
    metadata: Metadata, icc: bytes | None, warn: Callable[[str], None]
) -> Iterable[Segment]:
    def one_segment(marker: int, data: bytes, what: str) -> Iterable[Segment]:
        if len(data) <= _MOST_SEGMENT_BYTES:
            yield marker, data
        else:
            warn(f"the {what} of {len(data) // 1000} KB don't fit into JPEG: left out")

    if metadata.exif is not None:
        yield from one_segment(_APP1, _EXIF + metadata.exif, "EXIF data")
    if metadata.xmp is not None:
        yield from one_segment(_APP1, _XMP + metadata.xmp, "XMP data")
    if metadata.photoshop is not None:
        yield from _split(_APP13, _PHOTOSHOP, metadata.photoshop)
    if icc:
        room = _MOST_SEGMENT_BYTES - len(_ICC) - 2
        pieces = [icc[i : i + room] for i in range(0, len(icc), room)]
        for number, piece in enumerate(pieces, start=1):
            yield _APP2, _ICC + bytes([number, len(pieces)]) + piece
    if metadata.parts is not None:
        yield from (part for part in metadata.parts if not part[1].startswith(_JFIF))
    elif metadata.comment:
        yield from one_segment(_COMMENT, metadata.comment, "comments")


def _split(marker: int, prefix: bytes, data: bytes) -> Iterable[Segment]:
    room = _MOST_SEGMENT_BYTES - len(prefix)
    for start in range(0, len(data), room):
        yield marker, prefix + data[start : start + room]


def _segment_bytes(segment: Segment) -> bytes:
    marker, data = segment
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def _read_leading_segments(encoded: bytes) -> tuple[list[Segment], int]:
    """The APPn and COM segments at the start of a file, and where the rest begins."""
    segments: list[Segment] = []
    place = 2
    while True:
        _, marker, length = struct.unpack_from(">BBH", encoded, place)
        if not (_APP0 <= marker <= _APP0 + 15 or marker == _COMMENT):
            return segments, place
        segments.append((marker, encoded[place + 4 : place + 2 + length]))
        place += 2 + length


@functools.lru_cache
def _standard_tables(quality: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", quality=quality)
    with Image.open(file, formats=["JPEG"]) as image:
        tables: dict[int, list[int]] = image.quantization  # type: ignore[attr-defined]
    return tuple(tables[0]), tuple(tables[1])
