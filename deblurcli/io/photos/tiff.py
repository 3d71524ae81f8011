"""TIFF files: reading what Pillow can't, and writing with every field kept.

Source: TIFF 6.0 (1992); Adobe Photoshop TIFF technical notes (2002) for deflate.
"""

from __future__ import annotations

import io
import logging
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from deblurcli.io.photos import deep
from deblurcli.io.photos.exif import (
    ASCII,
    BYTE,
    LONG,
    ORIENTATION,
    RATIONAL,
    SHORT,
    UNDEFINED,
    ByteOrder,
    ExifError,
    Field,
    Tags,
    directory_bytes,
    exif_bytes,
    parse_exif,
    read_tags,
)
from deblurcli.io.photos.metadata import (
    Metadata,
    iptc_of,
    photoshop_from_iptc,
    without_stale_resources,
)
from deblurcli.io.photos.picture import Picture

NONE, LZW, DEFLATE, PACKBITS = 1, 5, 8, 32773
_OLD_DEFLATE = 32946

_XMP, _IPTC, _PHOTOSHOP, _ICC = 700, 33723, 34377, 34675
_DNG_VERSION = 50706
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 282, 283, 296
_BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 259, 262, 339
_SAMPLES_PER_PIXEL, _EXTRA_SAMPLES, _PREDICTOR = 277, 338, 317
_WIDTH, _HEIGHT, _STRIP_OFFSETS, _ROWS_PER_STRIP, _STRIP_BYTES = 256, 257, 273, 278, 279
# They describe how the pixels lay in the file, or a second copy of them (thumbnails, layers).
_STRUCTURE = {
    254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 277, 278, 279, 280, 281, 284,
    288, 289, 290, 291, 292, 293, 301, 317, 318, 319, 320, 321, 322, 323, 324, 325, 330, 332, 333,
    334, 336, 338, 339, 340, 341, 342, 347, 400, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529,
    530, 531, 532, 37724,
}  # fmt: skip
_BLOCKS = {_XMP, _IPTC, _PHOTOSHOP, _ICC}

_STRIP_BYTES_RAW = 1 << 16
_SILENCE = logging.NullHandler()


def read_metadata(file: BinaryIO) -> Metadata:
    """The metadata of a TIFF file; `parts` are its `Tags` without the pixels' structure."""
    try:
        tags = read_tags(file)
    except ExifError:
        return Metadata()
    fields = tags.fields

    def block(tag: int) -> bytes | None:
        return fields[tag].data if tag in fields else None

    photoshop, iptc = block(_PHOTOSHOP), block(_IPTC)
    if photoshop is not None:
        photoshop = without_stale_resources(photoshop)
    if iptc is not None and iptc_of(photoshop) is None:
        photoshop = (photoshop or b"") + photoshop_from_iptc(iptc)
    plain = {t: f for t, f in fields.items() if t not in _STRUCTURE and t not in _BLOCKS}
    if ORIENTATION in plain:
        plain[ORIENTATION] = Field(SHORT, struct.pack(tags.order + "H", 1))
    kept = Tags(tags.order, plain)
    return Metadata(
        exif=_exif_of(kept),
        xmp=block(_XMP),
        photoshop=photoshop,
        dpi=_read_dpi(tags),
        parts=kept,
    )


def read_layout(file: BinaryIO) -> dict[str, Any]:
    """Facts to decide by: bits, sample_format, compression, orientation, raw; {} if damaged."""
    try:
        tags = read_tags(file)
    except ExifError:
        return {}

    def values(tag: int, default: int) -> tuple[int, ...]:
        return tags.fields[tag].integers(tags.order) if tag in tags.fields else (default,)

    return {
        "bits": max(values(_BITS, 1), default=1),
        "sample_format": max(values(_SAMPLE_FORMAT, 1), default=1),
        "compression": next(iter(values(_COMPRESSION, 1)), 1),
        "orientation": next(iter(values(ORIENTATION, 1)), 1),
        "raw": _DNG_VERSION in tags.fields,
    }


def read_icc(file: BinaryIO) -> bytes | None:
    """The ICC profile of a TIFF file."""
    try:
        found = read_tags(file).fields.get(_ICC)
    except ExifError:
        return None
    return found.data if found is not None else None


