"""EXIF, XMP, IPTC, comments and resolution come along; orientation is applied and reset."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import photo_files
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from deblurcli.io import photos
from deblurcli.io.photos import exif as exif_module
from deblurcli.io.photos.exif import read_tags
from deblurcli.io.photos.metadata import iptc_of, photoshop_from_iptc

WITH_EXIF = ["JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF"]
WITH_XMP = WITH_EXIF

XMP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
    'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6" tiff:Artist="Zoë"/>'
    "</rdf:RDF></x:xmpmeta><?xpacket end='w'?>"
).encode()
IPTC = b"\x1c\x02\x19\x00\x05beach\x1c\x02\x50\x00\x04me!!"


def some_exif(orientation: int = 1, thumbnail: bool = False, order: str = "<") -> bytes:
    """EXIF data as a camera writes them, maker note and GPS included."""
    o = order

    def text(value: bytes) -> exif_module.Field:
        return exif_module.Field(2, value + b"\0")

    def short(value: int) -> exif_module.Field:
        return exif_module.Field(3, struct.pack(o + "H", value))

    def ratios(*values: int) -> exif_module.Field:
        return exif_module.Field(5, struct.pack(f"{o}{len(values)}I", *values))

    gps = {1: text(b"N"), 2: ratios(47, 1, 22, 1, 123, 10), 29: text(b"2024:05:06")}
    below = {
        0x9003: text(b"2024:05:06 07:08:09"),
        0x829A: ratios(1, 25),
        0x927C: exif_module.Field(7, b"MAKER\0" + bytes(range(200))),
        0xA002: exif_module.Field(4, struct.pack(o + "I", 40)),
        0xA003: exif_module.Field(4, struct.pack(o + "I", 30)),
        0x9286: exif_module.Field(7, b"UNICODE\0" + "Grüße".encode("utf-16-le")),
    }
    fields = {
        0x010F: text(b"Maker & Co"),
        0x0110: text(b"Model 1"),
        0x0112: short(orientation),
        0x013B: text("Zoë 写真".encode()),
        0x011A: ratios(300, 1),
        0x011B: ratios(300, 1),
        0x0128: short(2),
        0x8298: text(b"(c)"),
        0x8769: exif_module.Field(4, b"", below),
        0x8825: exif_module.Field(4, b"", gps),
    }
    data = exif_module.exif_bytes(exif_module.Tags(o, fields))  # type: ignore[arg-type]
    if not thumbnail:
        return data
    file = io.BytesIO()
    Image.new("RGB", (160, 120), "red").save(file, "JPEG", quality=95)
    small = file.getvalue().ljust(6000, b"\0")
    start = len(data)
    pointer = struct.unpack_from(o + "I", data, 4)[0]
    pointer += 2 + 12 * len(fields)
    data = bytearray(data)
    struct.pack_into(o + "I", data, pointer, start)
    second = struct.pack(o + "H", 3)
    second += struct.pack(o + "HHII", 0x0103, 4, 1, 6)
    second += struct.pack(o + "HHII", 0x0201, 4, 1, start + 2 + 36 + 4)
    second += struct.pack(o + "HHII", 0x0202, 4, 1, len(small)) + bytes(4)
    return bytes(data) + second + small


def smooth(height: int = 30, width: int = 40) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([6 * x, 8 * y, 255 - 6 * x], -1).astype(np.uint8)


def saved(format_: str, **options: object) -> io.BytesIO:
    if format_ == "JPEG" and "exif" in options:
        options["exif"] = b"Exif\0\0" + options["exif"]
    return photo_files.saved(Image.fromarray(smooth()), format_, **options)


def written(photo: photos.Photo, **options: object) -> io.BytesIO:
    return photo_files.written(photo, options.pop("restored", photo.pixels), **options)


def tree(data: bytes) -> dict:
    """All fields of EXIF data as plain values, with the directories below."""

    def plain(fields: exif_module.Directory) -> dict:
        return {
            tag: plain(field.directory) if field.directory is not None else (field.type, field.data)
            for tag, field in fields.items()
        }

    return plain(read_tags(io.BytesIO(data)).fields)


def exif_in(file: io.BytesIO) -> dict:
    metadata = photos.read(file).picture.metadata
    assert metadata.exif is not None
    return tree(metadata.exif)


PLACES = {0x011A, 0x011B, 0x0128, 0x0112}  # resolution and orientation: formats have their own


def without_places(fields: dict) -> dict:
    return {tag: value for tag, value in fields.items() if tag not in PLACES}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("target", WITH_EXIF)
@pytest.mark.parametrize("source", ["JPEG", "PNG", "WEBP"])
def test_every_exif_field_comes_along(source: str, target: str, order: str) -> None:
    exif = some_exif(order=order)
    photo = photos.read(saved(source, exif=exif))
    again = exif_in(written(photo, format=target))
    assert without_places(again) == without_places(tree(exif))


@pytest.mark.parametrize("source", ["JPEG", "PNG", "WEBP"])
def test_exif_stays_byte_for_byte(source: str) -> None:
    exif = some_exif()
    again = photos.read(written(photos.read(saved(source, exif=exif))))
    assert again.picture.metadata.exif == exif


def test_exif_through_tiff_and_back() -> None:
    exif = some_exif()
    tiff = written(photos.read(saved("JPEG", exif=exif)), format="TIFF")
    with Image.open(tiff) as image:
        assert image.tag_v2[271] == "Maker & Co"
        assert image.getexif().get_ifd(ExifTags.IFD.GPSInfo)[2] == (47, 22, 12.3)
    tiff.seek(0)
    again = exif_in(written(photos.read(tiff), format="JPEG"))
    assert without_places(again) == without_places(tree(exif))
    tiff.seek(0)
    twice = exif_in(written(photos.read(tiff)))
    assert without_places(twice) == without_places(tree(exif))


@pytest.mark.parametrize("format_", WITH_EXIF)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once_and_reset(format_: str, orientation: int) -> None:
    upright = smooth()
    turns = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.swapaxes(0, 1), 6: np.rot90(upright, 1), 7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }  # fmt: skip
    stored = np.ascontiguousarray(turns[orientation])
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "maker"
    options = {"quality": 95} if format_ != "TIFF" else {}
    if format_ == "HEIF":
        saved("HEIF")  # makes Pillow know it
        exif = exif.tobytes()
    Image.fromarray(stored).save(file, format_, exif=exif, **options)
    file.seek(0)
    photo = photos.read(file)
    assert photo.pixels.shape == upright.shape
    assert np.abs(photo.pixels.astype(int) - upright).mean() < 6
    again = photos.read(written(photo))
    assert np.abs(again.pixels.astype(int) - upright).mean() < 8
    with Image.open(written(photo)) as image:
        assert image.getexif().get(0x0112, 1) == 1
        assert image.getexif()[0x010F] == "maker"


def test_deep_tiff_is_turned_too() -> None:
    import tifffile

    stored = (smooth().astype(np.uint16) * 256)[:, ::-1]
    file = io.BytesIO()
    tifffile.imwrite(file, stored, photometric="rgb", extratags=[(274, 3, 1, 2, False)])
    file.seek(0)
    photo = photos.read(file)
    np.testing.assert_array_equal(photo.pixels, stored[:, ::-1])
    np.testing.assert_array_equal(photos.read(written(photo)).pixels, photo.pixels)


def test_transparency_is_turned_too() -> None:
    rgba = np.dstack([smooth(), smooth()[..., 0]])
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(rgba).save(file, "PNG", exif=exif)
    file.seek(0)
    with Image.open(written(photos.read(file))) as image:
        np.testing.assert_array_equal(np.asarray(image), np.rot90(rgba, -1))


def test_sizes_in_exif_are_turned() -> None:
    fields = exif_in(written(photos.read(saved("JPEG", exif=some_exif(orientation=6)))))
    assert fields[0x0112] == (3, b"\1\0")
    assert fields[0x8769][0xA002] == (4, struct.pack("<I", 30))
    assert fields[0x8769][0xA003] == (4, struct.pack("<I", 40))


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_thumbnail_of_the_blurred_picture_is_left_out(order: str) -> None:
    file = written(photos.read(saved("JPEG", exif=some_exif(6, thumbnail=True, order=order))))
    assert without_places(exif_in(file))[0x8769][0x927C] == (7, b"MAKER\0" + bytes(range(200)))
    with Image.open(file) as image:
        assert 0x0201 not in image.getexif().get_ifd(ExifTags.IFD.IFD1)


def test_exif_without_a_place_for_a_thumbnail() -> None:
    data = b"II*\0\x08\0\0\0" + struct.pack("<HHHII", 1, 0x010F, 2, 10, 22) + b"Camera Co\0"
    assert exif_in(written(photos.read(saved("JPEG", exif=data)))) == {0x010F: (2, b"Camera Co\0")}


@pytest.mark.parametrize("source", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("target", WITH_XMP)
def test_xmp_comes_along(source: str, target: str) -> None:
    if source == "PNG":
        file = written(photos.read(saved("JPEG", xmp=XMP)), format="PNG")
    else:
        file = saved(source, xmp=XMP)
    again = photos.read(written(photos.read(file), format=target))
    # In HEIC and AVIF, libraries take what XMP says for the orientation of the pixels, which
    # is a matter of the container.
    upright = XMP.replace(b'tion="6"', b'tion="1"')
    expected = upright if target in ("HEIF", "AVIF") else XMP
    assert again.picture.metadata.xmp == expected
    assert again.pixels.shape == (30, 40, 3)


def test_orientation_in_xmp_is_reset_with_that_in_exif() -> None:
    turned = photos.read(saved("JPEG", exif=some_exif(6), xmp=XMP))
    with Image.open(written(turned)) as image:
        assert image.info["xmp"] == XMP.replace(b'Orientation="6"', b'Orientation="1"')


def jpeg_with(*segments: tuple[int, bytes]) -> io.BytesIO:
    plain = saved("JPEG").getvalue()
    added = b"".join(struct.pack(">BBH", 255, m, len(d) + 2) + d for m, d in segments)
    return io.BytesIO(plain[:2] + added + plain[2:])


def test_iptc_and_comment_and_foreign_segments() -> None:
    photoshop = photoshop_from_iptc(IPTC) + b"8BIM\x04\x0c\0\0\0\0\0\4oops"
    file = jpeg_with(
        (0xED, b"Photoshop 3.0\0" + photoshop),
        (0xFE, b"a comment"),
        (0xFE, b"another"),
        (0xE7, b"Something of the camera"),
        (0xE2, b"MPF\0II*\0 previews that are gone"),
        (0xE1, b"http://ns.adobe.com/xmp/extension/\0" + b"f" * 40 + b"more"),
    )
    photo = photos.read(file)
    result = written(photo).getvalue()
    for kept in (b"a comment", b"another", b"Something of the camera", b"xmp/extension", IPTC):
        assert result.count(kept) == 1
    for gone in (b"oops", b"MPF\0"):
        assert gone not in result
    for target in ("TIFF", "PNG"):
        middle = written(photo, format=target)
        back = photos.read(written(photos.read(middle), format="JPEG"))
        assert iptc_of(back.picture.metadata.photoshop) == IPTC
        if target == "PNG":
            assert back.picture.metadata.comment == b"another"


@pytest.mark.parametrize("source", ["JPEG", "PNG", "TIFF", "BMP"])
@pytest.mark.parametrize("target", ["JPEG", "PNG", "TIFF", "BMP"])
@pytest.mark.parametrize("strip", [False, True])
def test_resolution_comes_along(source: str, target: str, strip: bool) -> None:
    photo = photos.read(saved(source, dpi=(300, 150)))
    with Image.open(written(photo, format=target, strip=strip)) as image:
        assert image.info["dpi"] == pytest.approx((300, 150), abs=0.1)


def test_png_text_and_private_chunks_stay() -> None:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Author", "me")
    info.add_itxt("Title", "Grüße", zip=True)
    info.add(b"prVt", b"whatever")
    info.add(b"gAMA", struct.pack(">I", 100_000))
    source = saved("PNG", pnginfo=info)
    photo = photos.read(source)
    again = written(photo)
    with Image.open(again) as image:
        image.load()
        assert image.text == {"Author": "me", "Title": "Grüße"}
        assert image.info["gamma"] == pytest.approx(1.0)
    assert b"prVtwhatever" in again.getvalue()
    stripped = written(photo, strip=True)
    assert b"Author" not in stripped.getvalue()
    np.testing.assert_array_equal(photos.read(stripped).pixels, photo.pixels)


@pytest.mark.parametrize("target", WITH_EXIF)
@pytest.mark.parametrize("source", ["JPEG", "TIFF", "PNG"])
def test_strip_leaves_nothing_private(source: str, target: str) -> None:
    file = written(photos.read(saved("JPEG", exif=some_exif(6, True), xmp=XMP)), format=source)
    result = written(photos.read(file), format=target, strip=True).getvalue()
    for private in (b"Maker & Co", b"2024", "Zoë".encode(), b"MAKER", b"xpacket"):
        assert private not in result


def test_strip_keeps_the_colour_profile() -> None:
    import icc_profiles

    profile = icc_profiles.rgb_profile(icc_profiles.DISPLAY_P3, 2.2)
    photo = photos.read(saved("JPEG", icc_profile=profile, comment=b"private"))
    result = written(photo, strip=True)
    assert b"private" not in result.getvalue()
    with Image.open(result) as image:
        assert image.info["icc_profile"] == profile


@pytest.mark.parametrize("target", [*WITH_EXIF, "GIF", "BMP"])
@pytest.mark.parametrize("source", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "damaged",
    [
        b"II*\0\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0\xff\xff" + bytes(50),
        b"not EXIF at all",
        b"II*\0",
        some_exif()[:60],
        some_exif(6)[:200],
    ],
    ids=["offset", "count", "nonsense", "short", "cut early", "cut late"],
)
def test_damaged_exif_never_fails_a_photo(source: str, target: str, damaged: bytes) -> None:
    photo = photos.read(saved(source, exif=damaged))
    again = photos.read(written(photo, format=target))
    assert again.pixels.shape == photo.pixels.shape


@settings(max_examples=80, deadline=None)
@example(target="JPEG", changes=[(39, 1)])  # the orientation lies in the header
@example(target="JPEG", changes=[(36, 2)])  # it is text
@given(
    target=st.sampled_from(["JPEG", "TIFF", "AVIF", "PNG"]),
    changes=st.lists(st.tuples(st.integers(0, 500), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_any_damage_to_exif_is_survived(target: str, changes: list[tuple[int, int]]) -> None:
    data = bytearray(some_exif(thumbnail=True))
    for place, value in changes:
        data[place] = value
    photo = photos.read(saved("JPEG", exif=bytes(data)))
    photos.read(written(photo, format=target))


def test_too_much_exif_for_jpeg_is_left_out_and_told(caplog: pytest.LogCaptureFixture) -> None:
    photo = photos.read(saved("PNG", exif=some_exif() + bytes(70000)))
    assert photos.read(written(photo, format="JPEG")).picture.metadata.exif is None
    assert "EXIF data of 70 KB don't fit into JPEG" in caplog.text


@pytest.mark.parametrize(
    "name", ["Nexus_4.jpg", "Samsung_GT-I9100_Galaxy_SII.jpg", "Sony_DSC-P52.jpg"]
)
def test_real_photos_keep_every_field(shared_data: Path, name: str) -> None:
    with Image.open(shared_data / "real_blur" / name) as image:
        expected = image.getexif()
        tags = (0x8769, 0x8825, 0xA005) if 0xA005 in expected.get_ifd(0x8769) else (0x8769, 0x8825)
        nested = {tag: dict(expected.get_ifd(tag)) for tag in tags}
    photo = photos.read(shared_data / "real_blur" / name)
    with Image.open(written(photo)) as image:
        assert image.size == photo.pixels.shape[1::-1]
        found = image.getexif()
        for tag, fields in nested.items():
            turned = {0xA002, 0xA003} if expected.get(0x0112, 1) >= 5 else set()
            after = dict(found.get_ifd(tag))
            assert {t: v for t, v in after.items() if t not in turned} == {
                t: v for t, v in fields.items() if t not in turned
            }
        assert nested[0x8769]
        assert {t: v for t, v in found.items() if t != 0x0112} == {
            t: v for t, v in expected.items() if t != 0x0112
        }
        assert found.get(0x0112, 1) == 1
        assert found[271]


def test_real_heic_keeps_its_fields(shared_data: Path) -> None:
    photo = photos.read(shared_data / "formats" / "IMG_2927.HEIC")
    assert photo.picture.metadata.exif is not None
    fields = tree(photo.picture.metadata.exif)
    assert 0x927C in fields[0x8769]
    again = exif_in(written(photo, format="JPEG"))
    assert again == fields
