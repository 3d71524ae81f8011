"""TIFF files: reading what Pillow can't, and writing with every field kept.

Source: TIFF 6.0 (1992); Adobe Photoshop TIFF technical notes (2002) for deflate.
"""

import struct
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from deblurcli.io.photos import exif, jpeg
from deblurcli.io.photos.colour import are_srgb_primaries, make_profile
from deblurcli.io.photos.exif import Field, Tags, directory_bytes, exif_bytes
from deblurcli.io.photos.metadata import Metadata, iptc_of, photoshop_from_iptc
from deblurcli.io.photos.photo import Encoding, PhotoError, Picture, ReadOptions, Samples, bands

if TYPE_CHECKING:
    from tifffile import TiffPage

NONE, DEFLATE = 1, 8

_DESCRIPTION, _XMP, _IPTC, _PHOTOSHOP, _ICC = 270, 700, 33723, 34377, 34675
_DNG_VERSION, _LAYERS = 50706, 37724
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
_READ_BYTES = 1 << 24  # at a time; by default it would be 256 MB


def read(file: BinaryIO, options: ReadOptions) -> Picture:
    """Reads the first page of a TIFF file."""
    import tifffile

    if b"+" in file.read(4):
        raise PhotoError("BigTIFF is not supported", "convert it to TIFF")
    tags = exif.read_tags(file)
    if _DNG_VERSION in tags.fields:
        raise PhotoError("a camera's raw file", "develop it first, to TIFF or JPEG")
    if not (width := tags.integer(_WIDTH, 0)) or not (height := tags.integer(_HEIGHT, 0)):
        raise ValueError("its size is missing")
    bits, sample_format = tags.integer(_BITS, 1), tags.integer(_SAMPLE_FORMAT, 1)
    pieces = tags.integers(_STRIP_BYTES) + tags.integers(_TILE_BYTES)
    raw_bytes = width * height * tags.integer(_SAMPLES_PER_PIXEL, 1) * bits // 8
    options.check_size(width, height, max(sum(pieces), raw_bytes), deep=bits > 8)
    if 0 in pieces:  # which would come out black
        raise ValueError("a part of its pixels is missing")
    tile_pixels = tags.integer(_TILE_WIDTH, 0) * tags.integer(_TILE_HEIGHT, 0)
    if tile_pixels > 4 * width * height + (1 << 24):
        raise ValueError("tiles far larger than the picture")
    if bits not in (1, 2, 4, 8, 16) or sample_format not in (1, 4):
        kind = {2: f"signed {bits}-bit", 3: "floating point"}.get(sample_format, f"{bits}-bit")
        raise PhotoError(f"{kind} pixels are not supported", "convert it to 16 bits")
    file.seek(0)
    try:
        with tifffile.TiffFile(file) as tiff:
            page = tiff.pages.first
            _check_page(page)
            channels, has_alpha = _read_pixels(page, tags)
            pages = len(tiff.pages)
    except tifffile.TiffFileError as error:
        raise ValueError(str(error)) from error

    blocks = {tag: tags.fields[tag].data for tag in _BLOCKS & set(tags.fields)}
    photoshop = blocks.get(_PHOTOSHOP, b"")
    if _IPTC in blocks and iptc_of(photoshop) is None:
        photoshop = photoshop_from_iptc(blocks[_IPTC]) + photoshop
    fields = {
        tag: field
        for tag, field in tags.fields.items()
        if tag not in _STRUCTURE | _BLOCKS
        and not (tag == _DESCRIPTION and field.data.startswith(b'{"shape": '))  # tifffile's pages
    }
    icc, primaries = blocks.get(_ICC), (*tags.ratios(_WHITE), *tags.ratios(_PRIMARIES))
    if not icc and channels.shape[2] - has_alpha == 3 and len(primaries) == 8:
        with suppress(ValueError):  # no colours at all
            icc = None if are_srgb_primaries(primaries) else make_profile(2.2, primaries)
    encoded = exif_bytes(Tags(tags.order, fields)) if fields else None
    metadata = Metadata(encoded, blocks.get(_XMP), photoshop)
    encoding = Encoding(compression=tags.integer(_COMPRESSION, 1))
    picture = Picture("TIFF", channels, has_alpha, icc, metadata, encoding)
    if pages > 1:
        picture = picture.noted(f"{pages} pages: only the first is restored")
    if _LAYERS in tags.fields:
        picture = picture.noted("layers: only the picture that they make is restored")
    if tags.integer(_SAMPLES_PER_PIXEL, 1) > channels.shape[2]:
        picture = picture.noted("further channels are left out")
    return picture


