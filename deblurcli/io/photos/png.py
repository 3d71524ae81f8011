"""PNG files: their chunks. libpng decodes and encodes the pixels, through imagecodecs.

Only the chunks of the pixels are given to it, so that no metadata can fail a photo.

Source: W3C PNG specification, third edition, chapters 5 and 11.
"""

from __future__ import annotations

import binascii
import struct
import zlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from typing import BinaryIO

import numpy as np

from deblurcli.io.photos.colour import (
    D65,
    SRGB_PRIMARIES,
    make_grey_profile,
    make_profile,
    with_cicp,
)
from deblurcli.io.photos.metadata import (
    Metadata,
    exif_from,
    iptc_of,
    photoshop_from_iptc,
    without_stale_resources,
)
from deblurcli.io.photos.photo import DAMAGED, Buffer, Picture, ReadOptions, join_alpha, split_alpha

SIGNATURE = b"\x89PNG\r\n\x1a\n"

Chunk = tuple[bytes, bytes]
"""A chunk's type and data."""

_MAX_TEXT_BYTES = 64 << 20
_XMP_KEYWORD = b"XML:com.adobe.xmp"
_RAW_KEYWORD = b"Raw profile type "
# Adam7: the first column and row of each pass, and the steps from there.
_PASSES = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)
)  # fmt: skip
_COLOUR = {b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"cICP", b"mDCV", b"cLLI"}
# They describe samples, palettes or frames that the new file does not have.
_STALE = {b"tRNS", b"bKGD", b"hIST", b"sPLT", b"sBIT", b"acTL", b"fcTL", b"fdAT", b"iDOT", b"eXIf"}


