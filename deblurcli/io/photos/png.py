"""PNG files: their chunks. libpng decodes and encodes the pixels, through imagecodecs.

Only the chunks of the pixels are given to it, so that no metadata can fail a photo.

Source: W3C PNG specification, third edition, chapters 5 and 11.
"""

from __future__ import annotations

import binascii
import io
import struct
import zlib
from contextlib import nullcontext, suppress
from dataclasses import replace
from typing import BinaryIO

import numpy as np

from deblurcli.io.photos.colour import (
    SRGB_PRIMARIES,
    are_srgb_primaries,
    make_profile,
    with_cicp,
)
from deblurcli.io.photos.exif import readable_exif
from deblurcli.io.photos.metadata import (
    Metadata,
    iptc_of,
    photoshop_from_iptc,
    without_stale_resources,
)
from deblurcli.io.photos.photo import (
    ANIMATED,
    DAMAGED,
    Buffer,
    Picture,
    ReadOptions,
    Samples,
    split_alpha,
)

SIGNATURE = b"\x89PNG\r\n\x1a\n"

Chunk = tuple[bytes, bytes]
"""A chunk's type and data."""

_BAD_TRANSPARENCY = "its transparent colour is damaged: left out"
_MAX_TEXT_BYTES = 64 << 20
# Adam7: the first column and row of each pass, and the steps from there.
_PASSES = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)
)  # fmt: skip
_XMP_KEYWORD = b"XML:com.adobe.xmp"
_RAW_KEYWORD = b"Raw profile type "
# They describe samples, palettes or frames that the new file does not have.
_STALE = {b"tRNS", b"bKGD", b"hIST", b"sPLT", b"sBIT", b"acTL", b"fcTL", b"fdAT", b"iDOT", b"eXIf"}


def read(file: BinaryIO, options: ReadOptions) -> Picture:
    """Reads a PNG file, of an animated one the picture for viewers that know no animation."""
    import imagecodecs

    file.seek(len(SIGNATURE) + 8)
    width, height = struct.unpack(">II", file.read(8))
    options.check_size(width, height)
    file.seek(len(SIGNATURE))
    critical: list[Chunk] = []
    chunks: list[Chunk] = []
    notes: tuple[str, ...] = ()
    pixel_bytes = text_bytes = 0
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            pixel_bytes += length
            options.check_size(width, height, pixel_bytes)
            raw = head + file.read(length + 4)
            if kind == b"tRNS":
                raw = _checked_transparency(raw, critical)
                notes = notes if raw else (_BAD_TRANSPARENCY,)
            elif kind == b"PLTE" and not critical[0][1][17] & 2:
                raw = b""  # in a grey picture: of no use, and libpng complains of it, too
            if raw:
                critical.append((kind, raw))
            if kind == b"IEND":
                break
        elif kind == b"fdAT" or text_bytes + length > _MAX_TEXT_BYTES:
            file.seek(length + 4, 1)
        else:
            text_bytes += length
            chunks.append((kind, file.read(length + 4)[:length]))
    by_kind = dict(chunks)
    notes += (ANIMATED,) if b"acTL" in by_kind else ()
    interlaced = critical[0][1][20]
    try:
        if interlaced:  # of which libpng would complain on stderr
            decoded = _decode_passes(critical)
        else:
            decoded = imagecodecs.png_decode(b"".join([SIGNATURE, *(raw for _, raw in critical)]))
    except (RuntimeError, EOFError, zlib.error):
        if not options.keep_damaged:
            raise
        decoded = _decode_passes(critical, keep_damaged=True)
        notes = (*notes, DAMAGED)
    samples, alpha = split_alpha(decoded)
    icc = None
    with suppress(zlib.error):
        icc = _decompress(by_kind.get(b"iCCP", b"").partition(b"\0")[2][1:]) or None
    picture = Picture("PNG", samples, alpha, icc, _read_metadata(chunks), notes=notes)
    return _with_colours(picture, by_kind)


