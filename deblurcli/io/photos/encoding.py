"""From samples and metadata to a file, as near to the input's encoding as the format allows."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from deblurcli.io.photos import deep, heif, jpeg, png, tiff
from deblurcli.io.photos.exif import ExifEditor, ExifError, parse_exif
from deblurcli.io.photos.metadata import Metadata
from deblurcli.io.photos.picture import Encoding, Picture
from deblurcli.io.photos.spaces import to_uint8

Pieces = Iterable[bytes | memoryview]
Warn = Callable[[str], None]
"""Told, in a few plain words, what the format could not hold."""


@dataclass(frozen=True)
class Format:
    """What a file format can hold.

    Attributes:
        title: as people call it.
        suffixes: of its files, the usual one first.
        grey, grey_alpha: pictures of one channel stay so, without and with transparency.
        most_px: the longest side.
    """

    title: str
    suffixes: tuple[str, ...]
    alpha: bool = True
    icc: bool = True
    cmyk: bool = False
    deep: bool = False
    grey: bool = True
    grey_alpha: bool = True
    most_px: int = 2**31 - 1


FORMATS = {
    "JPEG": Format("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif"), False, cmyk=True, most_px=65500),
    "PNG": Format("PNG", (".png",), deep=True),
    "WEBP": Format("WebP", (".webp",), grey=False, grey_alpha=False, most_px=16383),
    "TIFF": Format("TIFF", (".tif", ".tiff"), cmyk=True, deep=True),
    "BMP": Format("BMP", (".bmp",), icc=False),
    "GIF": Format("GIF", (".gif",), icc=False, most_px=65535),
    "HEIF": Format("HEIC", (".heic", ".heif", ".hif"), deep=True, grey_alpha=False, most_px=16384),
    "AVIF": Format("AVIF", (".avif",), grey_alpha=False, most_px=65536),
}

_AVIF_QUALITY = 90
_WEBP_QUALITY = 95


class UnwritableError(Exception):
    """The format can't hold the picture: `reason`, and what the user can do, `remedy`."""

    def __init__(self, reason: str, remedy: str) -> None:
        self.reason = reason
        self.remedy = remedy
        super().__init__(reason, remedy)


def encode(
    format_: str,
    picture: Picture,
    metadata: Metadata,
    encoding: Encoding | None,
    warn: Warn,
) -> Pieces:
    """The pieces of a file, in order.

    What the format can't hold is fitted to it: 16 bits are rounded to 8, transparency is laid
    on white. The samples must already be in a colour space that it can hold.

    Args:
        format_: a key of `FORMATS`.
        picture: what to write.
        metadata: what to keep; what the format can't hold is left out.
        encoding: the input's, if it was of the same format.
        warn: called for all that the user may miss in the file.

    Raises:
        UnwritableError: the picture is too large for the format.
    """
    holds = FORMATS[format_]
    if max(picture.samples.shape[:2]) > holds.most_px:
        raise UnwritableError(
            f"{holds.title} holds at most {holds.most_px} pixels a side", "write .png or .tif"
        )
    picture = _fit(picture, holds, warn)
    if format_ == "TIFF":
        try:
            return list(tiff.encode(picture, encoding.compression if encoding else None, metadata))
        except ValueError as error:
            raise UnwritableError(str(error), "write .png") from error
    if format_ == "PNG":
        return png.assemble(_encode_png(picture), metadata, picture.icc)
    if format_ == "HEIF":
        exif = _readable_exif(metadata.exif, with_orientation=True)
        return [heif.encode(picture, metadata, exif, encoding or Encoding())]
    return _encode_8_bits(format_, picture, metadata, encoding, warn)


def _encode_8_bits(
    format_: str, picture: Picture, metadata: Metadata, encoding: Encoding | None, warn: Warn
) -> Pieces:
    image = _to_image(picture)
    if format_ == "JPEG":
        return jpeg.encode(image, encoding, metadata, picture.icc, warn)
    if format_ == "BMP" and picture.alpha is not None:
        return _bmp_with_alpha(image, metadata)
    if format_ == "GIF":
        data = _encode_gif(image, metadata)
    else:
        data = _encode_with_pillow(format_, image, picture.icc, metadata, encoding or Encoding())
    return [data]


def _fit(picture: Picture, holds: Format, warn: Warn) -> Picture:
    if not holds.deep and picture.samples.dtype == np.uint16:
        alpha = picture.alpha
        picture = replace(
            picture,
            samples=to_uint8(picture.samples),
            alpha=None if alpha is None else to_uint8(alpha),
        )
        warn(f"{holds.title} holds 8 bits a channel: the photo's 16 were rounded")
    if not holds.alpha and picture.alpha is not None:
        if (picture.alpha != 255).any():
            picture = replace(picture, samples=_lay_on_white(picture))
            warn(f"{holds.title} holds no transparency: laid on white")
        picture = replace(picture, alpha=None)
    return picture