def _check_page(page: "TiffPage") -> None:
    """Raises PhotoError for kinds of pictures that can't be read, ValueError for damaged ones."""
    if page.imagedepth != 1:
        raise PhotoError("volumes are not supported", "save a slice of it")
    if page.photometric not in (0, 1, 2, 3, 5, 6):
        kind = getattr(page.photometric, "name", page.photometric)
        raise PhotoError(f"colours of kind {kind} are not supported", "convert it to RGB")
    if page.compression in (22610, 34934):  # whose decoder fills in what is missing silently
        raise PhotoError("JPEG XR is not supported", "save it with another compression")
    if page.compression == 7:  # JPEG, of which libjpeg greys what is missing silently
        tables = (bytes(page.jpegtables or b"") or b"\xff\xd8").removesuffix(b"\xff\xd9")
        for place, size in zip(page.dataoffsets, page.databytecounts, strict=True):
            page.parent.filehandle.seek(place)
            if not jpeg.is_intact(tables + page.parent.filehandle.read(size)[2:]):
                raise ValueError("a part of its pixels is missing or wrong")


def _read_pixels(page: "TiffPage", tags: Tags) -> tuple[Samples, bool]:
    """The channels ``(H, W, C)``, and whether the last one is alpha."""
    import imagecodecs

    photometric = int(page.photometric)
    if photometric == 6 and page.compression != 7:
        file = page.parent.filehandle
        file.seek(0)
        upright, _ = exif.make_upright(file.read(), tags)  # else libtiff would turn it
        return np.ascontiguousarray(imagecodecs.tiff_decode(upright, asrgb=True)[..., :3]), False
    samples = page.asarray(buffersize=_READ_BYTES)
    if samples.ndim == 3 and page.axes.startswith("S"):
        samples = np.moveaxis(samples, 0, -1)
    samples = samples.reshape(page.imagelength, page.imagewidth, -1)
    if photometric == 3:
        palette = (np.asarray(page.colormap).T >> 8).astype(np.uint8)
        colours = np.empty((*samples.shape[:2], 3), np.uint8)
        for rows in bands(samples):
            colours[rows] = palette[samples[rows, :, 0].astype(np.intp)]
        return colours, False
    bits = tags.integer(_BITS, 1)
    if bits < 8:
        samples = samples.astype(np.uint8) * np.uint8(255 // ((1 << bits) - 1))
    if photometric == 0:
        np.subtract(np.iinfo(samples.dtype).max, samples[..., 0], out=samples[..., 0])
    count = {2: 3, 5: 4, 6: 3}.get(photometric, 1)
    if samples.shape[2] < count or samples.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"pixels of {samples.dtype} in {samples.shape[2]} channels")
    extra = int(page.extrasamples[0]) if page.extrasamples else 0
    has_alpha = samples.shape[2] > count and extra != 0
    channels = np.ascontiguousarray(samples[..., : count + has_alpha])
    if has_alpha and extra == 1:  # multiplied into the colours
        top = np.iinfo(channels.dtype).max
        for rows in bands(channels):
            opacity = np.maximum(channels[rows, :, count:], 1).astype(np.float32) / top
            colours = np.clip(np.rint(channels[rows, :, :count] / opacity), 0, top)
            channels[rows, :, :count] = colours
    return channels, has_alpha


