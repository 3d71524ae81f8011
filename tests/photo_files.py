"""Pictures to files in memory and back, as several test modules need it."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from deblurcli.io import photos


def saved(image: Image.Image, format_: str, **options: object) -> io.BytesIO:
    """The file that Pillow (and for HEIF pillow-heif) writes."""
    if format_ == "HEIF":
        import pillow_heif

        pillow_heif.register_heif_opener()
    file = io.BytesIO()
    image.save(file, format_, **options)
    file.seek(0)
    return file


def written(photo: photos.Photo, restored: np.ndarray, **options: object) -> io.BytesIO:
    """The file that we write."""
    file = io.BytesIO()
    photos.write(photo, restored, file, **options)
    file.seek(0)
    return file
