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

from deblurcli.io.photos.colour import D65, SRGB_PRIMARIES, make_profile
from deblurcli.io.photos.exif import (
    ASCII,
    BYTE,
    LONG,
    ORIENTATION,
    RATIONAL,
    RESOLUTION_UNIT,
    SHORT,
    UNDEFINED,
    X_RESOLUTION,
    Y_RESOLUTION,
    ByteOrder,
    ExifError,
    Field,
    Tags,
    directory_bytes,
    exif_bytes,
    read_tags,
)
from deblurcli.io.photos.metadata import (
    Metadata,
    iptc_of,
    photoshop_from_iptc,
    with_upright_xmp,
    without_stale_resources,
)
from deblurcli.io.photos.photo import Buffer, Encoding, PhotoError, Picture, ReadOptions, join_alpha

NONE, LZW, DEFLATE, PACKBITS = 1, 5, 8, 32773

_XMP, _IPTC, _PHOTOSHOP, _ICC = 700, 33723, 34377, 34675
_DNG_VERSION = 50706
_BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 259, 262, 339
_SAMPLES_PER_PIXEL, _EXTRA_SAMPLES, _PREDICTOR = 277, 338, 317
_WHITE, _PRIMARIES = 318, 319
_TILE_WIDTH, _TILE_HEIGHT, _TILE_BYTES = 322, 323, 325
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


def read(file: BinaryIO, options: ReadOptions) -> Picture:
    """Reads the first page of a TIFF file.

    Raises:
        PhotoError: too large, or of a kind that is not supported.
        Exception: whatever tifffile and imagecodecs raise for damaged files.
    """
    import tifffile

    tags = read_tags(file)
    if _DNG_VERSION in tags.fields:
        raise PhotoError("a camera's raw file", "develop it first, to TIFF or JPEG")
    width, height = tags.integer(_WIDTH, 0), tags.integer(_HEIGHT, 0)
    if not width or not height:
        raise ValueError("its size is missing")
    options.check_size(width, height, sum(tags.integers(_STRIP_BYTES) + tags.integers(_TILE_BYTES)))
    tile_pixels = tags.integer(_TILE_WIDTH, 0) * tags.integer(_TILE_HEIGHT, 0)
    if tile_pixels > 4 * width * height + (1 << 24):
        raise ValueError("tiles far larger than the picture")
    bits, sample_format = tags.integer(_BITS, 1), tags.integer(_SAMPLE_FORMAT, 1)
    if bits not in (1, 2, 4, 8, 16) or sample_format not in (1, 4):
        kind = "floating point" if sample_format == 3 else f"{bits}-bit"
        raise PhotoError(f"{kind} pixels are not supported", "convert it to 16 bits")
    # It logs what is odd about a file; without a handler that would end up on stderr.
    logging.getLogger("tifffile").addHandler(_SILENCE)
    file.seek(0)
    try:
        with tifffile.TiffFile(file) as tiff:
            samples, alpha = _read_pixels(tiff.pages[0], tags)
            pages = len(tiff.pages)
    except tifffile.TiffFileError as error:
        raise ValueError(str(error)) from error
    notes = (f"{pages} pages: only the first is restored",) if pages > 1 else ()
    metadata, orientation = _read_metadata(tags), tags.integer(ORIENTATION, 1)
    if orientation != 1:
        metadata = with_upright_xmp(metadata)
    icc = tags.fields[_ICC].data if _ICC in tags.fields else None
    white, primaries = tags.ratios(_WHITE), tags.ratios(_PRIMARIES)
    if icc is None and len(white) == 2 and len(primaries) == 6 and samples.shape[2] == 3:
        given = zip((*white, *primaries), (*D65, *SRGB_PRIMARIES), strict=True)
        with suppress(ValueError):  # no colours at all
            if max(abs(a - b) for a, b in given) > 0.005:
                icc = make_profile(2.2, primaries, (white[0], white[1]))
    encoding = Encoding(compression=tags.integer(_COMPRESSION, 1))
    return Picture(
        "TIFF", samples, alpha, icc, metadata, encoding, orientation=orientation, notes=notes
    )


def _read_pixels(page: Any, tags: Tags) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    """Samples ``(H, W, C)`` and alpha ``(H, W)`` of tifffile's `page`, as they are stored."""
    import imagecodecs

    photometric = int(page.photometric)
    if page.imagedepth != 1 or photometric not in (0, 1, 2, 3, 5, 6, 8):
        raise PhotoError(f"colours of kind {photometric} are not supported", "convert it to RGB")
    if photometric == 8 or (photometric == 6 and page.compression != 7):
        file = page.parent.filehandle
        file.seek(0)
        rgba = imagecodecs.tiff_decode(file.read(), asrgb=True)
        return np.ascontiguousarray(rgba[..., :3]), None
    samples = page.asarray()
    if samples.ndim == 3 and page.axes.startswith("S"):
        samples = np.moveaxis(samples, 0, -1)
    samples = samples.reshape(page.imagelength, page.imagewidth, -1)
    if photometric == 3:
        palette = (np.asarray(page.colormap).T >> 8).astype(np.uint8)
        if not tags.fields.get(_ICC) and (palette == palette[:, :1]).all():
            palette = palette[:, :1]
        return palette[samples[..., 0]], None
    bits = tags.integer(_BITS, 1)
    if bits < 8:
        samples = samples.astype(np.uint8) * np.uint8(255 // ((1 << bits) - 1))
    if photometric == 0:
        samples[..., 0] = np.iinfo(samples.dtype).max - samples[..., 0]
    channels = {2: 3, 5: 4, 6: 3}.get(photometric, 1)
    if samples.shape[2] < channels or samples.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"pixels of {samples.dtype} in {samples.shape[2]} channels")
    colours = np.ascontiguousarray(samples[..., :channels])
    extra = int(page.extrasamples[0]) if page.extrasamples else 0
    if samples.shape[2] == channels or extra == 0:
        return colours, None
    alpha = np.ascontiguousarray(samples[..., channels])
    return (_unmultiply(colours, alpha) if extra == 1 else colours), alpha


