"""Files of other programs: nothing silently wrong, no memory without a bound, clear refusals."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from photo_files import saved, written
from PIL import Image, ImageOps

from deblurcli.errors import DECODER_ERRORS, DeblurError
from deblurcli.io import photos
from deblurcli.io.photos import ReadOptions, heif

KEEP = ReadOptions(keep_damaged=True)


def noise(height: int = 60, width: int = 80, top: int = 255, seed: int = 0) -> np.ndarray:
    dtype = np.uint8 if top == 255 else np.uint16
    return np.random.default_rng(seed).integers(0, top + 1, (height, width, 3), dtype)


def smooth(height: int = 60, width: int = 80) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    planes = [x / width, y / height, (x + y) / (width + height)]
    return np.rint(np.stack(planes, -1) * 255).astype(np.uint8)


def read(data: bytes | io.BytesIO, options: ReadOptions = ReadOptions()) -> photos.Photo:  # noqa: B008
    return photos.read(io.BytesIO(data) if isinstance(data, bytes) else data, options=options)


def refusal(data: bytes, options: ReadOptions = ReadOptions()) -> str:  # noqa: B008
    with pytest.raises(DeblurError) as caught:
        read(data, options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def encode_avif(own: np.ndarray, **options: object) -> bytes:
    """An AVIF with colours by CICP; skips with imagecodecs for Python 3.10, which can't."""
    try:
        return bytes(imagecodecs.avif_encode(own, **options))
    except TypeError as error:
        pytest.skip(f"this imagecodecs writes no CICP ({error})")


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    size: tuple[int, int], depth: int, colour: int, rows: bytes, *more: bytes, packed: bytes = b""
) -> bytes:
    header = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0)
    pixels = chunk(b"IDAT", packed or zlib.compress(rows))
    parts = [chunk(b"IHDR", header), *more, pixels, chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def pack_bits(rows: np.ndarray, bits: int) -> np.ndarray:
    """Rows of uint8 values of a few bits each as rows of bytes."""
    singly = np.unpackbits(rows[..., None], axis=2)[..., 8 - bits :]
    return np.packbits(singly.reshape(len(rows), -1), axis=1)


# Half pictures


@settings(max_examples=30, deadline=None)
@given(
    share=st.floats(0.3, 0.9),
    progressive=st.booleans(),
    mode=st.sampled_from(["L", "RGB", "CMYK"]),
    quality=st.sampled_from([50, 95]),
)
def test_half_a_jpeg_with_an_end_marker(
    share: float, progressive: bool, mode: str, quality: int
) -> None:
    image = Image.fromarray(noise()).convert(mode)
    whole = saved(image, "JPEG", progressive=progressive, quality=quality).getvalue()
    cut = whole[: int(len(whole) * share)]
    assume(b"\xff\xda" not in cut[-16:])  # libjpeg gives up where a scan ends as it begins
    for data in (cut + b"\xff\xd9", cut):
        text = refusal(data)
        assert "truncated" in text or "damaged" in text
        assert "--damaged keep" in text
    kept = read(cut + b"\xff\xd9", KEEP)
    assert "damaged: only what could be read is restored" in kept.notes
    if not progressive and share > 0.6:
        np.testing.assert_array_equal(kept.pixels[:8, :16], read(whole).pixels[:8, :16])
    assert read(whole).notes == ()


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 59), depth=st.sampled_from([8, 16]), seed=st.integers(0, 99))
def test_a_png_of_which_rows_are_missing(rows: int, depth: int, seed: int) -> None:
    pixels = noise(top=2**depth - 1, seed=seed)
    lines = [b"\0" + row.astype(f">u{depth // 8}").tobytes() for row in pixels]
    data = png((80, 60), depth, 2, b"".join(lines[:rows]))
    assert "truncated: a part of the file is missing" in refusal(data)
    kept = read(data, KEEP)
    np.testing.assert_array_equal(kept.pixels[:rows], pixels[:rows])
    assert (kept.pixels[rows:] == 0).all()
    assert len(kept.notes) == 1


def test_a_damaged_png_with_more_rows_than_it_claims() -> None:
    rows = b"".join(b"\0" + row.tobytes() for row in noise())
    data = bytearray(png((80, 60), 8, 2, rows + bytes(10_000_000)))
    data[-13] ^= 1  # the checksum of the pixels
    kept = read(bytes(data), KEEP)
    np.testing.assert_array_equal(kept.pixels, noise())
    assert len(kept.notes) == 1


