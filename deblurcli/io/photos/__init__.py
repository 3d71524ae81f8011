"""Reading and writing photos: pixels for the network, everything else kept as it was.

`read` decodes a file into a `Picture`, turns it upright and gives sRGB pixels; `write` carries the
network's change over to the picture's own samples. One module knows each format.
"""

from deblurcli.io.photos.photo import Photo, ReadOptions
from deblurcli.io.photos.read import format_of, read
from deblurcli.io.photos.write import FORMATS, PHOTO_SUFFIXES, is_same_format, write

__all__ = [
    "FORMATS",
    "PHOTO_SUFFIXES",
    "Photo",
    "ReadOptions",
    "format_of",
    "is_same_format",
    "read",
    "write",
]
