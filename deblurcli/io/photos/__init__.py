"""What `deblurcli.io.photos.images` is built of: file formats, metadata and colour of photos.

A photo is read by `decoding` into a `picture.Picture` and its `metadata.Metadata`, and written
from them by `encoding`. `jpeg`, `png` and `tiff` know what is special about these formats,
`exif` the structure of EXIF data, `colour` and `icc` the way to sRGB and back.
"""