def test_damage_in_the_middle_of_a_png() -> None:
    data = bytearray(saved(Image.fromarray(noise()), "PNG").getvalue())
    data[len(data) // 2] ^= 0x40
    assert "damaged" in refusal(bytes(data))
    kept = read(bytes(data), KEEP)
    np.testing.assert_array_equal(kept.pixels[:10], noise()[:10])


def test_a_damaged_checksum_of_the_header_of_a_png() -> None:
    data = bytearray(saved(Image.fromarray(noise()), "PNG").getvalue())
    data[29] ^= 1
    assert "--damaged keep" in refusal(bytes(data))
    kept = read(bytes(data), KEEP)
    np.testing.assert_array_equal(kept.pixels, noise())
    assert len(kept.notes) == 1


def test_a_strip_of_jpeg_in_tiff_that_ends_early() -> None:
    file = io.BytesIO()
    pixels = noise(64, 64)
    tifffile.imwrite(file, pixels, photometric="rgb", compression="jpeg", rowsperstrip=64)
    whole = file.getvalue()
    assert read(whole).notes == ()
    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        (size,) = tiff.pages.first.databytecounts
    set_tiff_field(file, "StripByteCounts", size // 2)
    assert "damaged (a part of its pixels is missing or wrong)" in refusal(file.getvalue())


# Bounds


def test_kinds_that_take_more_memory_are_limited_to_fewer_pixels() -> None:
    options = ReadOptions(max_pixels=100_000_000)
    deep = io.BytesIO()
    write_tiff(deep, 9000, 9000, bytes(1000), [16] * 3, 2)
    avif = saved(Image.fromarray(smooth()), "AVIF").getvalue()
    avif = avif.replace(struct.pack(">II", 80, 60), struct.pack(">II", 9000, 9000))
    for data, taken in ((deep.getvalue(), "1.9"), (png((9000, 9000), 16, 2, b""), "1.9")):
        text = refusal(data, options)
        assert f"9000x9000 pixels of this kind take {taken} GB of memory, more than 100 mil" in text
        assert "--max-pixels" in text
    assert "of memory" in refusal(avif, options)
    assert "of memory" not in refusal(png((9000, 9000), 8, 2, b""), options)


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_a_file_far_too_large_for_its_picture_is_not_read(kind: str, tmp_path: Path) -> None:
    class Counted(io.FileIO):
        given = 0

        def read(self, size: int | None = -1) -> bytes:  # type: ignore[override]
            data = super().read(-1 if size is None else size)
            self.given += len(data)
            return data

    path = tmp_path / "photo"
    path.write_bytes(saved(Image.fromarray(smooth()), kind).getvalue())
    with Counted(path, "r+") as file:
        file.truncate(600_000_000)  # zeros, which take no room on the disk
        with pytest.raises(DeblurError, match=r"572 MB are too much for 80x6[04] pixels"):
            photos.read(file)
        assert file.given < 100_000


def test_a_heic_that_could_not_be_read_again_is_not_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """libde265 reads no more than 16 MB in one piece, and libx265 writes one piece."""
    photo = read(saved(Image.fromarray(smooth()), "HEIF").getvalue())
    whole = len(written(photo, photo.pixels).getvalue())
    monkeypatch.setattr(heif, "MAX_HEIC_BYTES", whole - 1)
    smaller = written(photo, photo.pixels)
    assert "can be read again have 16 MB at most: quality 75" in caplog.text
    assert np.abs(read(smaller).pixels.astype(int) - photo.pixels).mean() < 3
    monkeypatch.setattr(heif, "MAX_HEIC_BYTES", 500)
    with pytest.raises(DeblurError, match=r"can be read again; write \.png or \.tif"):
        photos.write(photo, photo.pixels, tmp_path / "sharp.heic")
    assert not list(tmp_path.iterdir())


class Endless(io.RawIOBase):
    """A pipe that never ends."""

    def __init__(self) -> None:
        self.given = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        self.given += len(buffer)
        buffer[:] = bytes(len(buffer))
        return len(buffer)


def test_a_pipe_without_end_is_given_up() -> None:
    pipe = Endless()
    with pytest.raises(DeblurError, match="more than the 268 MB allowed"):
        photos.read(io.BufferedReader(pipe), options=ReadOptions(max_pixels=1000))  # type: ignore[type-var]
    assert pipe.given < 300e6


MEASURE = """
import resource, sys
from pathlib import Path
from deblurcli.errors import DECODER_ERRORS, DeblurError
from deblurcli.io import photos
import imagecodecs, tifffile, av, PIL.Image
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = peak()
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        photos.read(path)
    except DeblurError as error:
        print(error)
    assert peak() - before < 250, (path, peak() - before)
"""


def packed_zeros(megabytes: int) -> bytes:
    packer = zlib.compressobj(1)
    return b"".join([packer.compress(bytes(1 << 20)) for _ in range(megabytes)]) + packer.flush()


def bombs() -> dict[str, bytes]:
    zeros = packed_zeros(400)
    row = b"\0" + bytes(30)
    deflate = io.BytesIO()
    tifffile.imwrite(deflate, np.zeros((64, 64), np.uint8), compression="zlib")
    tiff = bytearray(deflate.getvalue())
    deflate.seek(0)
    with tifffile.TiffFile(deflate) as file:
        tags = file.pages[0].tags  # type: ignore[union-attr]
        for name, value in (("StripOffsets", len(tiff)), ("StripByteCounts", len(zeros))):
            tag = tags[name]
            struct.pack_into("<I" if tag.dtype == 4 else "<H", tiff, tag.valueoffset, 0)
            if tag.dtype == 4:
                struct.pack_into("<I", tiff, tag.valueoffset, value)
            else:  # make it a long
                struct.pack_into("<HII", tiff, tag.offset + 2, 4, 1, value)
    many = bytearray(tiff)  # which claims 65535 channels
    struct.pack_into("<H", many, tags["SamplesPerPixel"].valueoffset, 65535)
    return {
        "iccp.png": png((10, 1), 8, 2, row, chunk(b"iCCP", b"x\0\0" + zeros)),
        "ztxt.png": png((10, 1), 8, 2, row, *[chunk(b"zTXt", b"x\0\0" + zeros)] * 4),
        "itxt.png": png((10, 1), 8, 2, row, chunk(b"iTXt", b"x\0\1\0\0\0" + zeros)),
        "idat.png": png((10, 1), 8, 2, b"", packed=zeros),
        "claim.png": png((20000, 20000), 8, 2, row),
        "deflate.tif": bytes(tiff) + zeros,
        "channels.tif": bytes(many),
    }


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux does")
def test_bombs_cost_little_memory(tmp_path: Path) -> None:
    for name, data in bombs().items():
        (tmp_path / name).write_bytes(data)
    command = [sys.executable, "-c", MEASURE, tmp_path]
    result = subprocess.run(command, check=True, stderr=subprocess.PIPE)
    assert result.stderr == b""  # libpng's and libtiff's own lines don't reach the terminal


# Right pictures that were refused or misnamed


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("kind", [b"eXIf", b"pHYs", b"cHRM", b"gAMA", b"iCCP", b"tIME", b"sBIT"])
def test_bad_metadata_never_fail_a_png(depth: int, kind: bytes) -> None:
    pixels = noise(2, 3, 2**depth - 1)
    rows = b"".join(b"\0" + row.astype(f">u{depth // 8}").tobytes() for row in pixels)
    for body in (b"", b"a", b"II*\0\xff\xff\xff\xff", bytes(40), b"\xff" * 9):
        photo = read(png((3, 2), depth, 2, rows, chunk(kind, body)))
        np.testing.assert_array_equal(photo.pixels, pixels)
        result = written(photo, photo.pixels)
        read(result)
        with Image.open(result) as image:
            image.load()


def jpeg_with(marker: int, body: bytes) -> bytes:
    plain = saved(Image.fromarray(smooth()), "JPEG").getvalue()
    return plain[:2] + struct.pack(">BBH", 255, marker, len(body) + 2) + body + plain[2:]


@pytest.mark.parametrize(
    ("marker", "body"),
    [
        (0xED, b"Photoshop 3.0\0"), (0xED, b"Photoshop 3.0\x008BIM"),
        (0xED, b"Photoshop 3.0\x008BIM\4\4\xff"), (0xE1, b"Exif\0\0"), (0xE1, b"Exif\0\0II*\0"),
        (0xE2, b"MPF\0"), (0xE2, b"MPF\0II*\0\xff\xff\xff\xff"), (0xE2, b"ICC_PROFILE\0"),
        (0xE0, b"JFIF\0"), (0xEE, b"Adobe"), (0xE1, b"http://ns.adobe.com/xap/1.0/\0"),
    ],
)  # fmt: skip
def test_bad_metadata_never_fail_a_jpeg(marker: int, body: bytes) -> None:
    photo = read(jpeg_with(marker, body))
    np.testing.assert_array_equal(photo.pixels, read(jpeg_with(0xEC, b"")).pixels)
    read(written(photo, photo.pixels))


def test_jpeg_of_12_bits_is_not_damaged() -> None:
    data = bytearray(saved(Image.fromarray(smooth()), "JPEG").getvalue())
    data[data.index(b"\xff\xc0") + 4] = 12
    assert "12-bit JPEG is not supported; convert it" in refusal(bytes(data))


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("photometric", ["minisblack", "rgb"])
def test_tiff_of_few_bits(bits: int, photometric: str) -> None:
    top = 2**bits - 1
    pixels = np.random.default_rng(0).integers(0, top + 1, (8, 16, 3), np.uint8)
    samples = pixels if photometric == "rgb" else pixels[..., 0]
    packed = pack_bits(samples.reshape(8, -1), bits).tobytes()
    file = io.BytesIO()
    channels = 3 if photometric == "rgb" else 1
    write_tiff(file, 16, 8, packed, [bits] * channels, 2 if channels == 3 else 1)
    expected = samples if channels == 3 else samples[..., None].repeat(3, 2)
    np.testing.assert_array_equal(read(file.getvalue()).pixels, expected * (255 // top))


def write_tiff(
    file: io.BytesIO, width: int, height: int, data: bytes, bits: list[int], photometric: int,
    *more: tuple[int, int, int, int],
) -> None:  # fmt: skip
    """A TIFF file of one strip."""
    place = 8 + len(data) + len(data) % 2
    file.write(b"II*\0" + struct.pack("<I", place + 2 * len(bits)) + data + b"\0" * (len(data) % 2))
    file.write(struct.pack(f"<{len(bits)}H", *bits))
    depth = (258, 3, len(bits), place) if len(bits) > 2 else (258, 3, 1, bits[0])
    fields = [
        (256, 4, 1, width), (257, 4, 1, height), depth, (259, 3, 1, 1), (262, 3, 1, photometric),
        (273, 4, 1, 8), (277, 3, 1, len(bits)), (278, 4, 1, height), (279, 4, 1, len(data)), *more,
    ]  # fmt: skip
    file.write(struct.pack("<H", len(fields)))
    for entry in sorted(fields):
        file.write(struct.pack("<HHII", *entry))
    file.write(bytes(4))


def test_tiff_with_a_palette_of_two_colours() -> None:
    bits = np.random.default_rng(0).integers(0, 2, (8, 16)).astype(bool)
    file = io.BytesIO()
    colours = [(320, 3, 6, [200 * 257, 0, 0, 0, 0, 100 * 257], True)]  # all reds, greens, blues
    tifffile.imwrite(file, bits, extratags=colours)
    set_tiff_field(file, "PhotometricInterpretation", 3)
    expected = np.where(bits[..., None], [0, 0, 100], [200, 0, 0])
    np.testing.assert_array_equal(read(file.getvalue()).pixels, expected)


def set_tiff_field(file: io.BytesIO, name: str, value: int) -> None:
    """Overwrites the first value of a field of the first page."""
    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        tag = tiff.pages.first.tags[name]
        file.seek(tag.valueoffset)
        file.write(struct.pack("<I" if tag.dtype == 4 else "<H", value))


@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_a_tiff_of_which_strips_or_tiles_are_missing(tile: tuple[int, int] | None) -> None:
    file = io.BytesIO()
    rows = None if tile else 16
    tifffile.imwrite(file, noise(64, 64), photometric="rgb", tile=tile, rowsperstrip=rows)
    set_tiff_field(file, "TileByteCounts" if tile else "StripByteCounts", 0)
    assert "damaged (a part of its pixels is missing)" in refusal(file.getvalue())


def test_intact_files_of_other_kinds_are_not_damaged() -> None:
    lab, signed, volume = io.BytesIO(), io.BytesIO(), io.BytesIO()
    tifffile.imwrite(volume, np.zeros((16, 16, 16), np.uint8), volumetric=True, tile=(16, 16, 16))
    tifffile.imwrite(lab, noise(), photometric="cielab")
    tifffile.imwrite(signed, noise().astype(np.int16), photometric="rgb")
    jpeg_xr = io.BytesIO()
    tifffile.imwrite(jpeg_xr, noise(), photometric="rgb", compression="jpegxr")
    fields = struct.pack("<IiiHHIIiiII", 124, 6, 4, 1, 16, 3, 48, 0, 0, 0, 0)
    masks = struct.pack("<IIII", 0xC000, 0x3F00, 0x00FF, 0) + b"BGRs" + bytes(64)
    header = struct.pack("<2sIHHI", b"BM", 14 + 124 + 48, 0, 0, 14 + 124)
    for data, text in (
        (lab.getvalue(), "colours of kind CIELAB are not supported; convert it to RGB"),
        (jpeg_xr.getvalue(), "JPEG XR is not supported; save it with another compression"),
        (volume.getvalue(), "volumes are not supported; save a slice of it"),
        (signed.getvalue(), "signed 16-bit pixels are not supported; convert it to 16 bits"),
        (
            header + fields + masks + bytes(48),
            "this kind of BMP is not supported; convert it to PNG",
        ),
    ):
        assert refusal(data).endswith(text)


def test_planes_of_16_bits_with_lzw() -> None:
    samples = noise(30, 40, 65535)
    file = io.BytesIO()
    planes = np.moveaxis(samples, 2, 0)
    tifffile.imwrite(
        file, planes, photometric="rgb", planarconfig="separate", compression="lzw", predictor=True
    )
    np.testing.assert_array_equal(read(file.getvalue()).pixels, samples)


def test_tiff_in_ycbcr(capfd: pytest.CaptureFixture[str]) -> None:
    image = Image.fromarray(smooth())
    plain = np.asarray(image.convert("YCbCr"))
    file = io.BytesIO()
    # No chroma subsampling: 1, 1.
    write_tiff(file, 80, 60, plain.tobytes(), [8] * 3, 6, (530, 3, 2, 0x00010001))
    assert np.abs(read(file.getvalue()).pixels.astype(int) - smooth()).max() <= 3
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiff_in_ycbcr_is_turned_as_others(orientation: int) -> None:
    found = []
    for mode, photometric in (("YCbCr", 6), ("RGB", 2)):
        file, image = io.BytesIO(), Image.fromarray(smooth()).convert(mode)
        turned = (274, 3, 1, orientation)
        more = [turned, (530, 3, 2, 0x00010001)] if mode == "YCbCr" else [turned]
        write_tiff(file, 80, 60, image.tobytes(), [8] * 3, photometric, *more)
        found.append(read(file.getvalue()).pixels.astype(int))
    assert np.abs(found[0] - found[1]).max() <= 3


def test_bmp_with_bit_fields_and_profile() -> None:
    from icc_profiles import ADOBE_RGB, rgb_profile

    profile = rgb_profile(ADOBE_RGB, 2.2)
    rng = np.random.default_rng(0)
    values = rng.integers(0, 1 << 16, (4, 6), np.uint16)
    header = struct.pack("<IiiHHIIiiII", 124, 6, 4, 1, 16, 3, values.nbytes, 0, 0, 0, 0)
    header += struct.pack("<IIII", 0xF800, 0x07E0, 0x001F, 0) + b"DEBM" + bytes(48)
    header += struct.pack("<IIII", 4, 124 + values.nbytes, len(profile), 0)
    offset = 14 + len(header)
    data = struct.pack("<2sIHHI", b"BM", offset + values.nbytes + len(profile), 0, 0, offset)
    photo = read(data + header + values[::-1].tobytes() + profile)
    assert photo.picture.icc == profile
    red = (values >> 11).astype(int)
    assert np.abs(photo.picture.samples[..., 0] - red * 255 / 31).max() <= 1


# The transparent colour of PNG


@settings(max_examples=40, deadline=None)
@given(
    depth=st.sampled_from([1, 2, 4, 8, 16]),
    colour=st.sampled_from([0, 2]),
    seed=st.integers(0, 999),
)
def test_the_transparent_colour(depth: int, colour: int, seed: int) -> None:
    if colour == 2 and depth < 8:
        return
    channels, rng = (1, 3)[colour == 2], np.random.default_rng(seed)
    values = rng.integers(0, min(4, 2**depth), (8, 8, channels), np.uint16)
    key = values[0, 0]
    if depth == 16:
        rows = values.astype(">u2").reshape(8, -1)
    else:
        flat = values.astype(np.uint8).reshape(8, -1)
        rows = pack_bits(flat, depth)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    photo = read(png((8, 8), depth, colour, raw, chunk(b"tRNS", key.astype(">u2").tobytes())))
    clear = (values == key).all(axis=2)
    again = read(written(photo, photo.pixels))
    for found in (photo, again):
        assert found.picture.alpha is not None
        np.testing.assert_array_equal(found.picture.alpha == 0, clear)
        scale = (2 ** (16 if depth == 16 else 8) - 1) // (2**depth - 1)
        np.testing.assert_array_equal(found.picture.samples, values * scale)


@pytest.mark.parametrize(
    ("colour", "more", "is_damaged"),
    [
        (0, [chunk(b"tRNS", b"\1\5")], False), (0, [chunk(b"PLTE", bytes(9))], False),
        (0, [chunk(b"tRNS", bytes(6))], True), (0, [chunk(b"tRNS", bytes(2))] * 2, False),
        (0, [chunk(b"tRNS", bytes(2))[:-1] + b"?"], True),
        (3, [chunk(b"PLTE", bytes(9)), chunk(b"tRNS", bytes(3))], False),
        (3, [chunk(b"PLTE", bytes(9)), chunk(b"tRNS", bytes(4))], True),
        (3, [chunk(b"tRNS", bytes(3)), chunk(b"PLTE", bytes(9))], True),
        (6, [chunk(b"tRNS", bytes(6))], True),
    ],
)  # fmt: skip
def test_a_damaged_transparent_colour_is_said_by_us(
    colour: int, more: list[bytes], is_damaged: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    photo = read(png((8, 1), 8, colour, bytes(33 if colour == 6 else 9), *more))
    assert photo.notes == (("its transparent colour is damaged: left out",) if is_damaged else ())
    assert capfd.readouterr().err == ""


def test_two_transparent_colours() -> None:
    more = [chunk(b"tRNS", bytes([0, grey])) for grey in (0, 7)]
    photo = read(png((8, 1), 8, 0, bytes(9), *more))
    assert photo.notes == ("its transparent colour is given twice: one is left out",)


ADAM7 = "1646264677777777565656567777777736463646777777775656565677777777"
"""The pass of each pixel of 8 by 8, row by row."""


@pytest.mark.parametrize(("depth", "colour"), [(1, 0), (4, 0), (16, 0), (8, 2), (16, 6)])
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (13, 11)])
def test_interlaced_png(
    depth: int, colour: int, size: tuple[int, int], capfd: pytest.CaptureFixture[str]
) -> None:
    width, height = size
    channels = {0: 1, 2: 3, 6: 4}[colour]
    rng = np.random.default_rng(depth)
    values = rng.integers(0, 2**depth, (height, width, channels), np.uint16)
    tiled = np.tile(np.array(list(map(int, ADAM7))).reshape(8, 8), (2, 2))
    passes = tiled[:height, :width]
    raw = b""
    for number in range(1, 8):
        for row, own in zip(values, passes == number, strict=True):
            few = row[own].reshape(1, -1)
            if few.size:
                packed = (
                    pack_bits(few.astype(np.uint8), depth)
                    if depth < 8
                    else few.astype(f">u{depth // 8}")
                )
                raw += b"\0" + packed.tobytes()
    plain = png(size, depth, colour, raw)
    header = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 1)
    data = plain.replace(plain[8:33], chunk(b"IHDR", header))
    scale = (2 ** (16 if depth == 16 else 8) - 1) // (2**depth - 1)
    np.testing.assert_array_equal(read(data).picture.channels, values * scale)
    cut = data.replace(plain[33:-12], chunk(b"IDAT", zlib.compress(raw[:-1])))
    assert "truncated" in refusal(cut)
    kept = read(cut, KEEP).picture.channels
    assert np.mean(kept == values * scale) >= 1 - 1 / (width * height) - (depth < 8)
    assert capfd.readouterr() == ("", "")  # libpng has nothing to say


# Colours by numbers


@pytest.mark.parametrize("cicp", [(12, 13), (9, 1), (1, 8), (1, 5)])
@pytest.mark.parametrize("source", ["PNG", "AVIF"])
@pytest.mark.parametrize("target", ["PNG", "JPEG", "TIFF", "AVIF"])
def test_colours_by_cicp_stay(cicp: tuple[int, int], source: str, target: str) -> None:
    own = 60 + smooth() // 2
    if source == "PNG":
        rows = b"".join(b"\0" + row.tobytes() for row in own)
        data = png((80, 60), 8, 2, rows, chunk(b"cICP", bytes([*cicp, 0, 1])))
    else:
        data = encode_avif(
            own, level=95, primaries=cicp[0], transfer=cicp[1], matrix=6, pixelformat="444"
        )
    photo = read(data)
    assert np.abs(photo.pixels.astype(int) - own).max() > 8  # they are not those of sRGB
    file = written(photo, photo.pixels, format=target)
    again = read(file)
    assert np.abs(again.pixels.astype(int) - photo.pixels).mean() < 3
    if target in ("JPEG", "TIFF", "AVIF"):
        with Image.open(file) as image:
            assert image.info["icc_profile"]


@pytest.mark.parametrize("transfer", [16, 18])
@pytest.mark.parametrize("bits", [10, 12])
def test_high_dynamic_range_is_kept_or_refused(transfer: int, bits: int) -> None:
    own = (np.linspace(0, 1, 60 * 80 * 3).reshape(60, 80, 3) * (2**bits - 1)).astype(np.uint16)
    data = encode_avif(
        own, level=100, bitspersample=bits, primaries=9, transfer=transfer, matrix=9,
        pixelformat="444",
    )  # fmt: skip
    photo = read(data)
    assert photo.picture.cicp == (9, transfer)
    assert photo.pixels.dtype == np.uint16
    assert np.abs((photo.pixels >> (16 - bits)).astype(int) - own).mean() < 4
    file = written(photo, photo.pixels, format="PNG")
    assert b"cICP" + bytes([9, transfer, 0, 1]) in file.getvalue()
    again = read(file)
    assert again.picture.cicp == (9, transfer)
    np.testing.assert_array_equal(again.pixels, photo.pixels)
    heic = read(written(again, again.pixels, format="HEIF"))
    assert heic.picture.cicp == (9, transfer)
    for target in ("JPEG", "WEBP", "TIFF", "AVIF", "BMP"):
        with pytest.raises(DeblurError, match=r"high dynamic range.*; write \.png or \.heic"):
            written(photo, photo.pixels, format=target)


def test_heic_of_12_bits_stays_so() -> None:
    import pillow_heif

    own = (np.linspace(0, 1, 64 * 64 * 3).reshape(64, 64, 3) * 65535).astype(np.uint16)
    file = io.BytesIO()
    pillow_heif.encode(
        "RGB;16", (64, 64), own.tobytes(), file, quality=-1, chroma=444, bit_depth=12
    )
    photo = read(file.getvalue())
    assert photo.picture.encoding.bits == 12
    assert read(written(photo, photo.pixels)).picture.encoding.bits == 12


def test_bits_that_are_rounded_are_told(caplog: pytest.LogCaptureFixture) -> None:
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in noise(top=65535))
    photo = read(png((80, 60), 16, 2, rows))
    heic = read(written(photo, photo.pixels, format="HEIF"))
    assert "HEIC is written with 10 bits a channel: the photo's 16 were rounded" in caplog.text
    caplog.clear()
    written(heic, heic.pixels)
    assert caplog.text == ""
    written(heic, heic.pixels, format="AVIF")
    assert "AVIF is written with 8 bits a channel" in caplog.text


@pytest.mark.parametrize("grey", [False, True])
def test_linear_png_to_jpeg(grey: bool) -> None:
    own = 60 + smooth()[..., :1] // 2 if grey else 60 + smooth() // 2
    rows = b"".join(b"\0" + row.tobytes() for row in own)
    photo = read(png((80, 60), 8, 0 if grey else 2, rows, chunk(b"gAMA", struct.pack(">I", 10**5))))
    assert photo.pixels.mean() > own.mean() + 20
    again = read(written(photo, photo.pixels, format="JPEG"))
    assert np.abs(again.pixels.astype(int) - photo.pixels).mean() < 3
    np.testing.assert_array_equal(read(written(photo, photo.pixels)).pixels, photo.pixels)


# Pictures beside the main one


GAIN_XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-'
    b'syntax-ns#"><rdf:Description hdrgm:Version="1.0" GCamera:MotionPhoto="1" dc:title="mine">'
    b'<Container:Directory><rdf:Seq><rdf:li><Container:Item Item:Mime="image/jpeg"/></rdf:li>'
    b"</rdf:Seq></Container:Directory></rdf:Description></rdf:RDF></x:xmpmeta>"
)


