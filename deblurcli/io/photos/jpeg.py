"""JPEG files: their segments, and encoding no coarser than the input was.

The segments are read here and only what decodes the pixels is given to Pillow, so that no
metadata, however damaged, can fail a photo.

Source: ITU-T T.81, annex B (segments); XMP specification part 3, 1.1.3 (in JPEG).
"""

import io
import re
import struct
from collections.abc import Callable
from typing import BinaryIO

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile, get_sampling

from deblurcli.io.photos.metadata import Metadata
from deblurcli.io.photos.photo import (
    DAMAGED,
    Encoding,
    PhotoError,
    Picture,
    ReadOptions,
    opened,
    to_array,
    to_image,
)

_MIN_QUALITY = 92
_QUALITY_FROM_OTHER_FORMATS = 95
_MAX_SEGMENT_BYTES = 65533
_HEAD_BYTES = 1 << 26  # in which the size has to be said

_APP0, _APP1, _APP2, _APP13, _APP14, _COMMENT = 0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE
_METADATA = {*range(0xE0, 0xF0), _COMMENT}  # decoders can do without these segments
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE, _END, _SCAN = 0xC2, 0xD9, 0xDA
_START_MARKER, _END_MARKER = b"\xff\xd8", b"\xff\xd9"
_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)
_JFIF = b"JFIF\0"
_EXIF = b"Exif\0\0"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_ICC = b"ICC_PROFILE\0"
_MPF = b"MPF\0"
_ISO_GAIN = b"urn:iso:std:iso:ts:21496:-1\0"
_PHOTOSHOP = b"Photoshop 3.0\0"
_REWRITTEN = {
    _APP0: (_JFIF, b"JFXX\0"),  # the second is a thumbnail
    _APP1: (_EXIF, _XMP),
    # Of further pictures in the file (previews, depth, gain maps), which don't come along.
    _APP2: (_ICC, _MPF, _ISO_GAIN),
    _APP13: (_PHOTOSHOP,),
    _APP14: (b"Adobe",),
}


Segment = tuple[int, bytes]
"""A marker's number and what follows its length."""


def read(file: BinaryIO, options: ReadOptions) -> Picture:
    """Reads a JPEG file, or the first picture of an MPO file."""
    data = file.read(_HEAD_BYTES)
    segments, pixels, rest = _split(data)
    frame = next((segment for segment in segments if segment[0] in _FRAMES), (0, b""))
    if len(frame[1]) < 6:
        raise ValueError("its size is missing")
    precision, height, width = struct.unpack_from(">BHH", frame[1])
    if precision != 8:
        raise PhotoError(f"{precision}-bit JPEG is not supported", "convert it to 16-bit TIFF")
    options.check_size(width, height, file.seek(0, io.SEEK_END))
    file.seek(len(data))
    if more := file.read():
        segments, pixels, rest = _split(data + more)
    del data, more
    notes: tuple[str, ...] = ()
    if not (_has_all_scans(segments, frame) and is_intact(pixels)):
        if not options.keep_damaged:
            if not pixels.endswith(_END_MARKER):
                raise EOFError
            raise ValueError("a part of its pixels is missing or wrong")
        notes = (DAMAGED,)
        pixels += _END_MARKER
    with opened(io.BytesIO(pixels), "JPEG", options) as image:
        assert isinstance(image, JpegImageFile)
        luma, *chroma = [tuple(table) for _, table in sorted(image.quantization.items())]
        encoding = Encoding(
            # One for each chroma channel: the finer of the two for both.
            tables=(luma, tuple(map(min, *chroma, *chroma))) if chroma else (luma,),
            subsampling=max(0, get_sampling(image)),
            progressive=bool(image.info.get("progressive")),
        )
        dpi, samples = image.info.get("dpi"), to_array(image)

    def found(wanted: int, prefix: bytes) -> list[bytes]:
        """What follows the prefix in each of these segments."""
        bodies = (body for marker, body in segments if marker == wanted)
        return [body[len(prefix) :] for body in bodies if body.startswith(prefix)]

    metadata = Metadata(
        exif=next(iter(found(_APP1, _EXIF)), None),
        xmp=next(iter(found(_APP1, _XMP)), None),
        photoshop=b"".join(found(_APP13, _PHOTOSHOP)),
        comment=next(iter(reversed(found(_COMMENT, b""))), None),
        dpi=dpi,
        parts=tuple(
            segment_bytes(marker, body)
            for marker, body in segments
            if marker in _METADATA and not body.startswith(_REWRITTEN.get(marker, ()))
        ),
    )
    # Each piece of a profile begins with its number and how many there are.
    icc = b"".join(piece[2:] for piece in sorted(found(_APP2, _ICC)))
    picture = Picture("JPEG", samples, False, icc or None, metadata, encoding, notes=notes)
    xmp, extras = metadata.xmp or b"", set()
    if b"hdrgm:Version" in xmp or b"HDRGainMap" in rest or found(_APP2, _ISO_GAIN):
        extras.add("a gain map")
    elif found(_APP2, _MPF) or _START_MARKER + b"\xff" in rest:
        extras.add("further pictures")
    if b"ftyp" in rest:
        extras.add("a video")
    return picture.without_extras(extras)


