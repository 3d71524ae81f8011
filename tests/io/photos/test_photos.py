"""Reading and writing photos: every format, whatever lies in it, and bad input."""

from __future__ import annotations

import io
import os
import struct
import sys
import tracemalloc
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import example, given, settings
from hypothesis import strategies as st
from photo_files import saved, written
from PIL import Image, features

from deblurcli.errors import DeblurError, UsageError
from deblurcli.io import photos

FORMATS = ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "HEIF", "AVIF"]
LOSSLESS = ["PNG", "TIFF", "BMP"]


def smooth(height: int, width: int, seed: int = 0, channels: int = 3) -> np.ndarray:
    """A picture that lossy codecs keep well: slow waves."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / 64
    planes = []
    for _ in range(channels):
        a, b, c = rng.uniform(-2, 2, 3)
        planes.append(127.5 + 90 * np.sin(a * x + b * y + c))
    return np.rint(np.stack(planes, -1)).astype(np.uint8)


def photo_of(pixels: np.ndarray, format_: str = "PNG", **options: object) -> photos.Photo:
    return photos.read(saved(Image.fromarray(pixels), format_, **options))


def mean_difference(a: np.ndarray | Image.Image, b: np.ndarray | Image.Image) -> float:
    return float(np.abs(np.asarray(a, float) - np.asarray(b)).mean())


# Round trips


@settings(max_examples=40, deadline=None)
@given(
    source=st.sampled_from(FORMATS),
    target=st.sampled_from(FORMATS),
    width=st.integers(1, 80),
    height=st.integers(1, 80),
    seed=st.integers(0, 1000),
)
def test_from_every_format_to_every_other(
    source: str, target: str, width: int, height: int, seed: int
) -> None:
    photo = photo_of(smooth(height, width, seed), source)
    assert photo.format == source
    assert photo.pixels.shape == (height, width, 3)
    assert photo.pixels.dtype == np.uint8
    restored = 255 - photo.pixels
    before = photo.pixels.copy()
    again = photos.read(written(photo, restored, format=target))
    np.testing.assert_array_equal(photo.pixels, before)
    assert again.format == target
    if target in LOSSLESS:
        np.testing.assert_array_equal(again.pixels, restored)
    else:
        assert mean_difference(again.pixels, restored) < 4


@settings(max_examples=40, deadline=None)
@given(
    mode=st.sampled_from(["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "YCbCr", "CMYK"]),
    source=st.sampled_from(["PNG", "TIFF"]),
    target=st.sampled_from(["PNG", "TIFF"]),
    width=st.integers(1, 40),
    height=st.integers(1, 40),
)
def test_every_mode_survives(mode: str, source: str, target: str, width: int, height: int) -> None:
    channels = {"LA": 2, "RGBA": 4, "CMYK": 4, "RGBX": 4}.get(mode, 3)
    if channels == 3:
        image = Image.fromarray(smooth(height, width)).convert(mode)
    else:
        data = smooth(height, width, channels=channels).tobytes()
        image = Image.frombytes(mode, (width, height), data)
    try:
        file = saved(image, source)
    except OSError:
        return  # the format does not know the mode
    if mode == "YCbCr" and source == "TIFF" and features.version("pil") < "13":
        return  # Pillow 12, the last for Python 3.10, can't read what it wrote
    photo = photos.read(file)
    again = photos.read(written(photo, photo.pixels, format=target))
    np.testing.assert_array_equal(again.pixels, photo.pixels)
    if mode in ("L", "RGB"):
        np.testing.assert_array_equal(photo.pixels, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("format_", ["PNG", "TIFF", "WEBP", "AVIF", "HEIF"])
@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparency_is_untouched(format_: str, mode: str) -> None:
    data = smooth(40, 50, channels=len(mode))
    photo = photos.read(saved(Image.frombytes(mode, (50, 40), data.tobytes()), "PNG"))
    again = photos.read(written(photo, photo.pixels // 2, format=format_))
    alpha = again.picture.alpha
    assert alpha is not None
    if format_ in ("AVIF", "HEIF"):
        assert np.abs(alpha.astype(int) - data[..., -1]).max() <= 4  # lossy
    else:
        np.testing.assert_array_equal(alpha, data[..., -1])
    assert mean_difference(again.pixels, photo.pixels // 2) < 4


@pytest.mark.parametrize("format_", ["JPEG", "BMP"])
def test_transparency_is_laid_on_white(format_: str, caplog: pytest.LogCaptureFixture) -> None:
    rgba = np.zeros((16, 16, 4), np.uint8)
    rgba[:, :8, 3] = 255
    photo = photo_of(rgba)
    again = photos.read(written(photo, photo.pixels, format=format_))
    assert again.pixels[:, 0].max() < 5
    assert again.pixels[:, -1].min() > 250
    assert "transparency" in caplog.text


def test_laying_on_white_takes_little_memory() -> None:
    photo = photo_of(np.full((1000, 4000, 4), 100, np.uint8))
    tracemalloc.start()
    written(photo, photo.pixels, format="BMP")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * 4_000_000


@pytest.mark.parametrize("mode", ["P", "RGB", "L"])
def test_one_transparent_colour(mode: str) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:, 4:] = 200
    image = Image.fromarray(pixels).convert(mode)
    key = {"P": image.getpixel((7, 0)), "RGB": (200, 200, 200), "L": 200}[mode]
    photo = photos.read(saved(image, "PNG", transparency=key))
    with Image.open(written(photo, photo.pixels)) as result:
        alpha = np.asarray(result.convert("RGBA"))[..., 3]
    np.testing.assert_array_equal(alpha, np.where(pixels[..., 0] == 200, 0, 255))


def test_gif_keeps_transparency() -> None:
    rgba = np.full((16, 16, 4), (250, 10, 10, 255), np.uint8)
    rgba[:, :5, 3] = 0
    photo = photo_of(rgba)
    with Image.open(written(photo, photo.pixels, format="GIF")) as result:
        pixels = np.asarray(result.convert("RGBA"))
    np.testing.assert_array_equal(pixels[..., 3], rgba[..., 3])
    assert np.abs(pixels[:, 5:, :3].astype(int) - (250, 10, 10)).max() <= 4


@pytest.mark.parametrize(
    ("format_", "word"), [("GIF", "animated"), ("WEBP", "animated"), ("PNG", "animated"),
                          ("AVIF", "animated"), ("TIFF", "pages")]
)  # fmt: skip
def test_first_frame_with_a_note(format_: str, word: str) -> None:
    first, second = Image.new("RGB", (32, 32), (200, 40, 40)), Image.new("RGB", (32, 32), "blue")
    photo = photos.read(saved(first, format_, save_all=True, append_images=[second]))
    assert np.abs(photo.pixels.astype(int) - (200, 40, 40)).max() < 12
    assert len(photo.notes) == 1
    assert word in photo.notes[0]
    assert photos.read(written(photo, photo.pixels)).notes == ()


def test_deep_pages_are_noted_as_well() -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for value in (20_000, 40_000):
            writer.write(np.full((32, 32, 3), value, np.uint16), photometric="rgb")
    file.seek(0)
    photo = photos.read(file)
    assert (photo.pixels == 20_000).all()
    assert photo.notes == ("2 pages: only the first is restored",)


@pytest.mark.parametrize("shape", [(70_000, 1, 3), (1, 70_000, 3)])
@pytest.mark.parametrize("format_", LOSSLESS)
def test_strips_of_one_pixel(shape: tuple[int, ...], format_: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    photo = photo_of(pixels, "TIFF")
    again = photos.read(written(photo, pixels, format=format_))
    np.testing.assert_array_equal(again.pixels, pixels)


# JPEG and WebP: not coarser than the input


@pytest.mark.parametrize("quality", [10, 40, 75, 92, 97, 100])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_is_written_no_coarser(quality: int, subsampling: int, progressive: bool) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    options = {"quality": quality, "subsampling": subsampling, "progressive": progressive}
    source = saved(Image.fromarray(noise), "JPEG", **options)
    photo = photos.read(source)
    with Image.open(source) as old, Image.open(written(photo, photo.pixels)) as new:
        for number, table in new.quantization.items():
            assert (np.array(table) <= old.quantization[number]).all()
        assert max(new.quantization[0]) <= 20  # quality 92
        assert [layer[1:3] for layer in new.layer] == [layer[1:3] for layer in old.layer]
        assert bool(new.info.get("progressive")) == progressive
        assert mean_difference(new.convert("L"), old.convert("L")) < 2.5


def test_jpeg_from_other_formats_has_full_chroma() -> None:
    with Image.open(written(photo_of(smooth(40, 40)), smooth(40, 40), format="JPEG")) as image:
        assert {layer[1:3] for layer in image.layer} == {(1, 1)}
        assert max(image.quantization[0]) <= 12  # quality 95


def test_lossless_webp_stays_lossless() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (30, 31, 3), np.uint8)
    photo = photo_of(noise, "WEBP", lossless=True)
    np.testing.assert_array_equal(photo.pixels, noise)
    np.testing.assert_array_equal(photos.read(written(photo, noise)).pixels, noise)


def test_webp_too_large_says_so() -> None:
    photo = photo_of(np.zeros((1, 16400, 3), np.uint8))
    with pytest.raises(DeblurError, match=r"WebP holds at most 16383 pixels a side; write \.png"):
        written(photo, photo.pixels, format="WEBP")


# Real photos


def test_the_eight_orientations_are_one_upright_picture(shared_data: Path) -> None:
    folder = shared_data / "formats" / "orientation"
    eight = [photos.read(folder / f"Landscape_{i}.jpg") for i in range(1, 9)]
    for photo in eight:
        assert photo.pixels.shape == (1200, 1800, 3)
        assert np.abs(photo.pixels[::7, ::7].astype(int) - eight[0].pixels[::7, ::7]).mean() < 5


def test_heic(shared_data: Path) -> None:
    photo = photos.read(shared_data / "formats" / "cheers_1440x960.heic")
    assert photo.pixels.shape == (960, 1440, 3)
    assert photo.format == "HEIF"
    assert 20 < photo.pixels.mean() < 235


# Where to, and what as


def test_format_by_suffix_or_name(tmp_path: Path) -> None:
    photo = photo_of(smooth(8, 9))
    for name, magic in [("a.JPG", b"\xff\xd8"), ("a.tif", b"II*"), ("a.png", b"\x89PNG")]:
        photos.write(photo, photo.pixels, tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(magic)
    photos.write(photo, photo.pixels, tmp_path / "no suffix")
    assert (tmp_path / "no suffix").read_bytes().startswith(b"\x89PNG")
    for name in ("jpg", ".jpg", "JPEG"):
        assert written(photo, photo.pixels, format=name).read(2) == b"\xff\xd8"
    with pytest.raises(UsageError, match=r"not a picture format.*use \.jpg \.png"):
        photos.write(photo, photo.pixels, tmp_path / "a.xyz")
    with pytest.raises(UsageError, match="not a picture format"):
        written(photo, photo.pixels, format="docx")


def test_the_content_counts_not_the_name(tmp_path: Path) -> None:
    path = tmp_path / "really a PNG.jpg"
    path.write_bytes(saved(Image.fromarray(smooth(8, 9)), "PNG").getvalue())
    assert photos.read(path).format == "PNG"


def test_wrong_shape_or_dtype_is_a_bug_of_the_caller() -> None:
    photo = photo_of(smooth(8, 9))
    for wrong in (photo.pixels[1:], photo.pixels.astype(np.float32), photo.pixels[..., :1]):
        with pytest.raises(ValueError, match="restored is"):
            written(photo, wrong)


def test_same_file_in_and_out(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(smooth(8, 9)).save(path)
    photo = photos.read(path)
    with pytest.raises(UsageError, match="exists already"):
        photos.write(photo, photo.pixels, path)
    photos.write(photo, 255 - photo.pixels, path, overwrite=True)
    np.testing.assert_array_equal(photos.read(path).pixels, 255 - smooth(8, 9))
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_pipe(tmp_path: Path) -> None:
    data = saved(Image.fromarray(smooth(20, 30)), "PNG").getvalue()
    reader, writer = os.pipe()
    os.write(writer, data)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        np.testing.assert_array_equal(photos.read(pipe).pixels, smooth(20, 30))


@pytest.mark.parametrize(
    "name",
    ["two words.png", "quo'te\".png", "new\nline.png", "ünïcødé-写真.png", "-o.png", "%s.png"],
)
def test_odd_names(tmp_path: Path, name: str) -> None:
    Image.fromarray(smooth(8, 9)).save(tmp_path / name)
    photo = photos.read(tmp_path / name)
    photos.write(photo, photo.pixels, tmp_path / f"out {name}")
    assert (tmp_path / f"out {name}").exists()


# Bad input: one clean line each


def one_line(error: DeblurError, subject: str) -> str:
    text = str(error)
    assert text.startswith(f"{subject}: ")
    assert "\n" not in text
    assert "; " in text
    return text


def refused(path: Path) -> str:
    with pytest.raises(DeblurError) as caught:
        photos.read(path)
    return one_line(caught.value, str(path))


def test_missing_folder_and_empty(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "missing.jpg")
    assert "a folder" in refused(tmp_path)
    (tmp_path / "empty.jpg").touch()
    assert "zero bytes" in refused(tmp_path / "empty.jpg")
    assert "too long" in refused(tmp_path / ("x" * 400))


@pytest.mark.parametrize(
    "content", [b"x", b"hello, I am a text\n" * 99, b"%PDF-1.7", bytes(1000), b"<svg></svg>",
                b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(100)]
)  # fmt: skip
def test_not_a_photo(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    assert "not a photo" in refused(tmp_path / "a.jpg")


def test_name_on_request() -> None:
    with pytest.raises(DeblurError) as caught:
        photos.read(io.BytesIO(b"?"), name="standard input")
    one_line(caught.value, "standard input")
    with pytest.raises(DeblurError) as caught:
        photos.read(io.BytesIO(b""))
    one_line(caught.value, "-")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="nothing is forbidden to root")
def test_no_permission(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (4, 4)).save(path)
    path.chmod(0)
    assert "no permission" in refused(path)


@pytest.mark.parametrize("format_", FORMATS)
def test_truncated(tmp_path: Path, format_: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (90, 80, 3), np.uint8)
    data = saved(Image.fromarray(noise), format_).getvalue()
    path = tmp_path / "a"
    for share in (0.02, 0.3, 0.6, 0.95):
        path.write_bytes(data[: int(len(data) * share)])
        text = refused(path)
        assert "truncated" in text or "damaged" in text or "not a photo" in text
    if format_ in ("JPEG", "PNG"):
        path.write_bytes(data[: len(data) // 2])
        assert "truncated: a part of the file is missing" in refused(path)


@settings(max_examples=150, deadline=None)
@example(format_="GIF", changes=[(10, 0)])  # a frame of 5 gigapixels
@given(
    format_=st.sampled_from(FORMATS),
    changes=st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), max_size=6),
)
def test_damaged_files_give_a_photo_or_a_clean_refusal(
    format_: str, changes: list[tuple[int, int]]
) -> None:
    exif = Image.Exif()
    exif[271], exif[274] = "maker", 6
    data = bytearray(saved(Image.fromarray(smooth(12, 16)), format_, exif=exif).getvalue())
    for place, value in changes:
        data[place % len(data)] = value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            photo = photos.read(io.BytesIO(bytes(data)))
        except DeblurError as error:
            one_line(error, "-")
        else:
            written(photo, photo.pixels)


def png_with_size(width: int, height: int, depth: int = 8) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(100)))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("depth", [8, 16])
def test_decompression_bomb(tmp_path: Path, depth: int) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_with_size(60000, 60000, depth))
    before = Image.MAX_IMAGE_PIXELS
    assert "60000x60000 pixels are more than the 500 million allowed" in refused(path)
    assert before == Image.MAX_IMAGE_PIXELS


# Pillow 12 warns of it for parts that are cut out, too: ours are small, but here one is all.
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_pillows_own_limit_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)  # warns from there, fails from 600
    for format_ in FORMATS:
        assert photo_of(smooth(20, 30), format_).pixels.shape == (20, 30, 3)
    assert Image.MAX_IMAGE_PIXELS == 300


def test_floating_point_and_raw_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(np.ones((4, 4), np.float32)).save(path)
    assert "floating point pixels are not supported; convert it to 16 bits" in refused(path)
    Image.fromarray(np.ones((4, 4), np.int32)).save(path)
    assert "32-bit pixels are not supported" in refused(path)
    Image.new("RGB", (4, 4)).save(path, tiffinfo={50706: b"\1\4\0\0"})
    assert "raw file; develop it first" in refused(path)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
def test_full_disk_through_a_pipe_is_an_os_error() -> None:
    photo = photo_of(smooth(8, 9))
    with pytest.raises(OSError, match="No space"), Path("/dev/full").open("wb", 0) as file:
        photos.write(photo, photo.pixels, file)


def test_nothing_heavy_is_imported() -> None:
    import subprocess

    code = (
        "import sys, io; from PIL import Image; from deblurcli.io import photos; "
        "f = io.BytesIO(); Image.new('RGB', (8, 8)).save(f, 'JPEG'); f.seek(0); "
        "p = photos.read(f); photos.write(p, p.pixels, io.BytesIO()); "
        "print([m for m in ('torch', 'tifffile', 'pillow_heif', 'imageio', 'PIL.ImageCms') "
        "if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
