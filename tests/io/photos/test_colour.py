"""Photos keep their own colours: profiles, CMYK, grey, 16 bits."""

from __future__ import annotations

import io
from pathlib import Path

import icc_profiles
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from photo_files import saved, written
from PIL import Image, ImageCms

from deblurcli.errors import DeblurError
from deblurcli.io import photos
from deblurcli.io.photos.colour import Icc


def smooth_rgb(height: int = 48, width: int = 64, top: int = 255) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    planes = [x / width, y / height, (x + y) / (width + height)]
    return np.rint(np.stack(planes, -1) * top).astype(np.uint8 if top == 255 else np.uint16)


PROFILES = {
    "Display P3": icc_profiles.rgb_profile(icc_profiles.DISPLAY_P3, icc_profiles.SRGB_CURVE),
    "Adobe RGB": icc_profiles.rgb_profile(icc_profiles.ADOBE_RGB, 2.19921875),
}


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("format_", ["PNG", "TIFF", "WEBP"])
def test_untouched_wide_gamut_photo_keeps_its_samples(name: str, format_: str) -> None:
    own = smooth_rgb()
    options = {"lossless": True, "exact": True} if format_ == "WEBP" else {}
    photo = photos.read(saved(Image.fromarray(own), format_, icc_profile=PROFILES[name], **options))
    with Image.open(written(photo, photo.pixels)) as image:
        assert image.info["icc_profile"] == PROFILES[name]
        np.testing.assert_array_equal(np.asarray(image), own)


@pytest.mark.parametrize("name", PROFILES)
def test_network_sees_srgb_as_littlecms_gives_it(name: str) -> None:
    own = Image.fromarray(smooth_rgb())
    photo = photos.read(saved(own, "PNG", icc_profile=PROFILES[name]))
    expected = ImageCms.profileToProfile(
        own,
        ImageCms.ImageCmsProfile(io.BytesIO(PROFILES[name])),
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
    )
    assert np.abs(photo.pixels.astype(int) - np.asarray(expected)).max() <= 1
    assert np.abs(photo.pixels.astype(int) - np.asarray(own)).max() > 5


@pytest.mark.parametrize("name", PROFILES)
def test_change_is_carried_into_the_photos_own_space(name: str) -> None:
    inner = 100 + smooth_rgb() // 6  # well inside sRGB
    photo = photos.read(saved(Image.fromarray(inner), "PNG", icc_profile=PROFILES[name]))
    restored = np.clip(photo.pixels.astype(int) + 20, 0, 255).astype(np.uint8)
    again = photos.read(written(photo, restored))
    assert np.abs(again.pixels.astype(int) - restored).max() <= 3


def test_photo_in_srgb_by_profile_is_not_converted() -> None:
    profile = icc_profiles.rgb_profile(icc_profiles.SRGB, icc_profiles.SRGB_CURVE)
    own = smooth_rgb()
    photo = photos.read(saved(Image.fromarray(own), "PNG", icc_profile=profile))
    np.testing.assert_array_equal(photo.pixels, own)


@pytest.mark.parametrize("format_", ["GIF", "BMP"])
def test_format_without_profiles_gets_srgb(format_: str) -> None:
    own = Image.new("RGB", (8, 8), (200, 60, 60))
    photo = photos.read(saved(own, "PNG", icc_profile=PROFILES["Adobe RGB"]))
    again = photos.read(written(photo, photo.pixels, format=format_))
    np.testing.assert_array_equal(again.pixels, photo.pixels)
    assert tuple(photo.pixels[0, 0]) != (200, 60, 60)


@pytest.mark.parametrize("profile", [b"nonsense", icc_profiles.grey_profile(2.2)])
def test_unusable_profile_fails_nothing_and_is_told(profile: bytes) -> None:
    photo = photos.read(saved(Image.fromarray(smooth_rgb()), "PNG", icc_profile=profile))
    np.testing.assert_array_equal(photo.pixels, smooth_rgb())
    assert "colour profile" in " ".join(photo.notes)