def read(file: BinaryIO, options: ReadOptions) -> Picture:
    """Reads a PNG file, of an animated one the picture for viewers that know no animation.

    Raises:
        PhotoError: too large.
        Exception: whatever imagecodecs raises for damaged files.
    """
    import imagecodecs

    head = file.read(len(SIGNATURE) + 21)
    width, height = struct.unpack_from(">II", head, len(SIGNATURE) + 8)
    options.check_size(width, height)
    file.seek(len(SIGNATURE))
    critical: list[Chunk] = []
    chunks: list[Chunk] = []
    pixel_bytes = text_bytes = 0
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            pixel_bytes += length
            options.check_size(width, height, pixel_bytes)
            critical.append((kind, head + file.read(length + 4)))
            if kind == b"IEND":
                break
        elif kind == b"fdAT" or text_bytes + length > _MAX_TEXT_BYTES:
            file.seek(length + 4, 1)
        else:
            text_bytes += length
            chunks.append((kind, file.read(length + 4)[:length]))
    notes = ("animated: only the first frame is restored",) if b"acTL" in dict(chunks) else ()
    try:
        decoded = imagecodecs.png_decode(b"".join([SIGNATURE, *(raw for _, raw in critical)]))
    except RuntimeError:
        if not options.keep_damaged:
            raise
        decoded = imagecodecs.png_decode(_repair(critical))
        notes = (*notes, DAMAGED)
    samples, alpha = split_alpha(decoded)
    by_kind = dict(chunks)
    icc = None
    if (packed := by_kind.get(b"iCCP")) is not None:
        with suppress(zlib.error):
            icc = _decompress(packed.partition(b"\0")[2][1:]) or None
    palette = dict(critical).get(b"PLTE", b"")[8:-4]
    if samples.shape[2] == 3 and alpha is None and icc is None and palette:
        # Without a profile only: one for RGB fits no grey.
        colours = np.frombuffer(palette[: len(palette) // 3 * 3], np.uint8).reshape(-1, 3)
        if (colours == colours[:, :1]).all():
            samples = np.ascontiguousarray(samples[..., :1])
    picture = Picture("PNG", samples, alpha, icc, _read_metadata(chunks), notes=notes)
    return _with_colours(picture, by_kind)


def _with_colours(picture: Picture, chunks: dict[bytes, bytes]) -> Picture:
    """A picture with the colours that the chunks describe; which count is said in chapter 4.3."""
    if len(cicp := chunks.get(b"cICP", b"")) == 4:
        return with_cicp(replace(picture, icc=None), (cicp[0], cicp[1]))
    if picture.icc is not None or b"sRGB" in chunks:
        return picture
    gamma, primaries, white = None, SRGB_PRIMARIES, D65
    if len(body := chunks.get(b"gAMA", b"")) == 4:
        value = int.from_bytes(body, "big") / 100_000
        if 0.1 < value < 2 and abs(value - 1 / 2.2) > 0.02:
            gamma = 1 / value
    if len(body := chunks.get(b"cHRM", b"")) == 32:
        given = [number / 100_000 for number in struct.unpack(">8I", body)]
        if max(abs(a - b) for a, b in zip(given, (*D65, *SRGB_PRIMARIES), strict=True)) > 0.005:
            white, primaries = (given[0], given[1]), tuple(given[2:])
    with suppress(ValueError):  # no colours at all
        if picture.samples.shape[2] == 1 and gamma is not None:
            return replace(picture, icc=make_grey_profile(gamma))
        if picture.samples.shape[2] == 3 and (gamma is not None or primaries != SRGB_PRIMARIES):
            return replace(picture, icc=make_profile(gamma, primaries, white))
    return picture


def _repair(critical: list[Chunk]) -> bytes:
    """A PNG file with what can be read of a damaged one's pixels, and zeros for the rest."""
    data = b"".join(raw[8:-4] for kind, raw in critical if kind == b"IDAT")
    header = critical[0][1]
    width, height, depth, colour, interlaced = struct.unpack_from(">IIBBxxB", header, 8)
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    whole = 0
    for left, top, x_step, y_step in _PASSES if interlaced else [(0, 0, 1, 1)]:
        columns = (width - left + x_step - 1) // x_step
        rows = (height - top + y_step - 1) // y_step
        whole += rows * (1 + (columns * bits + 7) // 8) if columns > 0 else 0
    inflater, pixels = zlib.decompressobj(), bytearray()
    with suppress(zlib.error):
        for start in range(0, len(data), 256):  # up to where the damage is
            pixels += inflater.decompress(data[start : start + 256], whole - len(pixels) + 1)
    pixels = pixels[:whole].ljust(whole, b"\0")
    others = [raw for kind, raw in critical if kind not in (b"IDAT", b"IEND")]
    end = [_chunk_bytes(b"IDAT", zlib.compress(pixels, 1)), _chunk_bytes(b"IEND", b"")]
    return b"".join([SIGNATURE, *others, *end])


def _read_metadata(chunks: list[Chunk]) -> Metadata:
    """The metadata in a file's chunks; `parts` are the chunks to write as they are."""
    exif = xmp = photoshop = comment = dpi = None
    parts: list[Chunk] = []
    for kind, data in chunks:
        if kind == b"eXIf":
            exif = exif_from(data)
        elif kind == b"pHYs" and len(data) == 9:
            x, y, unit = struct.unpack(">IIB", data)
            if unit == 1:
                dpi = (x * 0.0254, y * 0.0254)
        keyword, text = _read_text(kind, data)
        if keyword == _XMP_KEYWORD:
            xmp = text
            continue
        if keyword.startswith(_RAW_KEYWORD):
            raw = _from_raw_profile(text)
            name = keyword[len(_RAW_KEYWORD) :].lower()
            if name in (b"exif", b"app1") and raw[:4] in (b"Exif", b"II*\0", b"MM\0*"):
                exif = exif or exif_from(raw)
                continue
            if name in (b"iptc", b"8bim") and raw:
                photoshop = raw if raw.startswith(b"8BIM") else photoshop_from_iptc(raw)
                continue
            if name == b"xmp" and raw:
                xmp = xmp or raw
                continue
        if keyword == b"Comment":
            comment = text
        ancillary = bool(kind[:1].islower())
        if ancillary and kind not in _STALE:
            parts.append((kind, data))
    return Metadata(
        exif=exif,
        xmp=xmp,
        photoshop=without_stale_resources(photoshop),
        comment=comment,
        dpi=dpi,
        parts=tuple(parts),
    )


def public_parts(metadata: Metadata) -> tuple[Chunk, ...]:
    """The chunks that say how to show the pixels, and nothing else."""
    return tuple(part for part in metadata.parts or () if part[0] in (*_COLOUR, b"pHYs"))


def encode(picture: Picture) -> list[Buffer]:
    """The pieces of a PNG file."""
    import imagecodecs

    samples = join_alpha(picture)
    # Its own guess leaves no room for the byte before each row of thin pictures.
    room = samples.nbytes + samples.nbytes // 64 + 8 * len(samples) + (1 << 16)
    # The last imagecodecs for Python 3.10 takes no views, nor the strides that they leave behind.
    values = samples.ravel().reshape(samples.shape)
    encoded = imagecodecs.png_encode(values, level=6, out=room)
    header = len(SIGNATURE) + 8 + 13 + 4
    added = b"".join(_chunk_bytes(*chunk) for chunk in _chunks(picture))
    return [encoded[:header], added, encoded[header:]]


def _chunks(picture: Picture) -> Iterable[Chunk]:
    metadata, icc = picture.metadata, picture.icc
    parts = metadata.parts
    if parts is None:
        parts = []
        if picture.cicp is not None:
            parts.append((b"cICP", bytes([*picture.cicp, 0, 1])))
        if icc:
            parts.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(icc)))
        if metadata.dpi is not None:
            x, y = (min(2**31 - 1, max(1, round(dpi / 0.0254))) for dpi in metadata.dpi)
            parts.append((b"pHYs", struct.pack(">IIB", x, y, 1)))
        if metadata.comment:
            parts.append((b"tEXt", b"Comment\0" + metadata.comment.replace(b"\0", b" ")))
    yield from parts
    if metadata.exif is not None:
        yield b"eXIf", metadata.exif
    if metadata.xmp is not None:
        yield b"iTXt", _XMP_KEYWORD + b"\0\0\0\0\0" + metadata.xmp
    if (iptc := iptc_of(metadata.photoshop)) is not None and metadata.photoshop is not None:
        yield (
            b"zTXt",
            b"%siptc\0\0%s"
            % (
                _RAW_KEYWORD,
                zlib.compress(_raw_profile(b"iptc", photoshop_from_iptc(iptc))),
            ),
        )


def _chunk_bytes(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


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


def _decompress(data: bytes) -> bytes:
    return zlib.decompressobj().decompress(data, _MAX_TEXT_BYTES)


def _from_raw_profile(text: bytes) -> bytes:
    """What ImageMagick and exiftool write as hexadecimal digits after a name and a length."""
    with suppress(ValueError, binascii.Error):
        _, _, digits = text.strip().split(b"\n", 2)
        return binascii.unhexlify(b"".join(digits.split()))
    return b""


def _raw_profile(name: bytes, data: bytes) -> bytes:
    digits = binascii.hexlify(data)
    lines = [digits[i : i + 72] for i in range(0, len(digits), 72)]
    return b"\n%s\n%8d\n%s\n" % (name, len(data), b"\n".join(lines))