def test_gain_maps_and_motion_are_told_and_no_longer_claimed() -> None:
    main = saved(Image.fromarray(smooth()), "JPEG", xmp=GAIN_XMP).getvalue()
    second = saved(Image.fromarray(smooth(20, 30)), "JPEG").getvalue()
    photo = read(main + second + b"\0\0\0\x18ftypmp42" + bytes(99))
    assert photo.notes == ("also holds a gain map, a video: only the main picture is kept",)
    for format_ in ("JPEG", "PNG", "WEBP"):
        result = written(photo, photo.pixels, format=format_).getvalue()
        assert b'dc:title="mine"' in result
        for gone in (b"hdrgm", b"MotionPhoto", b"Directory", b"ftyp"):
            assert gone not in result


def test_further_pictures_in_a_heic_file_are_told() -> None:
    main, other = Image.fromarray(smooth()), Image.fromarray(smooth(40, 50))
    photo = read(saved(main, "HEIF", save_all=True, append_images=[other]))
    assert photo.pixels.shape == (60, 80, 3)
    assert photo.notes == ("also holds further pictures: only the main picture is kept",)


def test_a_gain_map_of_avif_is_told() -> None:
    exif = Image.Exif()
    exif[0x010F] = "maker"
    data = saved(Image.fromarray(smooth()), "AVIF", exif=exif).getvalue()
    data = data.replace(b"Exif", b"tmap", 1)  # an item that says how to apply a gain map
    assert read(data).notes == ("also holds a gain map: only the main picture is kept",)


