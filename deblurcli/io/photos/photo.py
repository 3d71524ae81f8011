"""A photo: what its file holds, and what the network gets to see of it."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from deblurcli.io.photos.metadata import Metadata

if TYPE_CHECKING:
    from deblurcli.io.photos.colour import ColourSpace

Samples = npt.NDArray[Any]
"""``(H, W, C)`` uint8 or uint16, C = 1 (grey), 3 (RGB) or 4 (CMYK, 0 = no ink)."""

DAMAGED = "damaged: only what could be read is restored"
ANIMATED = "animated: only the first frame is restored"

# The memory that a pixel of 8 bits a channel takes at most, and one of 16.
_PIXEL_BYTES, _DEEP_PIXEL_BYTES = 12, 24
_METADATA_BYTES = 256 << 20
_MODES = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr", "CMYK"}
_ALLOW_MORE = "scale it down, or allow more with --max-pixels"


class PhotoError(Exception):
    """The reason why a file can't be read or written as a photo, and what the user can do. `read`
    and `write`, which know the file's name, turn it into a `DeblurError`."""


@dataclass(frozen=True)
class ReadOptions:
    """Which photos are accepted. What is refused is refused before it is decoded."""

    # Of 8 bits; fewer where one takes more memory. No camera makes more: decoding takes gigabytes.
    max_pixels: int = 500_000_000
    keep_damaged: bool = False  # restore what is left of damaged JPEG and PNG files

    def check_file_size(self, file_bytes: int) -> None:
        """Raises PhotoError for more bytes than an uncompressed picture with metadata takes."""
        max_bytes = 8 * self.max_pixels + _METADATA_BYTES
        if file_bytes > max_bytes:
            raise PhotoError(f"more than the {max_bytes / 1e6:.0f} MB allowed", _ALLOW_MORE)

    def check_size(
        self,
        width: int,
        height: int,
        held_bytes: int = 0,
        *,
        deep: bool = False,
        pixel_bytes: int | None = None,
    ) -> None:
        """Raises PhotoError for a picture that is too large.

        Args:
            held_bytes: what its encoded or decoded pixels take in memory at once. No codec needs
                many times what it encodes; only bombs do.
            deep: it has more than 8 bits a channel.
            pixel_bytes: the memory that one pixel of its kind takes until it is written again.
        """
        pixel_bytes = pixel_bytes or (_DEEP_PIXEL_BYTES if deep else _PIXEL_BYTES)
        pixels, what = width * height, f"{width}x{height} pixels"
        million, remedy = f"{self.max_pixels / 1e6:.3g} million", _ALLOW_MORE
        if pixels > self.max_pixels:
            reason = f"{what} are more than the {million} allowed"
        elif pixel_bytes * pixels > _PIXEL_BYTES * self.max_pixels + _METADATA_BYTES:
            taken = f"{pixel_bytes * pixels / 1e9:.1f} GB"
            reason = f"{what} of this kind take {taken} of memory, more than {million} of 8 bits"
        elif held_bytes > 0.6 * pixel_bytes * pixels + _METADATA_BYTES:
            reason = f"{held_bytes >> 20} MB are too much for {what}"
            remedy = "save it anew with another program"
        else:
            return
        raise PhotoError(reason, remedy)


@dataclass(frozen=True)
class Encoding:
    """How a file was encoded, for the result to be encoded alike or better."""

    tables: tuple[tuple[int, ...], ...] = ()  # JPEG's, of luma and chroma, in Pillow's order
    subsampling: int = 0  # of JPEG, in Pillow's numbers: 0 is 4:4:4, 1 is 4:2:2, 2 is 4:2:0
    chroma: str = "420"  # of HEIC: or "422" or "444"
    progressive: bool = False  # of JPEG
    lossless: bool = False  # of WebP
    compression: int | None = None  # the number TIFF has for it
    bits: int = 8  # per channel, of HEIC and AVIF