def _split(data: bytes) -> tuple[list[Segment], bytes, bytes]:
    """The segments before the pixels, with the headers of all scans; a file without metadata;
    and what follows the picture. Raises EOFError where the file ends in its header."""
    segments: list[Segment] = []
    place, start, pixels_end = 2, 0, len(data)
    while found := _MARKER.search(data, place):
        marker = found[1][0]
        place = found.end()
        if marker == _END:
            pixels_end = place
            break
        place += int.from_bytes(data[place : place + 2], "big")
        if place > len(data):
            pixels_end = found.start()
            break
        if marker == _SCAN and not start:
            start = found.start()
        if marker == _SCAN or not start:
            segments.append((marker, data[found.end() + 2 : place]))
    if not start:
        raise EOFError
    plain = b"".join(
        segment_bytes(marker, body)
        for marker, body in segments
        if not (marker in _METADATA or marker == _SCAN)
        # These two say what the samples mean, if they are whole.
        or (marker == _APP0 and body.startswith(_JFIF) and len(body) >= 14)
        or (marker == _APP14 and body.startswith(b"Adobe") and len(body) >= 12)
    )
    return segments, _START_MARKER + plain + data[start:pixels_end], data[pixels_end:]


def segment_bytes(marker: int, body: bytes) -> bytes:
    """A segment as it lies in a file."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def _has_all_scans(segments: list[Segment], frame: Segment) -> bool:
    """Whether each coefficient of each component is given to its last bit, as T.81, G.1 has it."""
    kind, body = frame
    missing = {number: set(range(64)) for number in body[6 : 6 + 3 * body[5] : 3]}
    for scan in (body for marker, body in segments if marker == _SCAN):
        numbers, rest = scan[1 : 1 + 2 * scan[0] : 2], scan[1 + 2 * scan[0] :]
        for number in numbers:
            if kind != _PROGRESSIVE:
                missing.pop(number, None)
            elif number in missing and rest[2] & 15 == 0:
                missing[number] -= set(range(rest[0], rest[1] + 1))
    return not any(missing.values())


def is_intact(pixels: bytes) -> bool:
    """Whether all of the picture is there, as FFmpeg sees it; libjpeg greys the rest silently."""
    import av

    decoder = av.CodecContext.create("mjpeg", "r")
    decoder.options = {"err_detect": "explode"}
    try:
        return bool([*decoder.decode(av.Packet(pixels)), *decoder.decode(None)])
    except av.error.InvalidDataError:
        return False
    except av.error.FFmpegError:
        return True  # a kind of JPEG that FFmpeg does not know


def encode(picture: Picture, warn: Callable[[str], None]) -> list[bytes]:
    """The pieces of a JPEG file.

    Its quantisation tables are the input's where those are finer than at quality 92, and those
    of quality 92 elsewhere, so that what was restored isn't lost again. The chroma subsampling
    is the input's. What was no JPEG is written at quality 95 without subsampling.

    Args:
        picture: grey, RGB or CMYK of 8 bits.
        warn: told which metadata are too long for JPEG and were left out.
    """
    encoding, metadata = picture.encoding, picture.metadata
    options: dict[str, object] = {"quality": _QUALITY_FROM_OTHER_FORMATS, "subsampling": 0}
    if encoding.tables:
        plain = io.BytesIO()
        Image.new("RGB", (8, 8)).save(plain, "JPEG", quality=_MIN_QUALITY)
        plain.seek(0)
        tables, least = (encoding.tables * 2)[:2], JpegImageFile(plain).quantization.values()
        finest = [list(map(min, *pair)) for pair in zip(tables, least, strict=True)]
        # The quality only makes Pillow take a large enough buffer.
        options = {"quality": 100, "qtables": finest, "subsampling": encoding.subsampling}
    if metadata.dpi is not None:
        options["dpi"] = tuple(min(65535, max(1, round(dpi))) for dpi in metadata.dpi)
    for name, title, data, prefix in (
        ("exif", "EXIF data", metadata.exif, _EXIF),
        ("xmp", "XMP data", metadata.xmp, _XMP),
        ("comment", "comments", metadata.comment if metadata.parts is None else None, b""),
    ):
        if data is not None and len(prefix + data) > _MAX_SEGMENT_BYTES:
            warn(f"the {title} of {len(data) // 1000} KB don't fit into JPEG: left out")
        elif data is not None:
            options[name] = prefix + data if name == "exif" else data
    extra = list(metadata.parts or ())
    if metadata.photoshop is not None:
        room = _MAX_SEGMENT_BYTES - len(_PHOTOSHOP)
        for start in range(0, len(metadata.photoshop), room):
            piece = _PHOTOSHOP + metadata.photoshop[start : start + room]
            extra.append(segment_bytes(_APP13, piece))
    options |= {"icc_profile": picture.icc, "extra": b"".join(extra)}
    image, file = to_image(picture), io.BytesIO()
    try:
        image.save(file, "JPEG", progressive=encoding.progressive, **options)
    except OSError:  # a noisy picture does not fit Pillow's buffer for progressive files
        file = io.BytesIO()
        image.save(file, "JPEG", **options)
    return [file.getvalue()]