@pytest.mark.parametrize("name", PROFILES)
def test_deep_colours_agree_with_those_of_8_bits(name: str) -> None:
    samples = smooth_rgb()
    ours = Icc(PROFILES[name], 3).to_srgb(samples.astype(np.uint16) * 257) / 257
    photo = photos.read(saved(Image.fromarray(samples), "PNG", icc_profile=PROFILES[name]))
    assert np.abs(ours - photo.pixels).max() < 1.5


@pytest.mark.parametrize("name", PROFILES)
def test_deep_colours_there_and_back(name: str) -> None:
    space = Icc(PROFILES[name], 3)
    inner = 30000 + smooth_rgb(top=65535) // 6  # well inside sRGB
    seen = space.to_srgb(inner)
    there = space.transfer(inner, seen + np.uint16(900))
    back = space.transfer(there, seen)
    assert np.abs(back.astype(int) - inner).max() < 8  # of 65535
    assert np.abs(space.to_srgb(there).astype(int) - seen - 900).max() < 8


def test_deep_photo_with_a_profile_changes_in_16_bits() -> None:
    own = (30000 + smooth_rgb(40, 300, 65535) // 6).astype(np.uint16)
    plain = photos.read(deep_tiff(own))
    file = written(plain, plain.pixels, format="TIFF")
    photo = photos.read(with_tiff_profile(file, PROFILES["Adobe RGB"]))
    again = photos.read(written(photo, photo.pixels + np.uint16(700)))
    np.testing.assert_allclose(again.pixels.astype(int) - photo.pixels, 700, atol=8)


def deep_tiff(samples: np.ndarray, **options: object) -> io.BytesIO:
    import tifffile

    file = io.BytesIO()
    options.setdefault("photometric", "rgb" if samples.shape[-1] in (3, 4) else "minisblack")
    tifffile.imwrite(file, samples, **options)
    file.seek(0)
    return file


def with_tiff_profile(file: io.BytesIO, profile: bytes) -> io.BytesIO:
    import tifffile

    return deep_tiff(tifffile.imread(file), iccprofile=profile)


# 16 bits


def deep_png(samples: np.ndarray) -> io.BytesIO:
    """A 16-bit PNG file by OpenCV-independent means: filter 0, one IDAT."""
    import struct
    import zlib

    height, width, channels = samples.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    raw = samples.astype(">u2").reshape(height, -1).tobytes()
    stride = width * channels * 2
    rows = b"".join(b"\0" + raw[i * stride : (i + 1) * stride] for i in range(height))

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    return io.BytesIO(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def read_deep(file: io.BytesIO) -> np.ndarray:
    """All channels of a 16-bit file, read by FFmpeg directly."""
    import av

    with av.open(file) as container:
        frame = next(container.decode(video=0))
        name = frame.format.name[:-2]
        channels = {"gray16": 1, "ya16": 2, "rgb48": 3, "rgba64": 4}[name]
        dtype = ">u2" if frame.format.name.endswith("be") else "<u2"
        plane = np.frombuffer(frame.planes[0], dtype).reshape(frame.height, -1)
        return plane[:, : frame.width * channels].reshape(frame.height, frame.width, channels)


@settings(max_examples=30, deadline=None)
@given(
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    channels=st.integers(1, 4),
    container=st.sampled_from(["PNG", "TIFF"]),
    target=st.sampled_from(["PNG", "TIFF"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_deep_photos_come_back_with_all_bits(
    width: int, height: int, channels: int, container: str, target: str, seed: int
) -> None:
    samples = np.random.default_rng(seed).integers(0, 65536, (height, width, channels), np.uint16)
    if container == "PNG":
        file = deep_png(samples)
    else:
        extra = ["unassalpha"] if channels in (2, 4) else None
        kind = "rgb" if channels >= 3 else "minisblack"
        squeezed = samples if channels > 1 else samples[..., 0]
        planar = "contig" if channels > 1 else None
        file = deep_tiff(squeezed, photometric=kind, extrasamples=extra, planarconfig=planar)
    photo = photos.read(file)
    assert photo.pixels.dtype == np.uint16
    assert photo.pixels.shape == (height, width, 3)
    result = written(photo, photo.pixels, format=target)
    np.testing.assert_array_equal(read_deep(result), samples)


def test_deep_gradient_keeps_more_than_256_levels() -> None:
    ramp = np.repeat(np.arange(0, 65536, 16, dtype=np.uint16)[None, :, None], 4, 0).repeat(3, 2)
    photo = photos.read(deep_png(ramp))
    restored = photo.pixels - photo.pixels // 50
    again = read_deep(written(photo, restored))
    assert len(np.unique(again)) > 4000


@pytest.mark.parametrize(
    "options",
    [
        {"tile": (16, 16)},
        {"planarconfig": "separate"},
        {"byteorder": ">"},
        {"compression": "zlib", "predictor": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_of_every_layout(options: dict[str, object], dtype: type) -> None:
    samples = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (37, 41, 3), dtype)
    if options.get("planarconfig") == "separate":
        photo = photos.read(deep_tiff(np.moveaxis(samples, 2, 0), photometric="rgb", **options))
    else:
        photo = photos.read(deep_tiff(samples, **options))
    np.testing.assert_array_equal(photo.pixels, samples)
    np.testing.assert_array_equal(photos.read(written(photo, samples)).pixels, samples)


@pytest.mark.parametrize(("number", "name"), [(1, None), (8, "tiff_lzw"), (8, "packbits")])
def test_compressed_tiff_stays_compressed(number: int, name: str | None) -> None:
    own = smooth_rgb(100, 300)
    photo = photos.read(saved(Image.fromarray(own), "TIFF", compression=name))
    with Image.open(written(photo, own)) as image:
        assert image.tag_v2[259] == number
        np.testing.assert_array_equal(np.asarray(image), own)


def test_big_tiff_is_refused() -> None:
    with pytest.raises(DeblurError, match="BigTIFF is not supported; convert it to TIFF"):
        photos.read(deep_tiff(smooth_rgb(10, 20), bigtiff=True))


@pytest.mark.parametrize("mode", ["RGB;16", "RGBA;16", "L;16"])
def test_ten_bit_heic_keeps_its_bits(mode: str) -> None:
    import pillow_heif

    channels = len(mode.removesuffix(";16"))
    ramp = np.tile((np.arange(1024, dtype=np.uint16) * 64)[None, :, None], (64, 1, channels))
    file = io.BytesIO()
    pillow_heif.encode(mode, (1024, 64), ramp.tobytes(), file, quality=-1, chroma=444)
    file.seek(0)
    photo = photos.read(file)
    assert photo.pixels.dtype == np.uint16
    assert np.abs(photo.pixels[..., 1].astype(int) - ramp[..., 0]).mean() < 100
    again = photos.read(written(photo, photo.pixels))
    assert len(np.unique(again.pixels[..., 1])) > 500
    assert np.abs(again.pixels.astype(int) - photo.pixels).mean() < 300
    alpha = again.picture.alpha
    assert (alpha is not None) == (channels == 4)


# Grey


@settings(max_examples=25, deadline=None)
@given(
    mode=st.sampled_from(["L", "LA", "1", "I;16"]),
    format_=st.sampled_from(["PNG", "TIFF", "JPEG"]),
    profile=st.sampled_from([None, icc_profiles.grey_profile(1.8)]),
)
def test_grey_stays_grey_without_tint(mode: str, format_: str, profile: bytes | None) -> None:
    if format_ == "JPEG":
        mode = "L"
    ramp = np.tile(np.arange(0, 250, 5, dtype=np.uint8), (30, 1))
    if mode == "I;16":
        image = Image.fromarray(ramp.astype(np.uint16) * 257)
    else:
        image = Image.fromarray(ramp).convert(mode)
    photo = photos.read(saved(image, format_, icc_profile=profile))
    tinted = photo.pixels.copy()
    tinted[..., 0] += 3
    with Image.open(written(photo, tinted)) as result:
        assert result.mode in {"1": ("L",), "L": ("L",)}.get(mode, (mode, "I;16B"))
        assert result.info.get("icc_profile") == profile


@pytest.mark.parametrize("mode", ["L", "LA"])
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "HEIF", "AVIF"])
def test_grey_with_a_profile_looks_the_same_in_every_format(mode: str, format_: str) -> None:
    ramp = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (16, 1))).convert(mode)
    photo = photos.read(saved(ramp, "PNG", icc_profile=icc_profiles.grey_profile(1.8)))
    again = photos.read(written(photo, photo.pixels, format=format_))
    assert again.notes == ()
    assert np.abs(again.pixels.astype(int) - photo.pixels).mean() < 2


@pytest.mark.parametrize("mode", ["L", "I;16"])
def test_grey_with_a_profile_keeps_its_samples(mode: str) -> None:
    ramp = np.tile(np.arange(256, dtype=np.uint8), (4, 1))
    image = Image.fromarray(ramp if mode == "L" else ramp.astype(np.uint16) * 200)
    photo = photos.read(saved(image, "PNG", icc_profile=icc_profiles.grey_profile(1.8)))
    assert abs(float(photo.pixels.mean()) - np.asarray(image).mean()) > 1  # the curve counts
    with Image.open(written(photo, photo.pixels)) as result:
        np.testing.assert_array_equal(np.asarray(result), np.asarray(image))


def test_black_and_white_photo_in_rgb_gets_no_tint() -> None:
    grey = np.random.default_rng(1).integers(0, 200, (20, 30, 1), np.uint8).repeat(3, 2)
    photo = photos.read(saved(Image.fromarray(grey), "PNG"))
    with Image.open(written(photo, photo.pixels + np.array([9, 0, 3], np.uint8))) as result:
        pixels = np.asarray(result)
    np.testing.assert_array_equal(pixels, (grey + 4))


# CMYK


def cmyk_samples() -> np.ndarray:
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 256, (6, 8, 4), dtype=np.uint8)
    image = Image.frombytes("CMYK", (8, 6), coarse.tobytes()).resize((64, 48))
    samples = np.array(image)
    samples[:, :16] = (0, 0, 0, 180)  # black ink only, as text has it
    return samples


@pytest.mark.parametrize("profile", [None, icc_profiles.cmyk_profile()], ids=["plain", "profile"])
def test_cmyk(profile: bytes | None) -> None:
    own = cmyk_samples()
    image = Image.frombytes("CMYK", (64, 48), own.tobytes())
    photo = photos.read(saved(image, "TIFF", icc_profile=profile))
    with Image.open(written(photo, photo.pixels)) as result:
        assert result.mode == "CMYK"
        assert result.info.get("icc_profile") == profile
        np.testing.assert_array_equal(np.asarray(result), own)
    for change in (-12, 12):
        restored = np.clip(photo.pixels.astype(int) + change, 20, 235).astype(np.uint8)
        again = photos.read(written(photo, restored))
        difference = np.abs(again.pixels.astype(int) - restored)
        assert np.percentile(difference, 95) <= 5, change
        assert difference[:, :16].max() <= 5, change


def test_black_ink_stays_black_ink() -> None:
    own = np.zeros((16, 16, 4), np.uint8)
    own[..., 3] = 150
    photo = photos.read(saved(Image.frombytes("CMYK", (16, 16), own.tobytes()), "TIFF"))
    with Image.open(written(photo, photo.pixels - np.uint8(40))) as result:
        inks = np.asarray(result)
    assert inks[..., :3].max() <= 1
    np.testing.assert_array_equal(inks[..., 3], 190)


def test_cmyk_jpeg_is_inverted_as_adobe_does() -> None:
    own = np.full((16, 16, 4), (200, 30, 10, 0), np.uint8)
    file = saved(Image.frombytes("CMYK", (16, 16), own.tobytes()), "JPEG", quality=95)
    photo = photos.read(file)
    assert np.abs(photo.pixels[0, 0].astype(int) - (55, 225, 245)).max() <= 3
    result = written(photo, photo.pixels)
    assert b"Adobe" in result.getvalue()[:200]
    with Image.open(result) as image:
        assert np.abs(np.asarray(image).astype(int) - own).max() <= 3


def test_cmyk_to_png_is_srgb_without_the_cmyk_profile(tmp_path: Path) -> None:
    image = Image.frombytes("CMYK", (64, 48), cmyk_samples().tobytes())
    photo = photos.read(saved(image, "TIFF", icc_profile=icc_profiles.cmyk_profile()))
    photos.write(photo, photo.pixels, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as result:
        assert result.mode == "RGB"
        assert "icc_profile" not in result.info
        np.testing.assert_array_equal(np.asarray(result), photo.pixels)