@dataclass(frozen=True, eq=False)
class Picture:
    """What a photo's file holds."""

    format: str  # JPEG, PNG, WEBP, TIFF, BMP, GIF, HEIF or AVIF
    # (H, W, C): the samples, in the picture's own colour space, and after them alpha, which is not
    # multiplied into them. One array for both, as large photos are not to be held twice.
    channels: Samples
    has_alpha: bool = False  # whether the last channel is alpha
    icc: bytes | None = None  # profile of the samples; None is sRGB, or plain grey or CMYK
    metadata: Metadata = field(default_factory=Metadata)
    encoding: Encoding = field(default_factory=Encoding)
    # Of high dynamic range (PQ or HLG), which no ICC profile describes, the numbers of primaries
    # and transfer curve as in ITU-T H.273. The network then sees the samples as they are.
    cicp: tuple[int, int] | None = None
    orientation: int | None = None  # 1 to 8 as in EXIF; None where the EXIF data say it
    notes: tuple[str, ...] = ()  # what the user should know

    @classmethod
    def of(cls, format_: str, values: Samples) -> "Picture":
        """A picture of ``(H, W)`` or ``(H, W, C)`` values; the last of 2 or 4 is alpha."""
        values = values.reshape(*values.shape[:2], -1)
        return cls(format_, np.ascontiguousarray(values), values.shape[2] % 2 == 0)

    @property
    def samples(self) -> Samples:
        """A view of the channels but alpha."""
        return self.channels[..., :-1] if self.has_alpha else self.channels

    @property
    def alpha(self) -> Samples | None:
        """A view of the alpha channel, ``(H, W)``; None if opaque."""
        return self.channels[..., -1] if self.has_alpha else None

    def noted(self, note: str) -> "Picture":
        """The same picture with one more note."""
        return replace(self, notes=(*self.notes, note))

    def without_extras(self, extras: Iterable[str]) -> "Picture":
        """The same picture, which no longer says that it has e.g. a gain map, with a note."""
        names = ", ".join(sorted(extras))
        if not names:
            return self
        picture = replace(self, metadata=self.metadata.without_claims())
        return picture.noted(f"also holds {names}: only the main picture is kept")

    def turned(self, orientation: int) -> "Picture":
        """A picture of this EXIF orientation turned upright."""
        if orientation == 1:
            return self
        channels, metadata = self.channels, self.metadata.with_upright_xmp()
        if orientation >= 5:
            channels = channels.swapaxes(0, 1)
            metadata = replace(metadata, dpi=metadata.dpi and metadata.dpi[::-1])
        if orientation in (3, 4, 7, 8):
            channels = channels[::-1]
        if orientation in (2, 3, 6, 7):
            channels = channels[:, ::-1]
        return replace(self, channels=np.ascontiguousarray(channels), metadata=metadata)


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo as the network gets it, with all that is needed to write it back."""

    # (H, W, 3) uint8, or uint16 of photos of more than 8 bits, sRGB, upright. A view of the
    # picture's samples where these are sRGB.
    pixels: Samples
    picture: Picture = field(repr=False)  # what the file holds, turned upright
    space: "ColourSpace" = field(repr=False)  # of the picture's samples

    @property
    def format(self) -> str:
        """The file's format: JPEG, PNG, WEBP, TIFF, BMP, GIF, HEIF or AVIF."""
        return self.picture.format

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know: "animated: only the first frame is restored", say."""
        return self.picture.notes


# Pillow's images


@contextmanager
def opened(file: BinaryIO, format_: str, options: ReadOptions) -> Iterator[Image.Image]:
    """Opens a file of a known format, if it is not too large. Not by `Image.open`: its limit of
    size is a global of 179 megapixels."""
    if format_ not in Image.OPEN:
        Image.init()
    make, _ = Image.OPEN[format_]
    try:
        opened_image = make(file, "")
    except Image.DecompressionBombError as error:
        raise ValueError("a frame far larger than the picture") from error
    except OSError as error:
        if "Unsupported" in str(error):
            raise PhotoError(
                f"this kind of {format_} is not supported", "convert it to PNG"
            ) from error
        raise
    with opened_image as image:
        options.check_size(*image.size)
        yield image


def bands(values: Samples) -> list[slice]:
    """Rows to work on at a time, so that intermediate results stay small."""
    rows = max(1, (1 << 19) // max(1, values.shape[1]))
    return [slice(start, start + rows) for start in range(0, values.shape[0], rows)]


def to_array(image: Image.Image) -> npt.NDArray[np.uint8]:
    """The pixels as ``(H, W, C)`` uint8: grey, with or without alpha, RGB, RGBA or CMYK. They are
    copied in bands to save memory."""
    mode = image.mode
    if mode not in _MODES:
        raise PhotoError(f"pixels of kind {mode} are not supported", "convert it to PNG")
    image.load()
    if mode != "CMYK":
        colours = "L" if mode in ("1", "L", "LA", "La") else "RGB"
        mode = colours + ("A" if image.has_transparency_data else "")
    width, height = image.size
    array = np.empty((height, width, Image.getmodebands(mode)), np.uint8)
    for rows in bands(array):
        band = image.crop((0, rows.start, width, min(height, rows.stop))).convert(mode)
        array[rows] = np.asarray(band).reshape(array[rows].shape)
    return array


def to_image(picture: Picture) -> Image.Image:
    """A picture of 8 bits as Pillow's image, with its alpha."""
    channels = np.ascontiguousarray(picture.channels)
    modes = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA" if picture.has_alpha else "CMYK"}
    mode = modes[channels.shape[2]]
    return Image.frombuffer(mode, channels.shape[1::-1], channels, "raw", mode, 0, 1)