# AVIF


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turns_of_avif(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "maker"
    image = Image.fromarray(smooth())
    upright = ImageOps.exif_transpose(Image.open(saved(image, "PNG", exif=exif)))
    photo = read(saved(image, "AVIF", exif=exif, quality=95))
    assert np.abs(photo.pixels.astype(int) - np.asarray(upright)).mean() < 4
    assert photo.picture.metadata.exif is not None
    assert b"maker" in photo.picture.metadata.exif


def test_transparency_without_a_size_in_avif() -> None:
    """As older encoders wrote it: the item of the alpha channel lacks its size."""
    image = Image.fromarray(smooth())
    image.putalpha(image.getchannel("R"))
    data = bytearray(saved(image, "AVIF", quality=95).getvalue())
    place = data.index(b"ipma") + 8
    assert data[place : place + 4] == b"\0\0\0\2"
    second = place + 4 + 3 + data[place + 6] + 3
    assert data[second] & 127 == 1  # the first property is the size, shared by both
    data[second] = data[second + 1]
    photo = read(bytes(data))
    assert np.abs(photo.picture.alpha.astype(int) - smooth()[..., 0]).mean() < 3


def test_the_letters_moov_in_avif_cost_no_bits() -> None:
    data = encode_avif(noise(top=1023), level=100, bitspersample=10, pixelformat="444")
    assert read(data).pixels.dtype == np.uint16
    photo = read(data + struct.pack(">I4s", 12, b"free") + b"moov")
    np.testing.assert_array_equal(photo.pixels, read(data).pixels)
    assert photo.notes == ()


def test_a_crop_of_avif_is_refused() -> None:
    data = saved(Image.fromarray(smooth()), "AVIF", quality=95).getvalue()
    clap = struct.pack(">IIIIiIiI", 40, 1, 20, 1, -10, 1, 5, 1)  # left 10, top 25
    text = refusal(with_property(data, b"clap", clap))
    assert "a crop in AVIF is not supported; convert it to PNG" in text


def with_property(data: bytes, kind: bytes, body: bytes) -> bytes:
    """An AVIF file whose main picture has one more property."""

    def box(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content) + 8) + name + content

    def split(content: bytes) -> dict[bytes, bytes]:
        found, at = {}, 0
        while at < len(content):
            (size,) = struct.unpack_from(">I", content, at)
            found[content[at + 4 : at + 8]] = content[at + 8 : at + size]
            at += size
        return found

    top = split(data)
    meta = split(top[b"meta"][4:])
    properties = split(meta[b"iprp"])
    count = len(iter_boxes(properties[b"ipco"]))
    ipma = bytearray(properties[b"ipma"])
    ipma[10] += 1  # associations of the first item
    ipma.insert(11, 0x80 | (count + 1))
    iprp = box(b"ipco", properties[b"ipco"] + box(kind, body)) + box(b"ipma", bytes(ipma))
    grown = len(iprp) - len(meta[b"iprp"])
    iloc = bytearray(meta[b"iloc"])
    assert iloc[0] == 0  # version
    assert iloc[4:6] == b"\x44\x00"
    for item in range(int.from_bytes(iloc[6:8], "big")):
        at = 8 + 14 * item + 6
        struct.pack_into(">I", iloc, at, struct.unpack_from(">I", iloc, at)[0] + grown)
    meta |= {b"iprp": iprp, b"iloc": bytes(iloc)}
    top[b"meta"] = top[b"meta"][:4] + b"".join(box(*pair) for pair in meta.items())
    return b"".join(box(*pair) for pair in top.items())


