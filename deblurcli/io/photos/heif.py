"""HEIC files through libheif, with all their bits.

Pillow's plugin is not used: it cuts 10 bits to 8 and edits the metadata. In HEIC the pixels'
orientation is a matter of the container, which libheif applies; that in EXIF does not count.

Source: ISO/IEC 23008-12 (HEIF), 6.5.10 and annex A.
"""

from __future__ import annotations

import io
from typing import Any, BinaryIO

import numpy as np

from deblurcli.io.photos.metadata import Metadata, exif_from, readable_exif, with_upright_xmp
from deblurcli.io.photos.photo import Encoding, Picture, ReadOptions, join_alpha, split_alpha

_QUALITY = 90
_MANY_PICTURES = "holds further pictures: only the main one is kept"


def read(file: BinaryIO, options: ReadOptions) -> Picture:
    """The main picture of a HEIC file, upright; uint16 if it has more than 8 bits.

    Raises:
        PhotoError: too large.
        Exception: whatever pillow-heif raises for damaged files.
    """
    import pillow_heif

    encoded_bytes = file.seek(0, io.SEEK_END)
    file.seek(0)
    container = pillow_heif.open_heif(file, convert_hdr_to_8bit=False)
    image = container[container.primary_index]
    options.check_size(*image.size, encoded_bytes)
    samples = np.array(image)  # upright, of its final size
    height, width = samples.shape[:2]
    samples = samples.reshape(height, width, -1)[:, : image.size[0]]
    samples, alpha = split_alpha(samples)
    info: dict[str, Any] = image.info
    icc = info.get("icc_profile") or None
    metadata = Metadata(exif=exif_from(info.get("exif")), xmp=info.get("xmp") or None)
    colour = info.get("nclx_profile") if icc is None else None
    encoding = Encoding(chroma=str(info.get("chroma", 420)), colour=colour)
    notes = (_MANY_PICTURES,) if len(container) > 1 else ()
    return Picture("HEIF", samples, alpha, icc, metadata, encoding, orientation=1, notes=notes)


def encode(picture: Picture) -> list[bytes]:
    """The pieces of a HEIC file; 16-bit samples are written with 10 bits."""
    import pillow_heif

    metadata, encoding = picture.metadata, picture.encoding
    samples = join_alpha(picture)
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[samples.shape[2]]
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
    if exif := readable_exif(metadata.exif, with_orientation=True):
        options["exif"] = b"Exif\0\0" + exif
    if metadata.xmp:  # what it says of the orientation would be taken for that of the pixels
        options["xmp"] = with_upright_xmp(metadata).xmp
    file = io.BytesIO()
    height, width = samples.shape[:2]
    pillow_heif.encode(mode, (width, height), samples.tobytes(), file, **options)
    return [file.getvalue()]
