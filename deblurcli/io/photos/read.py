"""From a file to a photo, whatever the format."""

import io
import logging
import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

from deblurcli.errors import DECODER_ERRORS, DeblurError, cannot_read
from deblurcli.io.photos import heif, jpeg, pillow, png, tiff
from deblurcli.io.photos.colour import choose_space, convert_to_srgb
from deblurcli.io.photos.exif import make_upright, read_exif
from deblurcli.io.photos.metadata import without_stale_resources
from deblurcli.io.photos.photo import Photo, PhotoError, Picture, ReadOptions

# They log what is odd about a file; without a handler that would end up on stderr.
for _library in ("imagecodecs", "tifffile"):
    logging.getLogger(_library).addHandler(logging.NullHandler())

_HEAD_BYTES = 512
_MAGIC = {
    b"\xff\xd8\xff": "JPEG",
    png.SIGNATURE: "PNG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    **dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "TIFF"),
}
_READERS: dict[str, Callable[[BinaryIO, ReadOptions], Picture]] = {
    "JPEG": jpeg.read,
    "PNG": png.read,
    "TIFF": tiff.read,
    "HEIF": heif.read,
    "AVIF": heif.read_avif,
    **{name: partial(pillow.read, name) for name in ("WEBP", "BMP", "GIF")},
}
_SAY_TRUNCATED = ("truncated", "too small", "not enough image data")


def read(
    source: Path | BinaryIO,
    *,
    name: str | None = None,
    options: ReadOptions = ReadOptions(),  # noqa: B008  (frozen)
) -> Photo:
    """Reads a photo: JPEG, PNG, WebP, TIFF, BMP, GIF, HEIC or AVIF, whatever its name says.

    Of several frames or pages it is the first. Bilevel pictures become grey and palettes RGB,
    because what the network restores needs shades that they lack. A file of which a part is
    missing is refused: half a photo is not what the user wants to keep in place of the
    original. Damaged metadata fail nothing.

    Args:
        source: a path, or an open binary file or pipe.
        name: what errors call it; by default the path, or ``-``.
        options: how large it may be, and whether damaged pictures are read, too.

    Raises DeblurError where it can't be read: missing, a folder, no permission, empty, no photo,
    damaged, truncated, of an unsupported kind or too large.
    """
    subject = name or (os.fspath(source) if isinstance(source, Path) else "-")
    try:
        with source.open("rb") if isinstance(source, Path) else nullcontext(source) as file:
            picture = _decode(file if file.seekable() else _read_pipe(file, options), options)
    except PhotoError as error:
        raise DeblurError(subject, *error.args) from error
    except OSError as error:
        raise cannot_read(subject, error) from error
    metadata, orientation = picture.metadata, 1
    photoshop = without_stale_resources(metadata.photoshop)
    exif, tags = read_exif(metadata.exif)
    dpi = metadata.dpi or tags.dpi
    if exif is not None:
        exif, orientation = make_upright(exif, tags)
        metadata = metadata if orientation == 1 else metadata.with_upright_xmp()
    metadata = replace(metadata, exif=exif, photoshop=photoshop, dpi=dpi)
    if picture.orientation is not None:
        orientation = picture.orientation
    picture = replace(picture, metadata=metadata, orientation=1).turned(orientation)
    try:
        space = choose_space(picture.samples, picture.icc)
    except ValueError:
        space = choose_space(picture.samples, None)
        picture = picture.noted("its colour profile can't be used: taken for sRGB")
    return Photo(convert_to_srgb(space, picture.samples), picture, space)


def format_of(path: Path) -> str | None:
    """The format of the photo in a file, by its content, as `Photo.format`; None if none."""
    try:
        with path.open("rb") as file:
            return _recognise(file.read(_HEAD_BYTES))
    except OSError:
        return None


def _decode(file: BinaryIO, options: ReadOptions) -> Picture:
    options.check_file_size(file.seek(0, io.SEEK_END))
    if not file.tell():
        raise PhotoError("empty: zero bytes", "get an intact copy")
    file.seek(0)
    format_ = _recognise(file.read(_HEAD_BYTES))
    if format_ is None:
        raise PhotoError(
            "not a photo that can be read here",
            "give a JPEG, PNG, WebP, TIFF, BMP, GIF, HEIC or AVIF file",
        )
    file.seek(0)
    try:
        return _READERS[format_](file, options)
    except MemoryError as error:
        raise PhotoError("too large for this computer's memory", "scale it down first") from error
    except DECODER_ERRORS as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(error, EOFError) or any(word in reason.lower() for word in _SAY_TRUNCATED):
            reason = "truncated: a part of the file is missing"
        else:
            reason = f"damaged ({reason})"
        remedy = "get an intact copy"
        if format_ in ("JPEG", "PNG") and not options.keep_damaged:
            remedy += ", or restore what is left: --damaged keep"
        raise PhotoError(reason, remedy) from error


def _read_pipe(file: BinaryIO, options: ReadOptions) -> BinaryIO:
    # Piece by piece: one long read would not hear of a Ctrl-C that came in between.
    read_some = getattr(file, "read1", file.read)
    whole = io.BytesIO()
    while piece := read_some(1 << 16):
        options.check_file_size(whole.tell() + len(piece))
        whole.write(piece)
    return whole


def _recognise(head: bytes) -> str | None:
    for magic, name in _MAGIC.items():
        if head.startswith(magic):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        brands = head[8 : int.from_bytes(head[:4], "big")]
        kinds = {brands[i : i + 3] for i in range(0, len(brands), 4)}
        if b"avi" in kinds:
            return "AVIF"
        if kinds & {b"hei", b"hev"} or head[8:12] in (b"mif1", b"msf1"):
            return "HEIF"
    return None
