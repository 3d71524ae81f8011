"""HEIC files through libheif, AVIF files through libavif, with all their bits.

For HEIC, Pillow's plugin is not used: it cuts 10 bits to 8 and edits the metadata. In both the
pixels' orientation is a matter of the container; that in EXIF does not count.

Source: ISO/IEC 23008-12 (HEIF), 6.5.10 and annex A.
"""

from __future__ import annotations

import io
from typing import Any, BinaryIO

import numpy as np

from deblurcli.io.photos.boxes import read_main_picture
from deblurcli.io.photos.colour import with_cicp
from deblurcli.io.photos.metadata import (
    Metadata,
    exif_from,
    readable_exif,
    with_upright_xmp,
)
from deblurcli.io.photos.photo import Encoding, Picture, ReadOptions, join_alpha, split_alpha
from deblurcli.io.photos.pillow import opened, to_array

_QUALITY = 90


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
    file.seek(0)
    main = read_main_picture(file.read())
    if len(container) > 1:
        main.extras.add("further pictures")
    picture = Picture(
        "HEIF",
        samples,
        alpha,
        icc=info.get("icc_profile") or None,
        metadata=Metadata(exif=exif_from(info.get("exif")), xmp=info.get("xmp") or None),
        encoding=Encoding(chroma=str(info.get("chroma", 420)), bits=info.get("bit_depth", 8)),
        orientation=1,
    )
    return with_cicp(picture, main.cicp).without_extras(main.extras)


def read_avif(file: BinaryIO, options: ReadOptions) -> Picture:
    """The main picture of an AVIF file; uint16 if it has more than 8 bits.

    Raises:
        PhotoError: too large.
        Exception: whatever Pillow and imagecodecs raise for damaged files.
    """
    import imagecodecs

    data = file.read()
    main = read_main_picture(data)
    for_pillow = bytearray(data)
    for place in main.exif_places:  # Pillow would complain of damaged ones on stderr
        for_pillow[place : place + 4] = b"none"
    with opened(io.BytesIO(for_pillow), "AVIF", options) as image:
        options.check_size(*image.size, len(data))
        info, animated = dict(image.info), getattr(image, "n_frames", 1) > 1
        deep = main.bits > 8 and not animated
        samples = imagecodecs.avif_decode(data) if deep else to_array(image)
    if deep:
        # 10 bits fill 16 by repetition, as libheif does it: white stays white.
        samples = samples << (16 - main.bits) | samples >> (2 * main.bits - 16)
    if main.crop is not None:
        left, top, width, height = main.crop
        samples = samples[top : top + height, left : left + width]
    samples, alpha = split_alpha(samples)
    picture = Picture(
        "AVIF",
        samples,
        alpha,
        icc=info.get("icc_profile"),
        metadata=Metadata(exif=exif_from(main.exif), xmp=info.get("xmp")),
        encoding=Encoding(bits=main.bits),
        orientation=main.orientation,
        notes=("animated: only the first frame is restored",) if animated else (),
    )
    return with_cicp(picture, main.cicp).without_extras(main.extras)


def encode(picture: Picture) -> list[bytes]:
    """The pieces of a HEIC file; 16-bit samples are written with 10 bits, or 12."""
    import pillow_heif

    metadata, encoding = picture.metadata, picture.encoding
    samples = join_alpha(picture)
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[samples.shape[2]]
    if samples.dtype == np.uint16:
        mode += ";16"
    # x265 is three times as slow by default, for one percent of the bytes.
    options: dict[str, Any] = {"quality": _QUALITY, "enc_params": {"preset": "fast"}}
    if samples.dtype == np.uint16:
        options["bit_depth"] = 12 if encoding.bits > 10 else 10
    if mode.startswith("RGB"):
        options["chroma"] = encoding.chroma
        if picture.cicp is not None:
            primaries, transfer = picture.cicp
            options |= {
                "color_primaries": primaries,
                "transfer_characteristics": transfer,
                "matrix_coefficients": 9 if primaries == 9 else 6,
            }
    if picture.icc:
        options |= {"icc_profile": picture.icc, "icc_profile_type": "prof"}
    if exif := readable_exif(metadata.exif):
        options["exif"] = b"Exif\0\0" + exif
    if metadata.xmp:  # what it says of the orientation would be taken for that of the pixels
        options["xmp"] = with_upright_xmp(metadata).xmp
    file = io.BytesIO()
    height, width = samples.shape[:2]
    pillow_heif.encode(mode, (width, height), samples.tobytes(), file, **options)
    return [file.getvalue()]