def read_size(file: BinaryIO) -> tuple[int, int]:
    """Width and height, not turned.

    Raises:
        ValueError: the file does not say.
    """
    tags = read_tags(file)
    try:
        (width,) = tags.fields[_WIDTH].integers(tags.order)
        (height,) = tags.fields[_HEIGHT].integers(tags.order)
    except KeyError as error:
        raise ValueError("its size is missing") from error
    return width, height


def read_pixels(file: BinaryIO) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None, int]:
    """Samples ``(H, W, C)`` and alpha ``(H, W)`` of the first page, not turned upright; and the
    number of pages.

    For what Pillow can't read: 16 bits, planes, odd tiles.

    Raises:
        ValueError: the file is damaged or uses what no reader here knows.
    """
    import tifffile

    # It logs what is odd about a file; without a handler that would end up on stderr.
    logging.getLogger("tifffile").addHandler(_SILENCE)
    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        page: Any = tiff.pages[0]
        pages = len(tiff.pages)
        if page.photometric not in (0, 1, 2, 5) or page.imagedepth != 1:
            raise ValueError(f"colours of kind {int(page.photometric)} are not supported")
        try:
            samples = page.asarray()
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            file.seek(0)
            samples = deep.decode("tiff", file.read())  # LZW, which tifffile alone can't read
        else:
            if samples.ndim == 3 and page.axes.startswith("S"):
                samples = np.moveaxis(samples, 0, -1)
        samples = samples.reshape(page.imagelength, page.imagewidth, -1)
        channels = {2: 3, 5: 4}.get(int(page.photometric), 1)
        if page.photometric == 0:
            samples[..., 0] = np.iinfo(samples.dtype).max - samples[..., 0]
        extra = tuple(int(e) for e in page.extrasamples)
    if samples.shape[2] < channels or samples.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"pixels of {samples.dtype} in {samples.shape[2]} channels")
    colours = np.ascontiguousarray(samples[..., :channels])
    if samples.shape[2] == channels or not extra or extra[0] == 0:
        return colours, None, pages
    alpha = np.ascontiguousarray(samples[..., channels])
    if extra[0] == 1:
        colours = _unmultiply(colours, alpha)
    return colours, alpha, pages


def _unmultiply(colours: npt.NDArray[Any], alpha: npt.NDArray[Any]) -> npt.NDArray[Any]:
    top = np.iinfo(colours.dtype).max
    share = np.maximum(alpha, 1)[..., None].astype(np.float32) / top
    plain: npt.NDArray[Any] = np.clip(np.rint(colours / share), 0, top).astype(colours.dtype)
    return plain


