"""From a file to its samples and metadata, whatever the format."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np
from PIL import UnidentifiedImageError

from deblurcli.io.photos import deep, heif, jpeg, png, tiff
from deblurcli.io.photos.metadata import (
    Metadata,
    apply_orientation,
    exif_from,
    make_upright,
    with_upright_xmp,
)
from deblurcli.io.photos.opening import UnreadableError, opened, read_picture, refuse_too_large
from deblurcli.io.photos.picture import Encoding, Picture

_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_MAGIC = {
    "JPEG": b"\xff\xd8\xff",
    "PNG": png.SIGNATURE,
    "GIF": b"GIF8",
    "BMP": b"BM",
}
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_DEEP_PNG_COLOURS = {2, 4, 6}
_DECODER_ERRORS = (  # what decoders raise when fed with damaged data
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    EOFError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True, eq=False)
class Decoded:
    """What a file holds, upright."""

    format: str
    picture: Picture
    metadata: Metadata
    encoding: Encoding
    notes: tuple[str, ...] = ()


def decode(file: BinaryIO) -> Decoded:
    """Decodes a photo, its first frame or page.

    Bilevel pictures become grey and palettes RGB (or grey, if they hold nothing else), because
    what the network restores needs shades that they lack.

    Args:
        file: a seekable file at its start.

    Raises:
        UnreadableError: it is no photo, damaged, truncated, too large, or of a kind that is not
            supported.
        OSError: reading failed.
    """
    format_ = _recognise(file)
    file.seek(0)
    try:
        if format_ == "PNG":
            return _decode_png(file)
        if format_ == "TIFF":
            return _decode_tiff(file)
        if format_ == "HEIF":
            picture, metadata, encoding, notes = heif.read(file, refuse_too_large)
            return _upright("HEIF", picture, notes, metadata, encoding, orientation=1)
        return _decode_with_pillow(file, format_)
    except UnreadableError:
        raise
    except MemoryError as error:
        raise UnreadableError(
            "too large for this computer's memory", "scale it down first"
        ) from error
    except _DECODER_ERRORS as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise UnreadableError(_describe(error), "get an intact copy") from error


def _describe(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "damaged: its header makes no sense"
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    if "truncated" in text.lower() or isinstance(error, EOFError):
        return "truncated: a part of the file is missing"
    return f"damaged ({text})"


def _recognise(file: BinaryIO) -> str:
    head = file.read(32)
    if not head:
        raise UnreadableError("empty: zero bytes", "get an intact copy")
    for name, magic in _MAGIC.items():
        if head.startswith(magic):
            return name
    if head[:4] in _TIFF_MAGIC:
        return "TIFF"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        file.seek(0)
        brands = file.read(min(512, int.from_bytes(head[:4], "big")))[8:]
        found = {brands[i : i + 4] for i in range(0, len(brands), 4)}
        if found & {b"avif", b"avis"}:
            return "AVIF"
        if found & _HEIF_BRANDS or head[8:12] in (b"mif1", b"msf1"):
            return "HEIF"
    raise UnreadableError(
        "not a photo that can be read here",
        "give a JPEG, PNG, WebP, TIFF, BMP, GIF, HEIC or AVIF file",
    )


def _decode_png(file: BinaryIO) -> Decoded:
    head = file.read(33)
    width, height = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    refuse_too_large(width, height)
    chunks = png.read_chunks(file)
    metadata = png.read_metadata(chunks)
    file.seek(0)
    if len(head) == 33 and head[24] == 16 and head[25] in _DEEP_PNG_COLOURS:
        samples = deep.decode("png", file.read())
        alpha = None
        if head[25] in (4, 6):
            samples, alpha = samples[..., :-1], samples[..., -1]
        elif (key := dict(chunks).get(b"tRNS")) is not None and len(key) == 6:
            clear = (samples == np.frombuffer(key, ">u2")).all(axis=2)
            alpha = np.where(clear, 0, 65535).astype(np.uint16)
        picture = Picture(samples, alpha, _png_icc(file))
        return _upright("PNG", picture, _png_notes(chunks), metadata, Encoding())
    with opened(file, "PNG") as image:
        return _upright("PNG", *read_picture(image), metadata=metadata, encoding=Encoding())


def _png_icc(file: BinaryIO) -> bytes | None:
    file.seek(0)
    with opened(file, "PNG") as image:
        icc: bytes | None = image.info.get("icc_profile")
        return icc


def _png_notes(chunks: list[png.Chunk]) -> tuple[str, ...]:
    return ("animated: only the first frame is restored",) if b"acTL" in dict(chunks) else ()


def _decode_tiff(file: BinaryIO) -> Decoded:
    layout = tiff.read_layout(file)
    if layout.get("raw"):
        raise UnreadableError("a camera's raw file", "develop it first, to TIFF or JPEG")
    width, height = tiff.read_size(file)
    refuse_too_large(width, height)
    bits, sample_format = layout["bits"], layout["sample_format"]
    if bits not in (1, 2, 4, 8, 16) or sample_format not in (1, 4):
        kind = "floating point" if sample_format == 3 else f"{bits}-bit"
        raise UnreadableError(f"{kind} pixels are not supported", "convert it to 16 bits")
    metadata = tiff.read_metadata(file)
    if layout["orientation"] != 1:
        metadata = with_upright_xmp(metadata)
    encoding = Encoding(compression=layout["compression"])
    file.seek(0)
    if bits < 16:
        try:
            with opened(file, "TIFF") as image:
                # Pillow turns TIFF pictures, and only those, upright by itself, and without
                # the field for it by what XMP says, which nobody else does.
                image.info.pop("xmp", None)
                picture, notes = read_picture(image)
                return _upright("TIFF", picture, notes, metadata, encoding, orientation=1)
        except UnidentifiedImageError:
            pass  # planes, or tiles of an odd kind: the other reader may know them
    samples, alpha, pages = tiff.read_pixels(file)
    picture = Picture(samples, alpha, tiff.read_icc(file))
    notes = (f"{pages} pages: only the first is restored",) if pages > 1 else ()
    return _upright("TIFF", picture, notes, metadata, encoding, orientation=layout["orientation"])


def _decode_with_pillow(file: BinaryIO, format_: str) -> Decoded:
    with opened(file, format_) as image:
        info = dict(image.info)
        encoding = Encoding()
        if format_ == "JPEG":
            metadata, encoding = jpeg.read_metadata(image), jpeg.read_encoding(image)
        else:
            metadata = Metadata(
                exif=exif_from(info.get("exif")),
                xmp=_as_bytes(info.get("xmp")),
                comment=_as_bytes(info.get("comment")),
                dpi=info.get("dpi"),
            )
        if format_ == "WEBP":
            file.seek(0)
            encoding = Encoding(lossless=_is_lossless_webp(file))
            file.seek(0)
        picture, notes = read_picture(image)
    return _upright(format_, picture, notes, metadata, encoding)


def _upright(
    format_: str,
    picture: Picture,
    notes: tuple[str, ...],
    metadata: Metadata,
    encoding: Encoding,
    orientation: int | None = None,
) -> Decoded:
    """All of it turned upright; `orientation` is that of the pixels where EXIF does not count."""
    metadata, in_exif = make_upright(metadata)
    turn = in_exif if orientation is None else orientation
    if turn != 1:
        alpha = picture.alpha
        picture = replace(
            picture,
            samples=np.ascontiguousarray(apply_orientation(picture.samples, turn)),
            alpha=None if alpha is None else np.ascontiguousarray(apply_orientation(alpha, turn)),
        )
        if turn >= 5 and metadata.dpi is not None:
            metadata = replace(metadata, dpi=metadata.dpi[::-1])
    return Decoded(format_, picture, metadata, encoding, notes)


def _is_lossless_webp(file: BinaryIO) -> bool:
    head = file.read(16)
    place = 12
    while len(head) >= 8:
        file.seek(place)
        head = file.read(8)
        if head[:4] in (b"VP8L", b"VP8 ", b"ANMF"):
            return head[:4] == b"VP8L"
        place += 8 + (int.from_bytes(head[4:8], "little") + 1) // 2 * 2
    return False


def _as_bytes(value: Any) -> bytes | None:
    return value.encode() if isinstance(value, str) else value or None
