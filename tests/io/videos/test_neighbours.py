"""A frame is averaged with its neighbours where they show the same, and nowhere else."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from deblurcli.data.pictures import read_picture
from deblurcli.deblurrer import Deblurrer
from deblurcli.evaluation.metrics import psnr
from deblurcli.io.videos.neighbours import RestoredFrame, average
from deblurcli.io.videos.pixels import frame_of, pixels_of
from deblurcli.io.videos.reading import Step
from deblurcli.io.videos.restoring import Averager

Frame = NDArray[np.uint8]

HEIGHT, WIDTH = 144, 208


def texture(seed: int, height: int, width: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    smooth = [
        ndimage.gaussian_filter(rng.normal(0, 1, (height, width, 3)), (s, s, 0)) * s
        for s in (1, 3, 8)
    ]
    return np.clip(128 + 60 * sum(smooth), 20, 235)


def moving(seed: int = 0, count: int = 3) -> tuple[list[Frame], list[RestoredFrame]]:
    """Sharp frames of a scene that moves by (3, 5) px each, and restorations of blurred ones, whose
    errors are as large as those of real ones and differ from frame to frame."""
    scene = texture(seed, HEIGHT + 40, WIDTH + 40)
    rng = np.random.default_rng(seed + 1)
    sharp, frames = [], []
    for n in range(count):
        view = scene[3 * n : 3 * n + HEIGHT, 5 * n : 5 * n + WIDTH]
        noise = ndimage.gaussian_filter(rng.normal(0, 1, view.shape), (1.5, 1.5, 0))
        restored = np.clip(view + noise * 8 / noise.std(), 0, 255)
        blurred = ndimage.uniform_filter1d(view, 13, axis=1)
        sharp.append(view.round().astype(np.uint8))
        frames.append(RestoredFrame(*(v.round().astype(np.uint8) for v in (blurred, restored))))
    return sharp, frames


def test_errors_that_differ_from_frame_to_frame_become_smaller() -> None:
    sharp, (before, middle, after) = moving()
    alone = psnr(middle.restored, sharp[1])
    both = psnr(average(middle, before, after), sharp[1])
    one = psnr(average(middle, before, None), sharp[1])
    assert alone + 1 < one < both
    assert both > alone + 2  # of 4.8 dB, if three were moved onto each other without any error


def test_sixteen_bits_are_averaged_alike() -> None:
    _, frames = moving()
    deep = [
        RestoredFrame(f.blurred.astype(np.uint16) * 257, f.restored.astype(np.uint16) * 257)
        for f in frames
    ]
    eight, sixteen = (average(f[1], f[0], f[2]) for f in (frames, deep))
    assert sixteen.dtype == np.uint16
    apart = np.abs(eight - sixteen / 257)
    assert np.quantile(apart, 0.99) <= 1  # motion is found in slightly different pictures
    assert apart.mean() < 0.3


def test_another_scene_is_not_mixed_in() -> None:
    sharp, (before, middle, _) = moving(0)
    _, others = moving(5)
    mixed = average(middle, others[0], others[2])
    assert np.abs(mixed.astype(float) - middle.restored).mean() < 1
    assert psnr(mixed, sharp[1]) > psnr(middle.restored, sharp[1]) - 0.1
    # Where a cut comes after a frame, the one before still counts.
    one, other = average(middle, before, None), average(middle, before, others[2])
    assert psnr(other, sharp[1]) > psnr(one, sharp[1]) - 0.1


def test_what_the_network_left_alone_stays_as_it_is() -> None:
    sharp, frames = moving()
    untouched = [RestoredFrame(frame, frame) for frame in sharp]
    np.testing.assert_array_equal(average(untouched[1], untouched[0], untouched[2]), sharp[1])
    # Half of the picture was sharp: only the other half changes.
    blurred, restored = frames[1].blurred.copy(), frames[1].restored.copy()
    blurred[:, :96] = restored[:, :96] = sharp[1][:, :96]
    mixed = average(RestoredFrame(blurred, restored), frames[0], frames[2]).astype(float)
    assert np.abs(mixed - restored)[:, :56].max() <= 1
    assert np.abs(mixed - restored)[:, 136:].mean() > 2


def test_what_stands_still_is_left_to_the_steadying() -> None:
    _, (frame, *_) = moving()
    rng = np.random.default_rng(3)
    others = []
    for _ in range(2):
        noise = rng.normal(0, 1.5, frame.blurred.shape)
        blurred = np.clip(frame.blurred + noise, 0, 255).round().astype(np.uint8)
        others.append(RestoredFrame(blurred, frame.restored - np.uint8(5)))
    np.testing.assert_array_equal(average(frame, *others), frame.restored)


def test_what_blinks_or_flies_past_stays() -> None:
    """Dots of 3 px that are there in one frame only: snow, sparks."""
    sharp, (before, middle, after) = moving()
    flakes = np.zeros(sharp[1].shape[:2], bool)
    for row in range(20, HEIGHT - 20, 24):
        for column in range(20, WIDTH - 20, 24):
            flakes[row : row + 3, column : column + 3] = True
    restored = middle.restored.copy()
    restored[flakes] = 250
    shown = average(RestoredFrame(middle.blurred, restored), before, after)
    around = ndimage.binary_dilation(flakes, iterations=4) & ~ndimage.binary_dilation(flakes)
    before_contrast = restored[flakes].mean() - restored[around].mean()
    assert shown[flakes].mean() - shown[around].mean() > 0.75 * before_contrast


def test_what_comes_from_outside_is_the_frame_itself() -> None:
    sharp, (before, middle, after) = moving()
    shown = average(middle, before, after)
    for edge in (np.s_[:, :5], np.s_[:, -5:], np.s_[:3], np.s_[-3:]):
        before_db = psnr(middle.restored[edge], sharp[1][edge])
        assert psnr(shown[edge], sharp[1][edge]) > before_db - 0.2


def test_highlights_do_not_wrap_around() -> None:
    _, frames = moving()
    bright = [
        RestoredFrame(f.blurred, np.minimum(f.restored.astype(int) + 150, 255).astype(np.uint8))
        for f in frames
    ]
    white = (bright[1].restored == 255).all(2)
    assert white.mean() > 0.3
    assert average(bright[1], bright[0], bright[2])[white].min() > 150


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize(("threads", "side_by_side"), [(1, False), (3, False), (1, True)])
def test_every_frame_is_handed_on_with_its_neighbours(
    count: int, threads: int, side_by_side: bool
) -> None:
    _, frames = moving(count=count)
    to_come: list[Future[Step]] = []
    with ThreadPoolExecutor(threads) as pool:
        averager = Averager(pool, to_come.append, side_by_side=side_by_side)
        for frame in frames:
            averager(Step(frame_of(frame.blurred), restored=frame.restored))
        for end in (Step(None), None):
            averager(end)
    written = [averaged.result() for averaged in to_come]
    assert [step.frame is None for step in written] == [False] * count + [True]
    around = [None, *frames, None]
    for n, frame in enumerate(frames):
        wanted = average(frame, around[n], around[n + 2])
        if side_by_side:
            wanted = np.hstack((frame.blurred, wanted))
        np.testing.assert_array_equal(pixels_of(written[n].frame), wanted)


@pytest.mark.parametrize("size", [(64, 4000), (4000, 64), (8, 75), (2, 33_000)])
def test_ribbons_are_not_averaged(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    frames = [RestoredFrame(*rng.integers(0, 256, (2, *size, 3), np.uint8)) for _ in range(3)]
    np.testing.assert_array_equal(average(frames[1], frames[0], frames[2]), frames[1].restored)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 150), st.integers(1, 150), st.integers(0, 9))
def test_any_size_gives_a_frame_of_that_size(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pairs = rng.integers(0, 256, (3, 2, height, width, 3), np.uint8)
    before, middle, after = (RestoredFrame(*pair) for pair in pairs)
    result = average(middle, before, after)
    assert (result.shape, result.dtype) == (middle.restored.shape, np.uint8)
    lone = average(middle, None, None)
    np.testing.assert_array_equal(lone, middle.restored)


def test_real_frames_of_a_clip_gain(shared_data: Path) -> None:
    """Two frames of a clip that nobody trained on, a few frames apart."""
    deblurrer = Deblurrer.load(device="cpu", precision="fp32")
    part = (slice(200, 584), slice(320, 896))
    frames, folder = [], shared_data / "reds/val"
    for name in ("00000007.png", "00000006.png"):
        blurred = read_picture(folder / "val_blur/street" / name)[part]
        frames.append(RestoredFrame(blurred, deblurrer.restore(blurred)))
    sharp = read_picture(folder / "val_sharp/street/00000007.png")[part]
    gain = psnr(average(*frames), sharp) - psnr(frames[0].restored, sharp)
    assert gain > 0.3