def _lay_on_white(picture: Picture) -> npt.NDArray[Any]:
    assert picture.alpha is not None
    share = picture.alpha[..., None].astype(np.uint16)
    laid = picture.samples * share + 255 * (255 - share).astype(np.uint32)
    return ((laid + 127) // 255).astype(np.uint8)


def _to_image(picture: Picture) -> Image.Image:
    samples = picture.samples
    image = Image.fromarray(samples[..., 0]) if samples.shape[2] == 1 else _from_channels(samples)
    if picture.alpha is not None:
        image.putalpha(Image.fromarray(picture.alpha))
    return image


def _from_channels(samples: npt.NDArray[Any]) -> Image.Image:
    mode = {3: "RGB", 4: "CMYK"}[samples.shape[2]]
    height, width = samples.shape[:2]
    contiguous = np.ascontiguousarray(samples)
    return Image.frombuffer(mode, (width, height), contiguous, "raw", mode, 0, 1)


def _encode_png(picture: Picture) -> bytes:
    if picture.samples.dtype == np.uint16:
        samples = picture.samples
        if picture.alpha is not None:
            samples = np.concatenate([samples, picture.alpha[..., None]], axis=2)
        return deep.encode_png(samples)
    file = io.BytesIO()
    _to_image(picture).save(file, "PNG")
    return file.getvalue()


def _encode_with_pillow(
    format_: str,
    image: Image.Image,
    icc: bytes | None,
    metadata: Metadata,
    encoding: Encoding,
) -> bytes:
    exif = metadata.exif
    if format_ == "AVIF":
        exif = _readable_exif(exif, with_orientation=False)
    options: dict[str, Any] = {}
    if icc:
        options["icc_profile"] = icc
    if exif:
        options["exif"] = exif
    if metadata.xmp:
        options["xmp"] = metadata.xmp
    if format_ == "WEBP":
        quality = 100 if encoding.lossless else _WEBP_QUALITY
        options |= {"lossless": encoding.lossless, "quality": quality, "exact": True}
        if encoding.lossless:
            options["quality"] = 75  # the effort
    elif format_ == "AVIF":
        options |= {"quality": _AVIF_QUALITY, "subsampling": "4:4:4"}
        if image.mode == "L":
            options["subsampling"] = "4:0:0"
    elif format_ == "BMP" and metadata.dpi is not None:
        options["dpi"] = metadata.dpi
    file = io.BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def _readable_exif(exif: bytes | None, *, with_orientation: bool) -> bytes | None:
    """The same EXIF data; None if they are damaged."""
    if exif is None:
        return None
    try:
        parse_exif(exif)
        editor = ExifEditor(exif)
        if not with_orientation:  # else Pillow takes it out itself and moves all the rest
            editor.remove_orientation()
    except (ExifError, struct.error):
        return None
    return bytes(editor.data)


def _encode_gif(image: Image.Image, metadata: Metadata) -> bytes:
    """GIF holds 256 colours at most; transparency is all or nothing."""
    colours = image.convert("RGB")
    alpha = image.getchannel("A") if "A" in image.getbands() else None
    few = colours.quantize(255 if alpha is not None else 256, dither=Image.Dither.FLOYDSTEINBERG)
    options: dict[str, Any] = {}
    if alpha is not None:
        few.paste(255, mask=alpha.point(lambda a: 255 * (a < 128)))
        options["transparency"] = 255
    if metadata.comment:
        options["comment"] = metadata.comment
    file = io.BytesIO()
    few.save(file, "GIF", **options)
    return file.getvalue()


def _bmp_with_alpha(image: Image.Image, metadata: Metadata) -> Pieces:
    """A BMP file with a version 4 header; Pillow writes version 3, which has no alpha.

    Source: Microsoft, "BITMAPV4HEADER structure".
    """
    width, height = image.size
    pixels = image.convert("RGBA").transpose(Image.Transpose.FLIP_TOP_BOTTOM).tobytes("raw", "BGRA")
    per_metre = [round(dpi / 0.0254) for dpi in metadata.dpi or (0, 0)]
    yield struct.pack("<2sIHHI", b"BM", 14 + 108 + len(pixels), 0, 0, 14 + 108)
    yield struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, len(pixels), *per_metre, 0, 0)
    yield struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"BGRs" + bytes(48)
    yield pixels
