"""The pictures of data sets: plain pixels, read and written, and sizes without decoding.

Photos of people, with their colour profiles and everything else, are the matter of `io.photos`.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import imageio.v3 as iio
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from deblurcli.errors import DeblurError, logger, too_small

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """DeblurError for a picture that is damaged or none."""
    try:
        yield
    except Exception as error:  # Pillow's decoders raise all sorts of errors on damaged files
        reason = f"can't be read as a picture ({getattr(error, 'strerror', None) or error})"
        if isinstance(error, UnidentifiedImageError):
            reason = "is empty or no picture"
        raise DeblurError(path, reason, "repair it or take it out of the data") from error


def read_picture(path: Path) -> NDArray[np.uint8]:
    """The pixels of one picture of a data set, (H, W, 3) uint8. Raises DeblurError if damaged."""
    with _reading(path):
        return np.array(iio.imread(path, plugin="pillow", mode="RGB", index=0), np.uint8)


def write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Writes ``(H, W, 3) uint8`` as a PNG file, whatever the name ends in. Where OSError is raised
    (a full disk), the file is incomplete: use it in `files.atomic_output`."""
    # Level 3 is several times faster than the usual 6 and a few percent larger. Pillow itself,
    # because imageio's writer complains on stderr where Ctrl-C comes while it is being made.
    Image.fromarray(pixels).save(path, format="PNG", compress_level=3)


def read_sizes(paths: Iterable[Path]) -> Iterator[tuple[int, int]]:
    """(width, height) of each picture, in turn; only headers are read. Raises DeblurError for a
    file that is no picture."""

    def read_size(path: Path) -> tuple[int, int]:
        with _reading(path), Image.open(path) as image:
            return image.size

    # Opening files on a network disk is waiting mostly.
    with ThreadPoolExecutor(8) as threads:
        yield from threads.map(read_size, paths)


def keep_large(paths: Sequence[Path], min_px: int) -> list[Path]:
    """Those pictures whose sides have `min_px` or more; what is left out is logged. Raises
    DeblurError for a file that is no picture, or where all are too small."""
    sizes = dict(zip(paths, read_sizes(paths), strict=True))
    large = [path for path, size in sizes.items() if min(size) >= min_px]
    small = [path for path, size in sizes.items() if min(size) < min_px]
    if small and not large:
        remedy = "take it out of the data, or use smaller patches"
        raise too_small(small[0], sizes[small[0]], min_px, remedy)
    if small:
        others = f" and {len(small) - 1} others" if len(small) > 1 else ""
        logger.warning("%s%s: left out, smaller than %d pixels", small[0], others, min_px)
    return large
