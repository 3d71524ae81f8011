"""From a file to its samples and metadata, whatever the format."""

from __future__ import annotations

import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from deblurcli.photos import deep, heif, jpeg, png, tiff
from deblurcli.photos.metadata import (
    Metadata,
    apply_orientation,
    exif_from,
    make_upright,
    with_upright_xmp,
)
from deblurcli.photos.picture import Encoding, Picture

MOST_PIXELS = 500_000_000
"""Pictures with more are refused: no camera makes them, and decoding takes gigabytes."""

_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_MAGIC = {
    "JPEG": b"\xff\xd8\xff",
    "PNG": png.SIGNATURE,
    "GIF": b"GIF8",
    "BMP": b"BM",
}
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PLUGINS = {"JPEG": ["JPEG", "MPO"]}
_DEEP_PNG_COLOURS = {2, 4, 6}
_BAND_PIXELS = 1 << 22
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


class UnreadableError(Exception):
    """The file can't be read as a photo: `reason`, and what the user can do, `remedy`."""

    def __init__(self, reason: str, remedy: str) -> None:
        self.reason = reason
        self.remedy = remedy
        super().__init__(reason, remedy)


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
            picture, metadata, encoding, notes = heif.read(file, _refuse_too_large)
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
    _refuse_too_large(width, height)
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
    with _opened(file, "PNG") as image:
        return _upright("PNG", *_picture(image), metadata=metadata, encoding=Encoding())


def _png_icc(file: BinaryIO) -> bytes | None:
    file.seek(0)
    with _opened(file, "PNG") as image:
        icc: bytes | None = image.info.get("icc_profile")
        return icc


def _png_notes(chunks: list[png.Chunk]) -> tuple[str, ...]:
    return ("animated: only the first frame is restored",) if b"acTL" in dict(chunks) else ()


def _decode_tiff(file: BinaryIO) -> Decoded:
    layout = tiff.read_layout(file)
    if layout.get("raw"):
        raise UnreadableError("a camera's raw file", "develop it first, to TIFF or JPEG")
    width, height = tiff.read_size(file)
    _refuse_too_large(width, height)
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
            with _opened(file, "TIFF") as image:
                # Pillow turns TIFF pictures, and only those, upright by itself, and without
                # the field for it by what XMP says, which nobody else does.
                image.info.pop("xmp", None)
                picture, notes = _picture(image)
                return _upright("TIFF", picture, notes, metadata, encoding, orientation=1)
        except UnidentifiedImageError:
            pass  # planes, or tiles of an odd kind: the other reader may know them
    samples, alpha = tiff.read_pixels(file)
    picture = Picture(samples, alpha, tiff.read_icc(file))
    return _upright("TIFF", picture, (), metadata, encoding, orientation=layout["orientation"])


def _decode_with_pillow(file: BinaryIO, format_: str) -> Decoded:
    with _opened(file, format_) as image:
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
        picture, notes = _picture(image)
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


def _picture(image: Image.Image) -> tuple[Picture, tuple[str, ...]]:
    """The samples of an opened image, and what the user should know."""
    notes: list[str] = []
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        notes.append(
            "holds further pictures (a preview, depth or gain map): only the main one is kept"
            if image.format == "MPO"
            else f"{frames} pages: only the first is restored"
            if image.format == "TIFF"
            else "animated: only the first frame is restored"
        )
    icc = image.info.get("icc_profile")
    image.load()
    image = _simplify(image, has_icc=bool(icc))
    alpha = None
    if image.mode in ("LA", "RGBA"):
        alpha = _to_array(image.getchannel("A"))
    colours = {"LA": "L", "RGBA": "RGB"}.get(image.mode, image.mode)
    samples = _to_array(image, colours)
    if samples.ndim == 2:
        samples = samples[..., None]
    return Picture(samples, alpha, icc or None), tuple(notes)


def _simplify(image: Image.Image, has_icc: bool) -> Image.Image:
    """The same picture in one of the modes L, LA, RGB, RGBA, CMYK or I;16*."""
    mode = image.mode
    see_through = image.has_transparency_data
    if mode in ("P", "PA"):
        if not has_icc and not see_through and _has_grey_palette(image):
            return image.convert("L")
        return image.convert("RGBA" if see_through else "RGB")
    if mode in ("1", "L"):
        return image.convert("LA" if see_through else "L")
    if mode in ("La", "LA"):
        return image.convert("LA")
    if mode in ("RGBa", "RGB") and see_through:
        return image.convert("RGBA")
    if mode in ("YCbCr", "RGBX"):
        return image.convert("RGB")
    if mode == "LAB":
        return _from_lab(image)
    if mode in ("RGB", "RGBA", "CMYK") or mode.startswith("I;16"):
        return image
    raise UnreadableError(f"pixels of kind {mode} are not supported", "convert it to 16 bits")


def _has_grey_palette(image: Image.Image) -> bool:
    colours = np.array(image.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
    return bool((colours == colours[:, :1]).all())


def _from_lab(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    image.info.pop("icc_profile", None)
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(lab, srgb, "LAB", "RGB").apply(image)


def _to_array(image: Image.Image, mode: str | None = None) -> npt.NDArray[Any]:
    """A writable array of an image's pixels, copied in bands to save memory."""
    mode = mode or image.mode
    deep_grey = mode.startswith("I;16")
    width, height = image.size
    channels = len(Image.new(mode, (1, 1)).getbands())
    shape = (height, width) if channels == 1 else (height, width, channels)
    array = np.empty(shape, np.uint16 if deep_grey else np.uint8)
    rows = max(1, _BAND_PIXELS // width)
    for top in range(0, height, rows):
        band = image.crop((0, top, width, min(height, top + rows)))
        if band.mode != mode:
            band = band.convert(mode)
        array[top : top + rows] = np.asarray(band)
    return array


@contextmanager
def _opened(file: BinaryIO, format_: str) -> Iterator[Image.Image]:
    # Pillow warns of damaged metadata, which here never fails a photo. A filter that stays is
    # safe between threads; one that is taken back is not.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    with _BOMB_GUARD, Image.open(file, formats=_PLUGINS.get(format_, [format_])) as image:
        _refuse_too_large(*image.size)
        yield image


def _refuse_too_large(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise UnreadableError(
            f"{width}x{height} pixels are more than the {MOST_PIXELS // 1_000_000} million allowed",
            "scale it down or cut it into parts",
        )


class _BombGuard:
    """While one is entered, Pillow leaves the limit of size to `_refuse_too_large`.

    Pillow's own limit is a global of 179 megapixels, with a warning from 89 on. It is put back
    when the last of several threads leaves.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._limit: int | None = None

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._limit = Image.MAX_IMAGE_PIXELS
                Image.MAX_IMAGE_PIXELS = None
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                Image.MAX_IMAGE_PIXELS = self._limit


_BOMB_GUARD = _BombGuard()


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
