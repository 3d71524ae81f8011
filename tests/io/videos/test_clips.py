"""Animated pictures, numbered frames, and the threads that read ahead and write behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from video_clips import decode_rgba, ffmpeg, ffprobe, needs_ffmpeg, packet_times, same

from deblurcli.errors import DeblurError, UsageError
from deblurcli.io.videos import (
    restore_animation,
    restore_frames,
    restore_to_frames,
    restore_video,
)
from deblurcli.io.videos.pixels import turn_upright
from deblurcli.io.videos.restoring import encode_png, exact_rate, read_ahead, write_behind

DURATIONS_MS = [40, 80, 120, 40, 200, 60]


def _draw(transparent: bool) -> list[Image.Image]:
    """A pattern that moves; seen through a moving hole if `transparent`."""
    y, x = np.mgrid[:48, :64]
    pictures = []
    for n in range(len(DURATIONS_MS)):
        layers = [x * 4, y * 5, (x + y + n * 9) % 256]
        if transparent:
            layers.append(np.where((x - 32 - n) ** 2 + (y - 24) ** 2 < 300, 255, 0))
        pictures.append(Image.fromarray(np.stack(layers, -1).astype(np.uint8)))
    return pictures


def _play(path: Path) -> tuple[NDArray[np.uint8], list[int], int | None]:
    """Frames in RGBA as they are shown, their times, and the loop count."""
    with Image.open(path) as image:
        frames, times = [], []
        for n in range(image.n_frames):
            image.seek(n)
            frames.append(np.array(image.convert("RGBA")))
            times.append(round(image.info["duration"]))
        return np.stack(frames), times, image.info.get("loop")


@pytest.mark.parametrize("transparent", [False, True])
@pytest.mark.parametrize(
    ("suffix", "loop"),
    [(".gif", 0), (".gif", 3), (".gif", None), (".webp", 2), (".png", 5), (".avif", None)],
)
def test_animations_keep_frames_times_loops_and_transparency(
    tmp_path: Path, suffix: str, loop: int | None, transparent: bool
) -> None:
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    first, *others = _draw(transparent)
    options = {} if loop is None else {"loop": loop}
    if suffix == ".gif" and transparent:
        options["disposal"] = 2
    first.save(source, save_all=True, append_images=others, duration=DURATIONS_MS, **options)

    def lighter(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:  # alike in all frames
        return np.minimum(pixels, 255 - 20) + np.uint8(20)

    result = restore_animation(source, target, lighter)

    (before, times, loops), (after, new_times, new_loops) = _play(source), _play(target)
    assert result.frame_count == len(after) == len(DURATIONS_MS)
    assert new_times == times == DURATIONS_MS
    assert new_loops == loops
    np.testing.assert_array_equal(after[..., 3], before[..., 3])
    seen = before[..., 3] > 0
    wanted = lighter(before[..., :3])[seen].astype(int)
    assert np.abs(wanted - after[..., :3][seen]).mean() < (0 if suffix == ".png" else 4) + 1e-9


@needs_ffmpeg
@pytest.mark.parametrize("background", [None, (20, 120, 220)])
def test_png_animations_with_a_palette(
    tmp_path: Path, background: tuple[int, int, int] | None
) -> None:
    """A disc that moves over nothing, or over blue: FFmpeg writes them, and judges."""
    y, x = np.mgrid[:48, :64]
    for n in range(5):
        disc = (x - 15 - 8 * n) ** 2 + (y - 24) ** 2 < 120
        rgba = np.zeros((48, 64, 4), np.uint8) if background is None else np.full((48, 64, 4), 255)
        if background is not None:
            rgba[..., :3] = background
        rgba[disc] = (230, 60 + 20 * n, 40, 255)
        Image.fromarray(rgba.astype(np.uint8)).save(tmp_path / f"{n}.png")
    source, target = tmp_path / "in.apng", tmp_path / "out.apng"
    split = "split[a][b];[a]palettegen=reserve_transparent=1[p];[b][p]paletteuse"
    ffmpeg("-framerate", 10, "-i", tmp_path / "%d.png", "-vf", split, "-plays", 3, source)
    assert restore_animation(source, target, same).frame_count == 5
    before, after = (decode_rgba(path, (64, 48)) for path in (source, target))
    seen = before[..., 3:] > 0
    assert seen.any()
    np.testing.assert_array_equal(before * seen, after * seen)
    np.testing.assert_array_equal(before[..., 3], after[..., 3])
    assert _play(target)[1:] == ([100] * 5, 3)


def test_what_stands_still_in_a_png_with_a_palette_is_restored_once(tmp_path: Path) -> None:
    """Pillow writes only what changes: the decoder lays it over the frame before."""
    source, target = tmp_path / "in.png", tmp_path / "out.png"
    frames = []
    for n in range(5):
        pixels = np.tile(np.arange(64, dtype=np.uint8), (48, 1))
        pixels[10:30, 5 + 6 * n : 20 + 6 * n] = 200
        frames.append(Image.fromarray(pixels, "P"))
        frames[-1].putpalette([level % 200 for level in range(768)])
    frames[0].save(source, save_all=True, append_images=frames[1:], duration=100)
    restore_animation(source, target, lambda frame: frame + np.uint8(10))
    wanted = [np.array(frame.convert("RGB")) + 10 for frame in frames]
    np.testing.assert_array_equal(_play(target)[0][..., :3], wanted)


def test_what_stands_still_in_a_gif_does_not_flicker(tmp_path: Path) -> None:
    """A still photo-like background behind a moving spot keeps its very pixels."""
    y, x = np.mgrid[:64, :96]
    still = np.stack([128 + 90 * np.sin(x / 15), 2 * x, 100 + y], -1)
    frames = []
    for n in range(5):
        picture = still.copy()
        picture[20:30, 10 + 8 * n : 20 + 8 * n] = (250, 250, 0)
        frames.append(Image.fromarray(picture.astype(np.uint8)))
    frames[0].save(tmp_path / "in.png", save_all=True, append_images=frames[1:], duration=100)
    restore_animation(tmp_path / "in.png", tmp_path / "out.gif", same)
    frames_out = _play(tmp_path / "out.gif")[0].astype(int)
    assert np.abs(np.diff(frames_out[:, 40:, :, :3], axis=0)).max() == 0


def test_a_damaged_animation_gives_its_first_frames(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    first, *others = (
        Image.fromarray(rng.integers(256, size=(32, 32, 3), dtype=np.uint8)) for _ in range(6)
    )
    first.save(tmp_path / "in.gif", save_all=True, append_images=others, duration=50)
    data = (tmp_path / "in.gif").read_bytes()
    (tmp_path / "cut.gif").write_bytes(data[: len(data) // 2])
    result = restore_animation(tmp_path / "cut.gif", tmp_path / "out.gif", same)
    assert 1 <= result.frame_count < 6
    assert len(result.damage) == 1
    assert len(_play(tmp_path / "out.gif")[0]) == result.frame_count


def test_a_gif_cut_anywhere_gives_its_first_frames_or_one_line(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.gif", tmp_path / "cut.gif"
    first, *rest = _draw(False)
    first.save(whole, save_all=True, append_images=rest, duration=40)
    data = whole.read_bytes()
    counts = set()
    for length in range(1, len(data), max(1, len(data) // 60)):
        cut.write_bytes(data[:length])
        try:
            result = restore_animation(cut, tmp_path / "out.gif", same, overwrite=True)
        except DeblurError:
            continue
        assert len(result.damage) == 1
        counts.add(result.frame_count)
    assert {1, 3, 5} <= counts


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_a_picture_for_viewers_without_animations_is_left_out(tmp_path: Path, suffix: str) -> None:
    source, target = tmp_path / "in.png", tmp_path / f"out{suffix}"
    hidden, *shown = _draw(False)
    hidden.save(source, save_all=True, append_images=shown, default_image=True,
                duration=[100, 200, 300, 400, 500])  # fmt: skip
    result = restore_animation(source, target, same)
    assert _play(target)[1] == [100, 200, 300, 400, 500]
    assert result.notes == ("its picture for viewers without animations is left out",)
    assert result.damage == ()


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".avif"])
def test_an_animation_becomes_a_video(tmp_path: Path, suffix: str) -> None:
    first, *others = _draw(False)
    source, target = tmp_path / f"in{suffix}", tmp_path / "out.mp4"
    first.save(source, save_all=True, append_images=others, duration=DURATIONS_MS)
    assert restore_video(source, target, same).frame_count == len(DURATIONS_MS)
    starts = [sum(DURATIONS_MS[:n]) / 1000 for n in range(len(DURATIONS_MS))]
    assert packet_times(target, "v") == pytest.approx(starts)
    assert float(ffprobe(target).format["duration"]) == pytest.approx(sum(DURATIONS_MS) / 1000)
    shown = decode_rgba(target, (64, 48))[[0, -1], ..., :3]
    before = np.stack([np.array(picture) for picture in (first, others[-1])])
    assert np.abs(shown.astype(int) - before).mean() < 12


@needs_ffmpeg
@pytest.mark.parametrize("transparent", [False, True])
def test_only_a_transparent_animation_is_said_to_lose_that(
    tmp_path: Path, transparent: bool
) -> None:
    """FFmpeg keeps a colour for transparency in every GIF that it makes."""
    draw = "color=red:s=64x48:d=0.4,format=rgba" + (",colorkey=red" if transparent else "")
    split = f"{draw},split[a][b];[a]palettegen[p];[b][p]paletteuse"
    ffmpeg("-f", "lavfi", "-i", split, tmp_path / "in.gif")
    notes = restore_video(tmp_path / "in.gif", tmp_path / "out.mp4", same).notes
    assert notes == (("its transparency is left out",) if transparent else ())


def test_an_animation_of_16_bits_is_said_to_lose_them(tmp_path: Path) -> None:
    pattern = ("-f", "lavfi", "-i", "testsrc2=s=32x24:d=0.2", "-pix_fmt", "rgb48be")
    ffmpeg(*pattern, "-f", "apng", tmp_path / "in.png")
    notes = restore_animation(tmp_path / "in.png", tmp_path / "out.png", same).notes
    assert notes == ("its 16 bits become 8",)


def test_strip_leaves_metadata_of_animations_out(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[271] = "Cam"
    first, *rest = _draw(False)
    first.save(tmp_path / "in.webp", save_all=True, append_images=rest, exif=exif)
    for strip in (False, True):
        restore_animation(
            tmp_path / "in.webp", tmp_path / "out.webp", same, strip=strip, overwrite=True
        )
        assert (b"Cam" in (tmp_path / "out.webp").read_bytes()) == (not strip)


def test_no_animation_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.gif").write_text("no picture")
    with pytest.raises(DeblurError, match="no animated GIF"):
        restore_animation(tmp_path / "text.gif", tmp_path / "out.gif", same)
    with pytest.raises(DeblurError, match="no such file"):
        restore_animation(tmp_path / "missing.gif", tmp_path / "out.gif", same)
    assert [p.name for p in tmp_path.iterdir()] == ["text.gif"]


# Numbered frames


def _open(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


@needs_ffmpeg
@pytest.mark.parametrize(("fps", "rate"), [(25.0, "25/1"), (29.97, "30000/1001")])
def test_numbered_frames_become_a_video(tmp_path: Path, fps: float, rate: str) -> None:
    sources = []
    for n, picture in enumerate(_draw(False)):
        picture.save(tmp_path / f"{n}.png")
        sources.append(tmp_path / f"{n}.png")
    result = restore_frames(sources, tmp_path / "out.mp4", same, _open, fps=fps)
    video = ffprobe(tmp_path / "out.mp4").video
    assert result.frame_count == int(video["nb_read_frames"]) == 6
    assert video["avg_frame_rate"] == rate
    assert float(video["duration"]) == pytest.approx(6 / fps, abs=1e-3)
    assert (video["width"], video["height"], video["pix_fmt"]) == (64, 48, "yuv420p")


def test_frames_of_two_sizes_are_refused(tmp_path: Path) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "1.png")
    Image.new("RGB", (32, 30)).save(tmp_path / "2.png")
    sources = [tmp_path / "1.png", tmp_path / "2.png"]
    with pytest.raises(DeblurError, match=r"is 32x30 pixels, but .*1\.png 32x32"):
        restore_frames(sources, tmp_path / "out.mp4", same, _open)
    with pytest.raises(UsageError, match="--fps"):
        restore_frames(sources, tmp_path / "out.mp4", same, _open, fps=0)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1.png", "2.png"]


@needs_ffmpeg
def test_a_video_becomes_numbered_upright_frames(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "videos" / "phone_rotated_720p.mp4"
    folder = tmp_path / "frames"
    result = restore_to_frames(source, folder, same, end=0.1)
    names = sorted(p.name for p in folder.iterdir())
    assert names == [f"frame-00000{n}.png" for n in (1, 2, 3)]
    assert result.frame_count == 3
    assert _open(folder / names[0]).shape == (1280, 720, 3)
    with pytest.raises(UsageError, match="exists already"):
        restore_to_frames(source, folder, same, end=0.1)
    restore_to_frames(source, folder, same, end=0.05, overwrite=True)
    assert len(list(folder.iterdir())) == 2
    (folder / "mine.txt").touch()
    with pytest.raises(UsageError, match="other things"):
        restore_to_frames(source, folder, same, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["frames"]


@needs_ffmpeg
def test_frames_of_wide_gamut_say_so(tmp_path: Path) -> None:
    source = tmp_path / "in.mp4"
    wide = "log-level=error:colorprim=bt2020:transfer=arib-std-b67"
    ten_bits = "testsrc2=s=64x48:r=5:d=0.4,format=yuv420p10le"
    ffmpeg("-f", "lavfi", "-i", ten_bits, "-c:v", "libx265", "-x265-params", wide, source)
    restore_to_frames(source, tmp_path / "frames", same)
    data = (tmp_path / "frames" / "frame-000001.png").read_bytes()
    place = data.index(b"cICP") + 4
    assert data[place : place + 2] == bytes((9, 18))


@settings(deadline=None, max_examples=12)
@given(
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
    st.sampled_from([np.uint8, np.uint16]),
    st.integers(0, 1000),
)
def test_png_frames_are_exact(size: tuple[int, int], kind: type, seed: int) -> None:
    from io import BytesIO

    top = np.iinfo(kind).max
    pixels = np.random.default_rng(seed).integers(top + 1, size=(*size, 3)).astype(kind)
    data = encode_png(pixels)
    if kind is np.uint8:
        np.testing.assert_array_equal(np.array(Image.open(BytesIO(data))), pixels)
    else:  # Pillow knows no 16-bit RGB
        with av.open(BytesIO(data), format="png_pipe") as file:
            back = next(file.decode(video=0)).to_ndarray(format="rgb48le")
        np.testing.assert_array_equal(back, pixels)


@pytest.mark.parametrize(
    ("fps", "rate"),
    [
        (23.976, "24000/1001"),
        (59.94, "60000/1001"),
        (30, "30"),
        (24, "24"),
        (12.5, "25/2"),
        (1, "1"),
    ],
)
def test_rounded_rates_are_understood(fps: float, rate: str) -> None:
    assert str(exact_rate(fps)) == rate


# Rotation


_QUARTERS = {
    # what a player does with the stored picture -> a, b, c, d of the display matrix
    "nothing": (1, 0, 0, 1),
    "turn right": (0, 1, -1, 0),
    "turn left": (0, -1, 1, 0),
    "upside down": (-1, 0, 0, -1),
    "mirror": (-1, 0, 0, 1),
    "flip": (1, 0, 0, -1),
}


@pytest.mark.parametrize("what", list(_QUARTERS))
def test_display_matrices_turn_as_players_do(what: str) -> None:
    stored = np.arange(2 * 3 * 3).reshape(2, 3, 3)
    a, b, c, d = (n << 16 for n in _QUARTERS[what])
    wanted = {
        "nothing": stored,
        "turn right": np.rot90(stored, -1),
        "turn left": np.rot90(stored, 1),
        "upside down": np.rot90(stored, 2),
        "mirror": stored[:, ::-1],
        "flip": stored[::-1],
    }[what]
    np.testing.assert_array_equal(turn_upright(stored, (a, b, 0, c, d, 0, 0, 0, 1 << 30)), wanted)


# Threads


@given(st.lists(st.integers()), st.integers(1, 4))
def test_read_ahead_gives_all_in_order(items: list[int], depth: int) -> None:
    assert list(read_ahead(items, depth)) == items


def test_read_ahead_is_bounded_and_stops() -> None:
    made = []

    def produce() -> Iterator[int]:
        for n in range(1000):
            made.append(n)
            yield n

    items = read_ahead(produce(), 3)
    assert next(items) == 0
    time.sleep(0.3)
    assert len(made) <= 5  # 1 given, 3 waiting, 1 in hand
    items.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("deblur-decode")]
    assert len(made) <= 6


def test_read_ahead_passes_errors_on_after_the_items_before() -> None:
    def produce() -> Iterator[int]:
        yield 1
        raise ValueError("x")

    items = read_ahead(produce(), 4)
    assert next(items) == 1
    with pytest.raises(ValueError, match="x"):
        next(items)


def test_write_behind_keeps_order_and_raises_the_first_error() -> None:
    def compute(n: int) -> int:
        time.sleep(0.01 if n % 3 == 0 else 0)  # so that the next ones are ready first
        return n

    written: list[int] = []
    with ThreadPoolExecutor(4) as pool, write_behind(written.append, 4) as put:
        for n in range(50):
            put(pool.submit(compute, n))
    assert written == list(range(50))

    def fail(n: int) -> None:
        raise OSError(28, f"item {n}")

    for step, write in ((fail, written.append), (compute, fail)):
        pool = ThreadPoolExecutor(4)
        with pool, pytest.raises(OSError, match="item 0"), write_behind(write, 2) as put:
            for n in range(50):
                put(pool.submit(step, n))
                time.sleep(0.001)
    assert written == list(range(50))
    assert not [t for t in threading.enumerate() if t.name.startswith("deblur-encode")]


def test_decoding_computing_and_encoding_overlap(shared_data: Path, tmp_path: Path) -> None:
    """Frames are decoded and encoded in other threads than the one that restores."""
    threads = set()

    def restore(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        threads.update(t.name.rsplit("_")[0] for t in threading.enumerate())
        assert threading.current_thread() is threading.main_thread()
        return pixels

    source = shared_data / "videos" / "camera_mjpeg.avi"
    restore_video(source, tmp_path / "out.avi", restore, end=0.5)
    assert {"deblur-decode", "deblur-average", "deblur-encode"} <= threads
