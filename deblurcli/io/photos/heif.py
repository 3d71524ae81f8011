"""HEIC files through libheif, AVIF files through libavif, with all their bits.

For HEIC, Pillow's plugin is not used: it cuts 10 bits to 8 and edits the metadata. What AVIF
files say of their picture is read by libheif, too. In both the pixels' orientation is a matter
of the container; that in EXIF does not count.

Source: ISO/IEC 14496-12 (boxes), ISO/IEC 23008-12 (HEIF), 6.5.10 and annex A.
"""

import io
import math
import re
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from deblurcli.io.photos.colour import with_cicp
from deblurcli.io.photos.metadata import Metadata
from deblurcli.io.photos.photo import (
    ANIMATED,
    Encoding,
    PhotoError,
    Picture,
    ReadOptions,
    bands,
    opened,
    to_array,
)

if TYPE_CHECKING:
    from pillow_heif import HeifFile, HeifImage

_QUALITIES = (90, 75, 50)
MAX_HEIC_BYTES = 1 << 24  # libde265 reads no slice that is larger, and libx265 writes one
# The memory is mostly the encoders': x265 took 27 bytes a pixel and 43 for 10 bits, libaom 45 and
# 51 where the picture has more than 8 bits.
_HEIC_BYTES, _DEEP_HEIC_BYTES, _AVIF_BYTES = 28, 44, 54
_SIZE = re.compile(rb"\0\0\0\x14ispe\0{4}(.{8})", re.DOTALL)
_MAX_BOXES, _MAX_BOX_BYTES = 1000, 1 << 28
_TURN, _MIRROR = re.compile(rb"\0\0\0\x09irot([\0-\3])"), re.compile(rb"\0\0\0\x09imir([\0\1])")
_GAIN_MAP_ITEM = re.compile(rb"infe.{8}(?:..)?tmap", re.DOTALL)


def read(file: BinaryIO, options: ReadOptions) -> Picture:
    """The main picture of a HEIC file, upright; uint16 if it has more than 8 bits."""
    data = _read_whole(file, options, _HEIC_BYTES)
    container, image = _open_container(data)
    info: dict[str, Any] = image.info
    pixel_bytes = _HEIC_BYTES if info["bit_depth"] == 8 else _DEEP_HEIC_BYTES
    options.check_size(*image.size, len(data), pixel_bytes=pixel_bytes)
    samples = np.array(image)[:, : image.size[0]]
    return _described(Picture.of("HEIF", samples), container, data)


def read_avif(file: BinaryIO, options: ReadOptions) -> Picture:
    """The main picture of an AVIF file, upright; uint16 if it has more than 8 bits."""
    import imagecodecs

    data = _read_whole(file, options, _AVIF_BYTES)
    container, shown = _open_container(data)
    info: dict[str, Any] = shown.info
    bits = info["bit_depth"]
    animated = b"avis" in data[8 : int.from_bytes(data[:4], "big")]
    if animated:  # imagecodecs would decode all of it
        with opened(io.BytesIO(data), "AVIF", options) as image:
            samples = to_array(image)
    else:
        samples = imagecodecs.avif_decode(data)
    if samples.dtype == np.uint16:  # fills them by repetition, as libheif does: white stays white
        for rows in bands(samples):
            samples[rows] = samples[rows] << (16 - bits) | samples[rows] >> (2 * bits - 16)
    if sorted(shown.size) != sorted(samples.shape[:2]):
        raise PhotoError("a crop in AVIF is not supported", "convert it to PNG")
    if turn := _TURN.search(data):
        samples = np.rot90(samples, turn[1][0])
    if mirror := _MIRROR.search(data):
        samples = np.flip(samples, mirror[1][0])
    picture = _described(Picture.of("AVIF", samples), container, data)
    return picture.noted(ANIMATED) if animated else picture