def _checked_transparency(raw: bytes, before: list[Chunk]) -> bytes:
    """A tRNS chunk as libpng takes it without complaints on stderr; nothing if it is damaged."""
    depth, colour = before[0][1][16:18]
    kinds, body = [kind for kind, _ in before], raw[8:-4]
    palette = next((len(plte) // 3 - 4 for kind, plte in before if kind == b"PLTE"), 0)
    fits = 0 < len(body) <= palette if colour == 3 else len(body) == {0: 2, 2: 6}.get(colour)
    if not fits or chunk_bytes(b"tRNS", body) != raw or {b"tRNS", b"IDAT"} & {*kinds}:
        return b""
    if colour == 3:
        return raw
    return chunk_bytes(b"tRNS", (np.frombuffer(body, ">u2") & 2**depth - 1).astype(">u2").tobytes())


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


def _decode_passes(critical: list[Chunk], *, keep_damaged: bool = False) -> Samples:
    """The pixels, each pass decoded as a picture of its own; zeros for what damage took."""
    import imagecodecs

    header = struct.unpack_from(">IIBBxxB", critical[0][1], 8)
    width, height, depth, colour, interlaced = header
    bits = depth * {2: 3, 4: 2, 6: 4}.get(colour, 1)
    passes = []
    for left, top, x_step, y_step in _PASSES if interlaced else [(0, 0, 1, 1)]:
        place = slice(top, height, y_step), slice(left, width, x_step)
        rows, columns = (len(range(axis.start, axis.stop, axis.step)) for axis in place)
        if rows and columns:
            passes.append((place, rows, columns, rows * (1 + (columns * bits + 7) // 8)))
    whole = sum(size for *_, size in passes)
    data = b"".join(raw[8:-4] for kind, raw in critical if kind == b"IDAT")
    inflater, pixels = zlib.decompressobj(), bytearray()
    with suppress(zlib.error) if keep_damaged else nullcontext():
        for start in range(0, len(data), 256):  # up to where the damage is
            pixels += inflater.decompress(data[start : start + 256], whole - len(pixels) + 1)
            if len(pixels) > whole:
                break
    if len(pixels) < whole and not keep_damaged:
        raise EOFError
    stream = io.BytesIO(pixels.ljust(whole, b"\0"))
    del data, pixels
    colours = [raw for kind, raw in critical if kind in (b"PLTE", b"tRNS")]
    decoded: Samples | None = None
    for place, rows, columns, size in passes:
        alone = struct.pack(">IIBB3x", columns, rows, depth, colour)
        packed = chunk_bytes(b"IDAT", zlib.compress(stream.read(size), 1))
        file = [SIGNATURE, chunk_bytes(b"IHDR", alone), *colours, packed, chunk_bytes(b"IEND", b"")]
        part = imagecodecs.png_decode(b"".join(file))
        if decoded is None:
            decoded = np.empty((height, width, *part.shape[2:]), part.dtype)
        decoded[place] = part
    if decoded is None:
        raise ValueError("no pixels")
    return decoded


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
            exif = readable_exif(data)
        elif keyword == _XMP_KEYWORD:
            xmp = text
        elif raw and name in (b"exif", b"app1") and readable_exif(raw):
            exif = exif or readable_exif(raw)
        elif raw and name in (b"iptc", b"8bim"):
            photoshop = raw if raw.startswith(b"8BIM") else photoshop_from_iptc(raw)
        elif raw and name == b"xmp":
            xmp = xmp or raw
        elif kind[:1].islower() and kind not in _STALE:
            parts.append(chunk_bytes(kind, data))
        if keyword == b"Comment":
            comment = text
        if kind == b"pHYs" and len(data) == 9 and data[8] == 1:
            x, y = struct.unpack_from(">II", data)
            dpi = (x * 0.0254, y * 0.0254)
    photoshop = without_stale_resources(photoshop or b"")
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


def encode(picture: Picture) -> list[Buffer]:
    """The pieces of a PNG file."""
    import imagecodecs

    metadata, samples = picture.metadata, picture.channels
    # Its own guess leaves no room for the byte before each row of thin pictures.
    room = samples.nbytes + samples.nbytes // 64 + 8 * len(samples) + (1 << 16)
    # The last imagecodecs for Python 3.10 takes no views, nor the strides that they leave behind.
    values = samples.ravel().reshape(samples.shape)
    encoded = imagecodecs.png_encode(values, level=6, out=room)
    header = len(SIGNATURE) + 8 + 13 + 4
    pieces: list[Buffer] = [encoded[:header], *(metadata.parts or ())]
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


def chunk_bytes(kind: bytes, data: bytes) -> bytes:
    """A chunk as it lies in a file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _decompress(data: bytes) -> bytes:
    return zlib.decompressobj().decompress(data, _MAX_TEXT_BYTES)
