"""PNG files: their chunks. libpng decodes and encodes the pixels, through imagecodecs.

Only the chunks of the pixels are given to it, so that no metadata can fail a photo.

Source: W3C PNG specification, third edition, chapters 5 and 11.
"""

import binascii
import struct
import zlib
from contextlib import suppress
from dataclasses import replace
from typing import BinaryIO

import numpy as np

from deblurcli.io.image import chunk_bytes
from deblurcli.io.photos.colour import SRGB_PRIMARIES, are_srgb_primaries, make_profile, with_cicp
from deblurcli.io.photos.exif import read_exif
from deblurcli.io.photos.metadata import Metadata, iptc_of, photoshop_from_iptc
from deblurcli.io.photos.photo import ANIMATED, DAMAGED, Picture, ReadOptions

SIGNATURE = b"\x89PNG\r\n\x1a\n"

Chunk = tuple[bytes, bytes]
"""A chunk's type and data."""

_MAX_TEXT_BYTES = 64 << 20
_XMP_KEYWORD = b"XML:com.adobe.xmp"
_RAW_KEYWORD = b"Raw profile type "
_MIN_BYTES = {b"pHYs": 9, b"cHRM": 32, b"gAMA": 4, b"sRGB": 1}
# They describe samples, palettes or frames that the new file does not have.
_STALE = {b"tRNS", b"bKGD", b"hIST", b"sPLT", b"sBIT", b"acTL", b"fcTL", b"fdAT", b"iDOT", b"eXIf"}


def read(file: BinaryIO, options: ReadOptions) -> Picture:
    """Reads a PNG file, of an animated one the picture for viewers that know no animation."""
    import imagecodecs

    file.seek(len(SIGNATURE) + 8)
    width, height, depth, colour = struct.unpack(">IIBB", file.read(10))
    options.check_size(width, height, deep=depth > 8)
    file.seek(len(SIGNATURE))
    encoded, critical = bytearray(SIGNATURE), list[tuple[bytes, slice]]()
    chunks: list[Chunk] = []
    text_bytes, kind = 0, b""
    while len(head := file.read(8)) == 8 and kind != b"IEND":
        length, kind = struct.unpack(">I4s", head)
        if kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            options.check_size(width, height, len(encoded) + length, deep=depth > 8)
            encoded += head
            critical.append((kind, slice(len(encoded), len(encoded) + length)))
            while piece := file.read(min(1 << 20, critical[-1][1].stop + 4 - len(encoded))):
                encoded += piece
        elif kind == b"fdAT" or text_bytes + length > _MAX_TEXT_BYTES:
            file.seek(length + 4, 1)
        else:
            text_bytes += length
            chunks.append((kind, file.read(length + 4)[:length]))
    by_kind = dict(chunks)
    notes = [ANIMATED] if b"acTL" in by_kind else []
    transparent = {bytes(encoded[piece]) for kind, piece in critical if kind == b"tRNS"}
    try:
        decoded = imagecodecs.png_decode(encoded)
    except RuntimeError:
        if not (options.keep_damaged and b"IDAT" in dict(critical)):
            raise
        encoded = _completed(encoded, critical)
        decoded = imagecodecs.png_decode(encoded)
        notes.append(DAMAGED)
    del encoded  # it may be as large as the picture
    picture = Picture.of("PNG", decoded)
    if transparent and (not picture.has_alpha or colour in (4, 6)):
        notes.append("its transparent colour is damaged: left out")
    elif len(transparent) > 1:
        notes.append("its transparent colour is given twice: one is left out")
    icc = None
    with suppress(zlib.error):
        icc = _decompress(by_kind.get(b"iCCP", b"").partition(b"\0")[2][1:]) or None
    if icc is None:  # or damaged
        chunks = [chunk for chunk in chunks if chunk[0] != b"iCCP"]
    picture = replace(picture, icc=icc, metadata=_read_metadata(chunks), notes=tuple(notes))
    return _with_colours(picture, by_kind)


def _completed(encoded: bytearray, critical: list[tuple[bytes, slice]]) -> bytearray:
    """A file whose pixels are those up to the damage, and zeros from there."""
    width, height, depth, colour, interlaced = struct.unpack_from(">IIBBxxB", encoded, 16)
    row_bytes = 2 + width * depth * {2: 3, 4: 2, 6: 4}.get(colour, 1) // 8
    # Seven interlaced pictures take more than one; libpng leaves what is too much.
    left = 2 * (height + 4) * (row_bytes + 4) if interlaced else height * row_bytes
    inflater, packer, packed = zlib.decompressobj(), zlib.compressobj(1), bytearray()
    result = bytearray(SIGNATURE)
    with suppress(zlib.error):
        for kind, piece in critical:
            if kind not in (b"IDAT", b"IEND"):
                result += chunk_bytes(kind, encoded[piece])  # with a sound checksum
            for start in range(piece.start, piece.stop if kind == b"IDAT" else 0, 256):
                if left:  # in small steps, up to where the damage is
                    part = encoded[start : min(start + 256, piece.stop)]
                    pixels = inflater.decompress(part, left)
                    packed += packer.compress(pixels)
                    left -= len(pixels)
    packed += packer.compress(bytes(left)) + packer.flush()
    return result + chunk_bytes(b"IDAT", packed) + chunk_bytes(b"IEND", b"")


