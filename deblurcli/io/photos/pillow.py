"""WebP, BMP and GIF through Pillow, and writing AVIF."""

import io
import re
import struct
from dataclasses import replace
from typing import BinaryIO

from PIL import Image

from deblurcli.io.photos.metadata import Metadata
from deblurcli.io.photos.photo import (
    ANIMATED,
    Encoding,
    Picture,
    ReadOptions,
    opened,
    to_array,
    to_image,
)

_AVIF_QUALITY = 90
_WEBP_QUALITY = 95
_WEBP_LOSSLESS_EFFORT = 75


def read(format_: str, file: BinaryIO, options: ReadOptions) -> Picture:
    """Reads the first frame of a WebP, BMP or GIF file."""
    import imagecodecs

    lossless, is_still_webp, icc = False, False, None
    if format_ == "WEBP":  # Pillow does not say how the first frame is encoded
        first = re.search(rb"VP8[L ]|ANMF", file.read(1 << 20))
        lossless = first is not None and first[0] == b"VP8L"
        is_still_webp = first is not None and first[0] != b"ANMF"
    elif format_ == "BMP":  # nor does it look for the profile that a header of version 5 names
        file.seek(14)
        header = file.read(124)
        if len(header) == 124 and header[:4] == b"\x7c\0\0\0" and header[56:60] == b"DEBM":
            offset, size = struct.unpack_from("<II", header, 112)
            file.seek(14 + offset)
            icc = file.read(min(size, 1 << 24))
    file.seek(0)
    with opened(file, format_, options) as image:
        if format_ == "WEBP":  # all of it is read, and the encoder takes much memory
            pixel_bytes = 40 if lossless else 18
            options.check_size(*image.size, file.seek(0, io.SEEK_END), pixel_bytes=pixel_bytes)
        info = dict(image.info)
        notes = (ANIMATED,) if getattr(image, "n_frames", 1) > 1 else ()
        if is_still_webp:  # for which Pillow takes four times the memory
            file.seek(0)
            values = imagecodecs.webp_decode(file.read())
        else:
            values = to_array(image)
    comment = info.get("comment")
    comment = comment.encode() if isinstance(comment, str) else comment or None
    metadata = Metadata(info.get("exif"), info.get("xmp") or None, None, comment, info.get("dpi"))
    icc, encoding = icc or info.get("icc_profile") or None, Encoding(lossless=lossless)
    picture = Picture.of(format_, values)
    return replace(picture, icc=icc, metadata=metadata, encoding=encoding, notes=notes)


class RawExif(Image.Exif):
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
    options: dict[str, object] = {}
    if picture.format == "WEBP":
        lossless = picture.encoding.lossless
        quality = _WEBP_LOSSLESS_EFFORT if lossless else _WEBP_QUALITY
        options = {"lossless": lossless, "quality": quality, "exact": True, "exif": metadata.exif}
    elif picture.format == "AVIF":
        subsampling = "4:0:0" if image.mode == "L" else "4:4:4"
        options = {"quality": _AVIF_QUALITY, "subsampling": subsampling}
        options["exif"] = RawExif(metadata.exif) if metadata.exif else None
    elif picture.format == "GIF":
        # It holds 256 colours at most; transparency is all or nothing.
        number = 256 if picture.alpha is None else 255
        few = image.convert("RGB").quantize(number, dither=Image.Dither.FLOYDSTEINBERG)
        if picture.alpha is not None:
            few.paste(255, mask=image.getchannel("A").point(lambda alpha: 255 * (alpha < 128)))
            options["transparency"] = 255
        image = few
    options |= {"xmp": metadata.xmp, "icc_profile": picture.icc, "dpi": metadata.dpi}
    options["comment"] = metadata.comment
    file = io.BytesIO()
    given = {name: value for name, value in options.items() if value is not None}
    image.save(file, picture.format, **given)
    return [file.getvalue()]
