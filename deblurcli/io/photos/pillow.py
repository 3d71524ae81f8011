"""WebP, BMP and GIF through Pillow, writing AVIF, too, and its images to arrays and back."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from deblurcli.io.photos.metadata import Metadata, exif_from, readable_exif
from deblurcli.io.photos.photo import (
    Encoding,
    PhotoError,
    Picture,
    ReadOptions,
    bands,
    split_alpha,
)

_AVIF_QUALITY = 90
_WEBP_QUALITY = 95
_MODES = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr", "CMYK"}


@contextmanager
def opened(file: BinaryIO, format_: str, options: ReadOptions) -> Iterator[Image.Image]:
    """Opens a file of a known format, if it is not too large.

    Not by `Image.open`: its limit of size is a global of 179 megapixels.
    """
    if format_ not in Image.OPEN:
        Image.init()
    make, _ = Image.OPEN[format_]
    with make(file, "") as image:
        options.check_size(*image.size)
        yield image


def read(file: BinaryIO, format_: str, options: ReadOptions) -> Picture:
    """Reads the first frame of a WebP, BMP or GIF file.

    Raises:
        PhotoError: too large, or of a kind that is not supported.
        Exception: whatever Pillow raises for damaged files.
    """
    encoded_bytes = file.seek(0, io.SEEK_END)
    encoding = Encoding(lossless=format_ == "WEBP" and _is_lossless_webp(file))
    file.seek(0)
    with opened(file, format_, options) as image:
        if format_ == "WEBP":  # Pillow reads all of it
            options.check_size(*image.size, encoded_bytes)
        info = dict(image.info)
        metadata = Metadata(
            exif=exif_from(info.get("exif")),
            xmp=_as_bytes(info.get("xmp")),
            comment=_as_bytes(info.get("comment")),
            dpi=info.get("dpi"),
        )
        animated = getattr(image, "n_frames", 1) > 1
        samples, alpha = split_alpha(to_array(image))
    notes = ("animated: only the first frame is restored",) if animated else ()
    icc = _icc_of_bmp(file) if format_ == "BMP" else info.get("icc_profile") or None
    return Picture(format_, samples, alpha, icc, metadata, encoding, notes=notes)


def _is_lossless_webp(file: BinaryIO) -> bool:
    place, head = 12, bytes(8)
    while len(head) == 8:
        file.seek(place)
        head = file.read(8)
        if head[:4] in (b"VP8L", b"VP8 ", b"ANMF"):
            return head[:4] == b"VP8L"
        place += 8 + (int.from_bytes(head[4:8], "little") + 1) // 2 * 2
    return False


def _icc_of_bmp(file: BinaryIO) -> bytes | None:
    """The profile that a header of version 5 names; Pillow does not look for it."""
    file.seek(14)
    header = file.read(124)
    if len(header) < 124 or header[:4] != b"\x7c\0\0\0" or header[56:60] != b"DEBM":
        return None
    offset, size = struct.unpack_from("<II", header, 112)
    file.seek(14 + offset)
    return file.read(min(size, 1 << 24)) or None


def _as_bytes(value: Any) -> bytes | None:
    return value.encode() if isinstance(value, str) else value or None


def to_array(image: Image.Image) -> npt.NDArray[np.uint8]:
    """The pixels as ``(H, W)`` grey or ``(H, W, C)`` grey with alpha, RGB, RGBA or CMYK.

    They are copied in bands to save memory.
    """
    mode = image.mode
    if mode not in _MODES:
        raise PhotoError(f"pixels of kind {mode} are not supported", "convert it to PNG")
    image.load()
    if mode != "CMYK":
        see_through = image.has_transparency_data
        is_grey = mode in ("1", "L", "LA", "La") or (
            mode == "P" and not see_through and _has_grey_palette(image)
        )
        mode = ("L" if is_grey else "RGB") + ("A" if see_through else "")
    width, height = image.size
    channels = len(Image.new(mode, (1, 1)).getbands())
    array = np.empty((height, width) if channels == 1 else (height, width, channels), np.uint8)
    for rows in bands(array):
        band = image.crop((0, rows.start, width, min(height, rows.stop)))
        array[rows] = np.asarray(band if band.mode == mode else band.convert(mode))
    return array


def _has_grey_palette(image: Image.Image) -> bool:
    colours = np.array(image.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
    return bool((colours == colours[:, :1]).all())


def to_image(picture: Picture) -> Image.Image:
    """A picture of 8 bits as Pillow's image, with its alpha."""
    samples = np.ascontiguousarray(picture.samples)
    mode = {1: "L", 3: "RGB", 4: "CMYK"}[samples.shape[2]]
    height, width = samples.shape[:2]
    image = Image.frombuffer(mode, (width, height), samples, "raw", mode, 0, 1)
    if picture.alpha is not None:
        image.putalpha(Image.fromarray(picture.alpha))
    return image


