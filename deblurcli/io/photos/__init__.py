"""Reading and writing photos: pixels for the network, everything else kept as it was.

`read` decodes a file into a `Picture` (samples, metadata, how it was encoded), turns it upright
and gives sRGB pixels; `write` carries the network's change over to the picture's own samples,
colours and encoding. One module knows each format: `jpeg`, `png`, `tiff`, `heif`, and `pillow`
for those that Pillow does alone; their `read` raises PhotoError for what is too large or not
supported, and whatever their libraries raise for damaged files. `colour` knows the way to sRGB
and back, `exif` and `metadata` what a photo says of itself.
"""

from deblurcli.io.photos.photo import MAX_PIXELS, Encoding, Photo, Picture, ReadOptions, to_uint8
from deblurcli.io.photos.read import format_of, read
from deblurcli.io.photos.write import FORMATS, PHOTO_SUFFIXES, is_same_format, write

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "PHOTO_SUFFIXES",
    "Encoding",
    "Photo",
    "Picture",
    "ReadOptions",
    "format_of",
    "is_same_format",
    "read",
    "to_uint8",
    "write",
]