def encode(picture: Picture) -> list[bytes | memoryview]:
    """The pieces of a TIFF file, in the byte order of the EXIF data, compressed with deflate if the
    input was compressed. Raises PhotoError for a picture too large for the format."""
    metadata, samples = picture.metadata, picture.channels
    _, tags = exif.read_exif(metadata.exif)
    order = tags.order
    height, width, count = samples.shape
    method = NONE if picture.encoding.compression == NONE else DEFLATE
    rows = max(1, _STRIP_BYTES_RAW // (width * count * samples.itemsize))
    strips: list[bytes | memoryview] = []
    for start in range(0, height, rows):
        strip = samples[start : start + rows]
        if method == DEFLATE:
            strip = np.diff(strip, axis=1, prepend=strip.dtype.type(0))  # wraps around
        raw = np.ascontiguousarray(strip, strip.dtype.newbyteorder(order)).view(np.uint8)
        strips.append(zlib.compress(raw.data) if method == DEFLATE else raw.reshape(-1).data)
    places = np.cumsum([8, *map(len, strips)]).tolist()
    padding = places[-1] % 2

    def field(type_: int, *values: int) -> Field:
        code = {exif.SHORT: "H", exif.LONG: "I", exif.RATIONAL: "I"}[type_]
        return Field(type_, struct.pack(f"{order}{len(values)}{code}", *values))

    fields = {t: item for t, item in tags.fields.items() if t not in _STRUCTURE | _BLOCKS}
    if metadata.comment:
        fields.setdefault(_DESCRIPTION, Field(exif.ASCII, metadata.comment.rstrip(b"\0") + b"\0"))
    if metadata.dpi is not None and max(metadata.dpi) < 1e6 and exif.X_RESOLUTION not in fields:
        for tag, dpi in zip((exif.X_RESOLUTION, exif.Y_RESOLUTION), metadata.dpi, strict=True):
            fields[tag] = field(exif.RATIONAL, round(dpi * 1000), 1000)
        fields[exif.RESOLUTION_UNIT] = field(exif.SHORT, 2)
    if metadata.xmp is not None:
        fields[_XMP] = Field(exif.BYTE, metadata.xmp)
        fields[exif.ORIENTATION] = field(exif.SHORT, 1)  # else some readers would take that in XMP
    if metadata.photoshop is not None:
        fields[_PHOTOSHOP] = Field(exif.BYTE, metadata.photoshop)
        if (iptc := iptc_of(metadata.photoshop)) is not None:
            fields[_IPTC] = Field(exif.UNDEFINED, iptc)
    if picture.icc:
        fields[_ICC] = Field(exif.UNDEFINED, picture.icc)
    if method == DEFLATE:
        fields[_PREDICTOR] = field(exif.SHORT, 2)
    if picture.has_alpha:
        fields[_EXTRA_SAMPLES] = field(exif.SHORT, 2)
    try:
        fields |= {
            _WIDTH: field(exif.LONG, width),
            _HEIGHT: field(exif.LONG, height),
            _BITS: field(exif.SHORT, *[8 * samples.itemsize] * count),
            _COMPRESSION: field(exif.SHORT, method),
            _PHOTOMETRIC: field(exif.SHORT, {1: 1, 3: 2, 4: 5}[picture.samples.shape[2]]),
            _STRIP_OFFSETS: field(exif.LONG, *places[:-1]),
            _SAMPLES_PER_PIXEL: field(exif.SHORT, count),
            _ROWS_PER_STRIP: field(exif.LONG, min(rows, height)),
            _STRIP_BYTES: field(exif.LONG, *map(len, strips)),
        }
        header = struct.pack(order + "I", places[-1] + padding)
        directory = directory_bytes(fields, order, places[-1] + padding)
    except struct.error as error:
        reason = "larger than the 4 GB that a TIFF file can hold"
        raise PhotoError(reason, "write .png") from error
    start_bytes = b"II*\0" if order == "<" else b"MM\0*"
    return [start_bytes, header, *strips, b"\0" * padding, directory]