def iter_boxes(content: bytes) -> list[bytes]:
    names, at = [], 0
    while at < len(content):
        names.append(content[at + 4 : at + 8])
        at += struct.unpack_from(">I", content, at)[0]
    return names


# TIFF's other channels and colours


def test_the_white_point_of_tiff_counts() -> None:
    own = 60 + smooth() // 2
    file = io.BytesIO()
    p3 = [0.68, 0.32, 0.265, 0.69, 0.15, 0.06]
    ratios = [n for x in p3 for n in (round(x * 10000), 10000)]
    white = [3127, 10000, 3290, 10000]
    tags = [(318, 5, 2, white, True), (319, 5, 6, ratios, True)]
    tifffile.imwrite(file, own, photometric="rgb", extratags=tags)
    photo = read(file.getvalue())
    assert np.abs(photo.pixels.astype(int) - own).max() > 8
    again = read(written(photo, photo.pixels, format="JPEG"))
    assert np.abs(again.pixels.astype(int) - photo.pixels).mean() < 3


def test_what_tiff_holds_beside_the_picture_is_told() -> None:
    file = io.BytesIO()
    layers = [(37724, 7, 4, b"8BIM", True)]
    samples = noise(20, 30)
    five = np.concatenate([samples, samples[..., :2]], axis=2)
    with tifffile.TiffWriter(file) as tiff:
        for _ in range(2):
            tiff.write(
                five, photometric="rgb", extrasamples=[0, 0], extratags=layers, metadata=None
            )
    photo = read(file.getvalue())
    np.testing.assert_array_equal(photo.pixels, samples)
    assert photo.notes == (
        "2 pages: only the first is restored",
        "layers: only the picture that they make is restored",
        "further channels are left out",
    )
    assert read(written(photo, photo.pixels)).notes == ()