class _RawExif(Image.Exif):
    """EXIF data that Pillow, writing AVIF, takes as they are instead of writing them anew."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._raw = data

    def __bool__(self) -> bool:
        return True

    def tobytes(self, offset: int = 8) -> bytes:
        return self._raw


def encode(picture: Picture) -> list[bytes]:
    """The pieces of a WebP, AVIF, BMP or GIF file."""
    image, metadata = to_image(picture), picture.metadata
    if picture.format == "BMP" and picture.alpha is not None:
        return _bmp_with_alpha(image, metadata)
    options: dict[str, Any] = {}
    if picture.format == "GIF":
        image, options = _in_few_colours(image)
        if metadata.comment:
            options["comment"] = metadata.comment
    elif picture.format == "BMP":
        if metadata.dpi is not None:
            options["dpi"] = metadata.dpi
    else:
        exif: bytes | _RawExif | None = metadata.exif
        if picture.format == "WEBP":
            lossless = picture.encoding.lossless
            # For lossless files the quality is the effort.
            quality = 75 if lossless else _WEBP_QUALITY
            options = {"lossless": lossless, "quality": quality, "exact": True}
        else:
            readable = readable_exif(metadata.exif)
            exif = _RawExif(readable) if readable is not None else None
            subsampling = "4:0:0" if image.mode == "L" else "4:4:4"
            options = {"quality": _AVIF_QUALITY, "subsampling": subsampling}
        for name, value in (("exif", exif), ("xmp", metadata.xmp), ("icc_profile", picture.icc)):
            if value is not None:
                options[name] = value
    file = io.BytesIO()
    image.save(file, picture.format, **options)
    return [file.getvalue()]


def _in_few_colours(image: Image.Image) -> tuple[Image.Image, dict[str, Any]]:
    """GIF holds 256 colours at most; transparency is all or nothing."""
    colours, dither = image.convert("RGB"), Image.Dither.FLOYDSTEINBERG
    if "A" not in image.getbands():
        return colours.quantize(256, dither=dither), {}
    few = colours.quantize(255, dither=dither)
    few.paste(255, mask=image.getchannel("A").point(lambda a: 255 * (a < 128)))
    return few, {"transparency": 255}


def _bmp_with_alpha(image: Image.Image, metadata: Metadata) -> list[bytes]:
    """A BMP file with a version 4 header; Pillow writes version 3, which has no alpha.

    Source: Microsoft, "BITMAPV4HEADER structure".
    """
    width, height = image.size
    pixels = image.convert("RGBA").transpose(Image.Transpose.FLIP_TOP_BOTTOM).tobytes("raw", "BGRA")
    per_metre = [round(dpi / 0.0254) for dpi in metadata.dpi or (0, 0)]
    return [
        struct.pack("<2sIHHI", b"BM", 14 + 108 + len(pixels), 0, 0, 14 + 108),
        struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, len(pixels), *per_metre, 0, 0),
        struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"BGRs" + bytes(48),
        pixels,
    ]