def _with_colours(picture: Picture, chunks: dict[bytes, bytes]) -> Picture:
    """A picture with the colours that the chunks describe; which count is said in chapter 4.3."""
    import imagecodecs

    if len(cicp := chunks.get(b"cICP", b"")) == 4:
        return with_cicp(replace(picture, icc=None), (cicp[0], cicp[1]))
    if picture.icc is not None or b"sRGB" in chunks:
        return picture
    gamma, primaries = None, SRGB_PRIMARIES
    if len(body := chunks.get(b"gAMA", b"")) == 4:
        value = int.from_bytes(body, "big") / 100_000
        gamma = 1 / value if 0.1 < value < 2 and abs(value - 1 / 2.2) > 0.02 else None
    if len(body := chunks.get(b"cHRM", b"")) == 32:
        primaries = tuple(number / 100_000 for number in struct.unpack(">8I", body))
    is_srgb = gamma is None and are_srgb_primaries(primaries)
    with suppress(ValueError):  # no colours at all
        if picture.samples.shape[2] == 1 and gamma is not None:
            return replace(picture, icc=imagecodecs.cms_profile("gray", gamma=gamma))
        if picture.samples.shape[2] == 3 and not is_srgb:
            return replace(picture, icc=make_profile(gamma, primaries))
    return picture


def _read_metadata(chunks: list[Chunk]) -> Metadata:
    """The metadata in a file's chunks; `parts` are the chunks to write as they are."""
    exif = xmp = photoshop = comment = dpi = None
    parts = []
    for kind, data in chunks:
        keyword, text = _read_text(kind, data)
        raw, name = b"", keyword.removeprefix(_RAW_KEYWORD).lower()
        if keyword.startswith(_RAW_KEYWORD):
            # ImageMagick and exiftool write hexadecimal digits after a name and a length.
            with suppress(ValueError):
                raw = binascii.unhexlify(b"".join(text.split()[2:]))
        if kind == b"eXIf":
            exif, _ = read_exif(data)
        elif keyword == _XMP_KEYWORD:
            xmp = text
        elif raw and name in (b"exif", b"app1") and (found := read_exif(raw)[0]):
            exif = exif or found
        elif raw and name in (b"iptc", b"8bim"):
            photoshop = raw if raw.startswith(b"8BIM") else photoshop_from_iptc(raw)
        elif raw and name == b"xmp":
            xmp = xmp or raw
        elif len(data) < _MIN_BYTES.get(kind, 0):  # Pillow would call the result broken
            continue
        elif kind[:1].islower() and kind not in _STALE:
            parts.append(chunk_bytes(kind, data))
        if keyword == b"Comment":
            comment = text
        if kind == b"pHYs" and len(data) == 9 and data[8] == 1:
            x, y = struct.unpack_from(">II", data)
            dpi = (x * 0.0254, y * 0.0254)
    return Metadata(exif, xmp, photoshop, comment, dpi, tuple(parts))


def _read_text(kind: bytes, data: bytes) -> tuple[bytes, bytes]:
    """Keyword and text of a text chunk; empty for others and damaged ones."""
    keyword, _, rest = data.partition(b"\0")
    with suppress(ValueError, zlib.error):
        if kind == b"tEXt":
            return keyword, rest
        if kind == b"zTXt":
            return keyword, _decompress(rest[1:])
        if kind == b"iTXt":
            _, _, text = rest[2:].split(b"\0", 2)
            return keyword, _decompress(text) if rest[:1] == b"\1" else text
    return b"", b""


def encode(picture: Picture) -> list[bytes | memoryview]:
    """The pieces of a PNG file."""
    import imagecodecs

    metadata, channels = picture.metadata, picture.channels
    # Its own guess leaves no room for the byte before each row of thin pictures.
    size = channels.nbytes + channels.nbytes // 64 + 8 * len(channels) + (1 << 16)
    room = np.empty(size, np.uint8)  # given whole, as what it makes itself is copied in the end
    # The last imagecodecs for Python 3.10 takes no views, nor the strides that they leave behind.
    values = channels.ravel().reshape(channels.shape)
    encoded = memoryview(imagecodecs.png_encode(values, level=6, out=room))  # type: ignore[arg-type]
    header = len(SIGNATURE) + 8 + 13 + 4
    pieces: list[bytes | memoryview] = [encoded[:header], *(metadata.parts or ())]
    if metadata.parts is None:
        if picture.cicp is not None:
            pieces.append(chunk_bytes(b"cICP", bytes([*picture.cicp, 0, 1])))
        if picture.icc:
            packed = zlib.compress(picture.icc)
            pieces.append(chunk_bytes(b"iCCP", b"ICC profile\0\0" + packed))
        if metadata.dpi is not None:
            x, y = (min(2**31 - 1, max(1, round(dpi / 0.0254))) for dpi in metadata.dpi)
            pieces.append(chunk_bytes(b"pHYs", struct.pack(">IIB", x, y, 1)))
        if metadata.comment:
            text = metadata.comment.replace(b"\0", b" ")
            pieces.append(chunk_bytes(b"tEXt", b"Comment\0" + text))
    if metadata.exif is not None:
        pieces.append(chunk_bytes(b"eXIf", metadata.exif))
    if metadata.xmp is not None:
        pieces.append(chunk_bytes(b"iTXt", _XMP_KEYWORD + b"\0\0\0\0\0" + metadata.xmp))
    if (iptc := iptc_of(metadata.photoshop)) is not None:
        resources = photoshop_from_iptc(iptc)
        digits = binascii.hexlify(resources, b"\n", -36)
        text = zlib.compress(b"\niptc\n%8d\n%s\n" % (len(resources), digits))
        pieces.append(chunk_bytes(b"zTXt", _RAW_KEYWORD + b"iptc\0\0" + text))
    return [*pieces, encoded[header:]]


def _decompress(data: bytes) -> bytes:
    return zlib.decompressobj().decompress(data, _MAX_TEXT_BYTES)