def encode(
    picture: Picture, compression: int | None, metadata: Metadata
) -> Iterator[bytes | memoryview]:
    """A TIFF file in pieces.

    Compressed like the input where that loses nothing and is widely read (none, LZW, deflate,
    PackBits), else with deflate. In the byte order of the input's tags.
    """
    tags = _tags_for(metadata)
    order = tags.order
    samples = picture.samples
    if picture.alpha is not None:
        samples = np.concatenate([samples, picture.alpha[..., None]], axis=2)
    height, width, count = samples.shape
    bits = samples.dtype.itemsize * 8
    method = {NONE: NONE, LZW: LZW, PACKBITS: PACKBITS}.get(compression or DEFLATE, DEFLATE)
    predictor = 2 if method in (LZW, DEFLATE) else 1

    yield b"II*\0" if order == "<" else b"MM\0*"
    rows = max(1, _STRIP_BYTES_RAW // (width * count * bits // 8))
    places: list[int] = []
    sizes: list[int] = []
    strips: list[bytes | memoryview] = []
    place = 8
    for start in range(0, height, rows):
        strip = _compress(samples[start : start + rows], order, method, predictor)
        places.append(place)
        sizes.append(len(strip))
        place += len(strip)
        strips.append(strip)
    padding = place % 2
    if place + padding >= 2**32 - (1 << 24):
        raise ValueError("larger than the 4 GB that a TIFF file can hold")
    yield struct.pack(order + "I", place + padding)
    yield from strips
    yield b"\0" * padding

    def integers(code: str, *values: int) -> Field:
        type_ = SHORT if code == "H" else LONG
        return Field(type_, struct.pack(f"{order}{len(values)}{code}", *values))

    fields = {
        **tags.fields,
        _WIDTH: integers("I", width),
        _HEIGHT: integers("I", height),
        _BITS: integers("H", *[bits] * count),
        _COMPRESSION: integers("H", method),
        _PHOTOMETRIC: integers("H", {1: 1, 3: 2, 4: 5}[picture.samples.shape[2]]),
        _STRIP_OFFSETS: integers("I", *places),
        _SAMPLES_PER_PIXEL: integers("H", count),
        _ROWS_PER_STRIP: integers("I", min(rows, height)),
        _STRIP_BYTES: integers("I", *sizes),
    }
    if predictor == 2:
        fields[_PREDICTOR] = integers("H", 2)
    if picture.alpha is not None:
        fields[_EXTRA_SAMPLES] = integers("H", 2)
    if picture.icc:
        fields[_ICC] = Field(UNDEFINED, picture.icc)
    yield directory_bytes(fields, order, place + padding)


def _compress(
    samples: npt.NDArray[Any], order: ByteOrder, method: int, predictor: int
) -> bytes | memoryview:
    if predictor == 2:
        differences = samples.copy()
        differences[:, 1:] -= samples[:, :-1]  # wraps around, as the format wants it
        samples = differences
    raw = np.ascontiguousarray(samples, samples.dtype.newbyteorder(order))
    if method == NONE:
        return raw.view(np.uint8).reshape(-1).data
    if method == DEFLATE:
        return zlib.compress(raw.tobytes())
    from PIL import Image

    # libtiff compresses rows of bytes, whatever they mean: a grey picture of them will do.
    rows = raw.view(np.uint8).reshape(raw.shape[0], -1)
    file = io.BytesIO()
    name = {LZW: "tiff_lzw", PACKBITS: "packbits"}[method]
    Image.fromarray(rows).save(file, "TIFF", compression=name, strip_size=rows.size)
    tags = read_tags(file)
    (place,) = tags.fields[_STRIP_OFFSETS].integers(tags.order)
    (size,) = tags.fields[_STRIP_BYTES].integers(tags.order)
    return file.getvalue()[place : place + size]


def _tags_for(metadata: Metadata) -> Tags:
    if isinstance(metadata.parts, Tags):
        tags = Tags(metadata.parts.order, dict(metadata.parts.fields))
    else:
        tags = Tags()
        if metadata.exif is not None:
            with suppress(ExifError):  # unreadable: nothing to take over
                tags = parse_exif(metadata.exif)
        tags.fields = {t: f for t, f in tags.fields.items() if t not in _STRUCTURE | _BLOCKS}
        if metadata.comment and 270 not in tags.fields:
            tags.fields[270] = Field(ASCII, metadata.comment.rstrip(b"\0") + b"\0")
    fields, order = tags.fields, tags.order
    if metadata.dpi is not None and max(metadata.dpi) < 1e6 and _X_RESOLUTION not in fields:
        for tag, dpi in zip((_X_RESOLUTION, _Y_RESOLUTION), metadata.dpi, strict=True):
            fields[tag] = Field(RATIONAL, struct.pack(order + "II", round(dpi * 1000), 1000))
        fields[_RESOLUTION_UNIT] = Field(SHORT, struct.pack(order + "H", 2))
    if metadata.xmp is not None:
        fields[_XMP] = Field(BYTE, metadata.xmp)
        # Else some readers would take the orientation from the XMP.
        fields[ORIENTATION] = Field(SHORT, struct.pack(order + "H", 1))
    if metadata.photoshop is not None:
        fields[_PHOTOSHOP] = Field(BYTE, metadata.photoshop)
        if (iptc := iptc_of(metadata.photoshop)) is not None:
            fields[_IPTC] = Field(UNDEFINED, iptc)
    return tags


def _exif_of(tags: Tags) -> bytes | None:
    """A TIFF file's tags as EXIF data for other formats; None if there are none."""
    if not tags.fields:
        return None
    try:
        return exif_bytes(tags)
    except ExifError:
        return None


def _read_dpi(tags: Tags) -> tuple[float, float] | None:
    values = []
    for tag in (_X_RESOLUTION, _Y_RESOLUTION):
        if tag not in tags.fields or tags.fields[tag].type != RATIONAL:
            return None
        above, below = struct.unpack_from(tags.order + "II", tags.fields[tag].data)
        if not above or not below:
            return None
        values.append(above / below)
    unit_field = tags.fields.get(_RESOLUTION_UNIT)
    unit = unit_field.integers(tags.order)[:1] if unit_field is not None else (2,)
    factor = {2: 1.0, 3: 2.54}.get(unit[0]) if unit else None
    return (values[0] * factor, values[1] * factor) if factor is not None else None