def _read_metadata(tags: Tags) -> Metadata:
    """The metadata of a TIFF file; `parts` are its `Tags` without the pixels' structure."""

    def block(tag: int) -> bytes | None:
        return tags.fields[tag].data if tag in tags.fields else None

    photoshop, iptc = without_stale_resources(block(_PHOTOSHOP)), block(_IPTC)
    if iptc is not None and iptc_of(photoshop) is None:
        photoshop = (photoshop or b"") + photoshop_from_iptc(iptc)
    plain = {t: f for t, f in tags.fields.items() if t not in _STRUCTURE and t not in _BLOCKS}
    if ORIENTATION in plain:
        plain[ORIENTATION] = Field(SHORT, struct.pack(tags.order + "H", 1))
    kept, exif = Tags(tags.order, plain), None
    with suppress(ExifError):
        exif = exif_bytes(kept) if plain else None
    return Metadata(exif, block(_XMP), photoshop, dpi=tags.dpi, parts=kept)


def _unmultiply(colours: npt.NDArray[Any], alpha: npt.NDArray[Any]) -> npt.NDArray[Any]:
    top = np.iinfo(colours.dtype).max
    share = np.maximum(alpha, 1)[..., None].astype(np.float32) / top
    plain: npt.NDArray[Any] = np.clip(np.rint(colours / share), 0, top).astype(colours.dtype)
    return plain


def encode(picture: Picture) -> Iterator[Buffer]:
    """The pieces of a TIFF file.

    Compressed like the input where that loses nothing and is widely read (none, LZW, deflate,
    PackBits), else with deflate. In the byte order of the input's tags.
    """
    tags = _tags_for(picture.metadata)
    order = tags.order
    samples = join_alpha(picture)
    height, width, count = samples.shape
    bits = samples.dtype.itemsize * 8
    method = picture.encoding.compression
    if method not in (NONE, LZW, PACKBITS):
        method = DEFLATE
    predictor = 2 if method in (LZW, DEFLATE) else 1

    yield b"II*\0" if order == "<" else b"MM\0*"
    rows = max(1, _STRIP_BYTES_RAW // (width * count * bits // 8))
    places: list[int] = []
    sizes: list[int] = []
    strips: list[Buffer] = []
    place = 8
    for start in range(0, height, rows):
        strip = _compress(samples[start : start + rows], order, method, predictor)
        places.append(place)
        sizes.append(len(strip))
        place += len(strip)
        strips.append(strip)
    padding = place % 2
    if place + padding >= 2**32 - (1 << 24):
        raise PhotoError("larger than the 4 GB that a TIFF file can hold", "write .png")
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


def _compress(samples: npt.NDArray[Any], order: ByteOrder, method: int, predictor: int) -> Buffer:
    if predictor == 2:
        differences = samples.copy()
        differences[:, 1:] -= samples[:, :-1]  # wraps around, as the format wants it
        samples = differences
    raw = np.ascontiguousarray(samples, samples.dtype.newbyteorder(order))
    if method == NONE:
        return raw.view(np.uint8).reshape(-1).data
    if method == DEFLATE:
        return zlib.compress(raw.tobytes())
    import imagecodecs

    if method == LZW:
        return imagecodecs.lzw_encode(raw.tobytes())
    rows = raw.view(np.uint8).reshape(raw.shape[0], -1)
    return imagecodecs.packbits_encode(rows, axis=-1)


def _tags_for(metadata: Metadata) -> Tags:
    if isinstance(metadata.parts, Tags):
        tags = Tags(metadata.parts.order, dict(metadata.parts.fields))
    else:
        tags = Tags()
        if metadata.exif is not None:
            with suppress(ExifError):  # unreadable: nothing to take over
                tags = read_tags(io.BytesIO(metadata.exif))
        tags.fields = {t: f for t, f in tags.fields.items() if t not in _STRUCTURE | _BLOCKS}
        if metadata.comment and 270 not in tags.fields:
            tags.fields[270] = Field(ASCII, metadata.comment.rstrip(b"\0") + b"\0")
    fields, order = tags.fields, tags.order
    if metadata.dpi is not None and max(metadata.dpi) < 1e6 and X_RESOLUTION not in fields:
        for tag, dpi in zip((X_RESOLUTION, Y_RESOLUTION), metadata.dpi, strict=True):
            fields[tag] = Field(RATIONAL, struct.pack(order + "II", round(dpi * 1000), 1000))
        fields[RESOLUTION_UNIT] = Field(SHORT, struct.pack(order + "H", 2))
    if metadata.xmp is not None:
        fields[_XMP] = Field(BYTE, metadata.xmp)
        # Else some readers would take the orientation from the XMP.
        fields[ORIENTATION] = Field(SHORT, struct.pack(order + "H", 1))
    if metadata.photoshop is not None:
        fields[_PHOTOSHOP] = Field(BYTE, metadata.photoshop)
        if (iptc := iptc_of(metadata.photoshop)) is not None:
            fields[_IPTC] = Field(UNDEFINED, iptc)
    return tags