def _read_whole(file: BinaryIO, options: ReadOptions, pixel_bytes: int) -> bytes:
    """The file's bytes; PhotoError if a size in it is too large, or it is, for that size."""
    file_bytes, start, sizes = file.seek(0, io.SEEK_END), 0, {(0, 0)}
    for _ in range(_MAX_BOXES):
        file.seek(start)
        length, kind, long_length = struct.unpack(">I4sQ", file.read(16).ljust(16, b"\0"))
        length = {0: file_bytes - start, 1: long_length}.get(length, length)
        if kind in (b"meta", b"moov"):
            box = file.read(min(length, _MAX_BOX_BYTES))
            sizes.update(struct.unpack(">II", match[1]) for match in _SIZE.finditer(box))
        start += max(length, 8)
        if start >= file_bytes:
            break
    largest = max(sizes, key=math.prod)
    options.check_size(*largest, file_bytes, pixel_bytes=pixel_bytes)
    file.seek(0)
    return file.read()


def _open_container(data: bytes) -> "tuple[HeifFile, HeifImage]":
    """A file, and its main picture, whose size is what is shown of it, upright."""
    import pillow_heif

    container = pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False)
    return container, container[container.primary_index]


def _described(picture: Picture, container: "HeifFile", data: bytes) -> Picture:
    """The picture with what else its file says of it, and holds beside it."""
    info: dict[str, Any] = container[container.primary_index].info
    metadata = Metadata(info.get("exif"), info.get("xmp") or None).with_upright_xmp()
    encoding = Encoding(chroma=str(info.get("chroma", 420)), bits=info["bit_depth"])
    icc = info.get("icc_profile") or None
    picture = replace(picture, icc=icc, metadata=metadata, encoding=encoding, orientation=1)
    if nclx := info.get("nclx_profile"):
        cicp = nclx["color_primaries"], nclx["transfer_characteristics"]
        picture = with_cicp(picture, cicp)
    others = info.get("aux", {})
    extras = {"a gain map" if "gainmap" in urn else "further pictures" for urn in others}
    if _GAIN_MAP_ITEM.search(data):
        extras.add("a gain map")
    if info.get("depth_images"):
        extras.add("a depth map")
    if len(container) > 1:
        extras.add("further pictures")
    return picture.without_extras(extras)


def encode(picture: Picture, warn: Callable[[str], None]) -> list[bytes]:
    """The pieces of a HEIC file; 16-bit samples are written with 10 bits, or 12."""
    import pillow_heif

    samples = picture.channels
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[samples.shape[2]]
    # x265 is three times as slow by default, for one percent of the bytes.
    options: dict[str, object] = {"enc_params": {"preset": "fast"}}
    if mode.startswith("RGB"):
        options["chroma"] = picture.encoding.chroma
        if picture.cicp is not None:
            primaries, transfer = picture.cicp
            options["color_primaries"] = primaries
            options["transfer_characteristics"] = transfer
            options["matrix_coefficients"] = 9 if primaries == 9 else 6
    if samples.dtype == np.uint16:
        mode += ";16"
        options["bit_depth"] = 12 if picture.encoding.bits > 10 else 10
    if picture.icc:
        options |= {"icc_profile": picture.icc, "icc_profile_type": "prof"}
    if picture.metadata.exif:
        options["exif"] = b"Exif\0\0" + picture.metadata.exif
    if picture.metadata.xmp:  # what it says of the orientation would count for the pixels
        options["xmp"] = picture.metadata.with_upright_xmp().xmp
    pixels = samples.tobytes()
    for quality in _QUALITIES:
        file = io.BytesIO()
        pillow_heif.encode(mode, samples.shape[1::-1], pixels, file, quality=quality, **options)
        if file.tell() <= MAX_HEIC_BYTES:
            if quality != _QUALITIES[0]:
                warn(f"HEIC files that can be read again have 16 MB at most: quality {quality}")
            return [file.getvalue()]
    remedy = "write .png or .tif, or scale it down"
    raise PhotoError("too large and noisy for a HEIC file that can be read again", remedy)
