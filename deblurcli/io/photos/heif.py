"""HEIC files through libheif, with all their bits.

Pillow's plugin is not used: it cuts 10 bits to 8 and edits the metadata. In HEIC the pixels'
orientation is a matter of the container, which libheif applies; that in EXIF does not count.

Source: ISO/IEC 23008-12 (HEIF), 6.5.10 and annex A.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from deblurcli.io.photos.metadata import Metadata, exif_from, with_upright_xmp
from deblurcli.io.photos.picture import Encoding, Picture

_QUALITY = 90
_BITS_WRITTEN = 10
_MANY_PICTURES = "holds further pictures: only the main one is kept"


def read(
    file: BinaryIO, check_size: Callable[[int, int], None]
) -> tuple[Picture, Metadata, Encoding, tuple[str, ...]]:
    """The main picture of a HEIC file, upright; uint16 if it has more than 8 bits.

    Args:
        file: at its start.
        check_size: called with width and height before anything is decoded.

    Raises:
        ValueError, RuntimeError, OSError, EOFError, SyntaxError: the file is damaged.
    """
    import pillow_heif

    container = pillow_heif.open_heif(file, convert_hdr_to_8bit=False)
    image = container[container.primary_index]
    check_size(*image.size)
    samples = np.array(image)  # upright, of its final size
    height, width = samples.shape[:2]
    samples = samples.reshape(height, width, -1)[:, : image.size[0]]
    alpha = None
    if samples.shape[2] in (2, 4):
        samples, alpha = samples[..., :-1], np.ascontiguousarray(samples[..., -1])
    info: dict[str, Any] = image.info
    icc = info.get("icc_profile") or None
    metadata = Metadata(exif=exif_from(info.get("exif")), xmp=info.get("xmp") or None)
    colour = info.get("nclx_profile") if icc is None else None
    encoding = Encoding(chroma=str(info.get("chroma", 420)), colour=colour)
    notes = (_MANY_PICTURES,) if len(container) > 1 else ()
    return Picture(np.ascontiguousarray(samples), alpha, icc), metadata, encoding, notes


def encode(picture: Picture, metadata: Metadata, exif: bytes | None, encoding: Encoding) -> bytes:
    """A HEIC file; 16-bit samples are written with 10 bits.

    Args:
        picture: grey or RGB.
        metadata: only the XMP is used.
        exif: known to be intact.
        encoding: gives the chroma subsampling.
    """
    import pillow_heif

    samples = picture.samples
    mode = "L" if samples.shape[2] == 1 else "RGB"
    if picture.alpha is not None:
        samples = np.concatenate([samples, picture.alpha[..., None]], axis=2)
        mode += "A"
    if samples.dtype == np.uint16:
        mode += ";16"
    # x265 is three times as slow by default, for one percent of the bytes.
    options: dict[str, Any] = {"quality": _QUALITY, "enc_params": {"preset": "fast"}}
    if mode.startswith("RGB"):
        options["chroma"] = encoding.chroma
        if encoding.colour is not None and not picture.icc:
            options["nclx_profile"] = encoding.colour
    if picture.icc:
        options |= {"icc_profile": picture.icc, "icc_profile_type": "prof"}
    if exif:
        options["exif"] = b"Exif\0\0" + exif
    if metadata.xmp:  # what it says of the orientation would be taken for that of the pixels
        options["xmp"] = with_upright_xmp(metadata).xmp
    file = io.BytesIO()
    height, width = samples.shape[:2]
    pillow_heif.encode(mode, (width, height), samples.tobytes(), file, **options)
    return file.getvalue()
