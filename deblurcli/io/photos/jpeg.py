"""JPEG files: their segments, and encoding no coarser than the input was.

The segments are read here and only what decodes the pixels is given to Pillow, so that no
metadata, however damaged, can fail a photo.

Source: ITU-T T.81, annex B (segments); XMP specification part 3, 1.1.3 (in JPEG).
"""

import io
import re
import struct
from collections.abc import Callable
from typing import BinaryIO, NamedTuple

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile, get_sampling

from deblurcli.io.photos.exif import read_exif, readable_exif
from deblurcli.io.photos.metadata import Metadata, without_stale_resources
from deblurcli.io.photos.photo import DAMAGED, Encoding, PhotoError, Picture, ReadOptions
from deblurcli.io.photos.pillow import opened, to_array, to_image

_MIN_QUALITY = 92
_QUALITY_FROM_OTHER_FORMATS = 95
_MAX_SEGMENT_BYTES = 65533
_HEAD_BYTES = 1 << 26  # in which the size has to be said

_APP0, _APP1, _APP2, _APP13, _APP14, _APP15, _COMMENT = 0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xEF, 0xFE
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


class Segment(NamedTuple):
    """A marker's number and what follows its length."""

    marker: int
    body: bytes

    @property
    def is_metadata(self) -> bool:
        """Whether decoders can do without it."""
        return _APP0 <= self.marker <= _APP15 or self.marker == _COMMENT

    def to_bytes(self) -> bytes:
        """As it lies in a file."""
        return struct.pack(">BBH", 0xFF, self.marker, len(self.body) + 2) + self.body


def read(file: BinaryIO, options: ReadOptions) -> Picture:
    """Reads a JPEG file, or the first picture of an MPO file."""
    data = file.read(_HEAD_BYTES)
    segments, pixels, rest = _split(data)
    frame = next((s for s in segments if s.marker in _FRAMES), Segment(0, b""))
    if len(frame.body) < 6:
        raise ValueError("its size is missing")
    precision, height, width = struct.unpack_from(">BHH", frame.body)
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
        dpi = image.info.get("dpi")
        array = to_array(image)
        samples = array.reshape(*array.shape[:2], -1)

    def found(marker: int, prefix: bytes) -> list[bytes]:
        """What follows the prefix in each of these segments."""
        bodies = (segment.body for segment in segments if segment.marker == marker)
        return [body[len(prefix) :] for body in bodies if body.startswith(prefix)]

    exif = readable_exif(b"".join(found(_APP1, _EXIF)[:1]))
    metadata = Metadata(
        exif=exif,
        xmp=next(iter(found(_APP1, _XMP)), None),
        photoshop=without_stale_resources(b"".join(found(_APP13, _PHOTOSHOP))),
        comment=next(iter(reversed(found(_COMMENT, b""))), None),
        dpi=dpi or read_exif(exif).dpi,
        parts=tuple(
            segment.to_bytes()
            for segment in segments
            if segment.is_metadata
            and not segment.body.startswith(_REWRITTEN.get(segment.marker, ()))
        ),
    )
    # Each piece of a profile begins with its number and how many there are.
    icc = b"".join(piece[2:] for piece in sorted(found(_APP2, _ICC)))
    picture = Picture("JPEG", samples, False, icc or None, metadata, encoding, notes=notes)
    extras = set()
    if (
        b"hdrgm:Version" in (metadata.xmp or b"")
        or b"HDRGainMap" in rest
        or found(_APP2, _ISO_GAIN)
    ):
        extras.add("a gain map")
    elif found(_APP2, _MPF) or _START_MARKER + b"\xff" in rest:
        extras.add("further pictures")
    if b"ftyp" in rest:
        extras.add("a video")
    return picture.without_extras(extras)


def _split(data: bytes) -> tuple[list[Segment], bytes, bytes]:
    """The segments before the pixels, with the headers of all scans; a file without metadata;
    and what follows the picture.

    Raises:
        EOFError: the file ends in its header.
    """
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
            segments.append(Segment(marker, data[found.end() + 2 : place]))
    if not start:
        raise EOFError
    plain = b"".join(
        segment.to_bytes()
        for segment in segments
        if not (segment.is_metadata or segment.marker == _SCAN)
        # These two say what the samples mean, if they are whole.
        or (segment.marker == _APP0 and segment.body.startswith(_JFIF) and len(segment.body) >= 14)
        or (segment.marker == _APP14 and segment.body[:5] == b"Adobe" and len(segment.body) >= 12)
    )
    return segments, _START_MARKER + plain + data[start:pixels_end], data[pixels_end:]


def _has_all_scans(segments: list[Segment], frame: Segment) -> bool:
    """Whether each coefficient of each component is given to its last bit, as T.81, G.1 has it."""
    missing = {number: set(range(64)) for number in frame.body[6 : 6 + 3 * frame.body[5] : 3]}
    for scan in (segment.body for segment in segments if segment.marker == _SCAN):
        numbers, rest = scan[1 : 1 + 2 * scan[0] : 2], scan[1 + 2 * scan[0] :]
        for number in numbers:
            if frame.marker != _PROGRESSIVE:
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
        pairs = zip(
            (encoding.tables * 2)[:2], JpegImageFile(plain).quantization.values(), strict=True
        )
        finest = [list(map(min, *pair)) for pair in pairs]
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
            extra.append(Segment(_APP13, piece).to_bytes())
    options |= {"icc_profile": picture.icc, "extra": b"".join(extra)}
    image, file = to_image(picture), io.BytesIO()
    try:
        image.save(file, "JPEG", progressive=encoding.progressive, **options)
    except OSError:  # a noisy picture does not fit Pillow's buffer for progressive files
        file = io.BytesIO()
        image.save(file, "JPEG", **options)
    return [file.getvalue()]