# Any file at all


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=300), brand=st.sampled_from([b"avif", b"heic"]))
def test_boxes_of_anything(data: bytes, brand: bytes) -> None:
    refusal(b"\0\0\0\x18ftyp" + brand + bytes(8) + brand + data)


def parsed_files() -> list[bytes]:
    """Small files full of what our parsers read: EXIF, chunks, tags, an orientation."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    exif.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    exif.get_ifd(0x8825)[2] = (1.0, 2.0, 3.0)
    image = Image.fromarray(smooth(8, 8))
    return [
        saved(image, name, exif=exif, dpi=(72, 72)).getvalue() for name in ("JPEG", "PNG", "TIFF")
    ]


@given(
    whole=st.sampled_from(parsed_files()),
    edits=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=6),
    cut=st.floats(0.5, 1),
)
def test_changed_files_are_read_or_refused(
    whole: bytes, edits: list[tuple[float, int]], cut: float
) -> None:
    """As often as the profile says: seconds by default, minutes a night (nightly.yml)."""
    data = bytearray(whole)
    for place, value in edits:
        data[int(place * len(data))] = value
    options = ReadOptions(max_pixels=10_000, keep_damaged=True)
    try:
        photo = read(bytes(data[: int(cut * len(data))]), options)
        written(photo, photo.pixels)
    except DeblurError as error:
        assert str(error).isprintable()


CORPUS = os.environ.get("DEBLUR_CORPUS")
_ENDINGS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".heic", ".avif")


def decoded_by_others(path: Path) -> list[np.ndarray]:
    """What FFmpeg and Pillow see in a file, ``(H, W, 3)`` from 0 to 255, as far as they can.

    Neither is always right: FFmpeg turns no pictures and knows few kinds of TIFF, Pillow has
    the same decoder for JPEG, WebP and AVIF as we have.
    """
    import av

    found = []
    with contextlib.suppress(av.error.FFmpegError, StopIteration, ValueError):
        with av.open(os.fspath(path)) as container:
            frame = next(container.decode(video=0))
        if max(component.bits for component in frame.format.components) > 8:
            found.append(frame.reformat(format="rgb48le").to_ndarray() / 257)
        else:  # it gets full-range 4:2:0 wrong on its way to 16 bits
            found.append(frame.reformat(format="rgb24").to_ndarray())
    with contextlib.suppress(*DECODER_ERRORS, Warning), Image.open(path) as image:
        if not image.mode.startswith(("I", "F", "LAB")):
            upright = ImageOps.exif_transpose(image)
            found.append(np.asarray(upright.convert("RGBA").convert("RGB")))
    return found


@pytest.mark.skipif(not CORPUS, reason="DEBLUR_CORPUS names no folder of foreign files")
@pytest.mark.filterwarnings("ignore")  # Pillow's
def test_a_corpus_is_exact_or_noted_or_refused() -> None:
    """What we see in each file, FFmpeg or Pillow sees, too, and it comes back without loss."""
    wrong = []
    for path in sorted(Path(CORPUS or "").rglob("*")):
        if path.suffix.lower() not in _ENDINGS:
            continue
        try:
            photo = photos.read(path)
        except DeblurError:
            continue
        picture = photo.picture
        own = photo.format if photo.format in ("PNG", "TIFF") else "TIFF"
        if picture.cicp is not None:
            own = "PNG"
        again = read(written(photo, photo.pixels, format=own)).picture
        if not np.array_equal(again.channels, picture.channels):
            wrong.append(f"{path}: does not come back")
        if picture.notes or picture.samples.shape[2] == 4:
            continue
        deep = picture.samples.dtype == np.uint16
        ours = np.broadcast_to(picture.samples / (257 if deep else 1), photo.pixels.shape)
        visible = np.ones(ours.shape[:2], bool)
        if picture.alpha is not None:  # where it is multiplied into the colours they round
            visible = picture.alpha == np.iinfo(picture.alpha.dtype).max
        others = decoded_by_others(path)
        off = [
            np.abs(theirs - ours)[visible]
            for theirs in others
            if theirs.shape == ours.shape and visible.any()
        ]
        lossless = photo.format in ("PNG", "TIFF", "BMP", "GIF")
        if off and not any(o.max() <= deep if lossless else o.mean() < 3 for o in off):
            wrong.append(f"{path}: differs by {[o.mean().round(1) for o in off]} in the mean")
        elif others and not off and visible.any():
            wrong.append(f"{path}: {ours.shape}, others see {[t.shape for t in others]}")
    assert not wrong, "\n".join(wrong)
