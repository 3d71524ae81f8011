"""Simulated blur, noise and JPEG: what the training relies on."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from skimage import data
from torch import Tensor

from deblurcli.config import MotionRange
from deblurcli.data.degradations import Degradation, degrade, draw_degradation, jpeg_constants
from deblurcli.data.synthesis import (
    Exposure,
    draw_exposure,
    draw_pattern,
    margin_px,
    render,
)

SIZE_PX = 64
MOTION = MotionRange(path_px=20.0, weak=0.0, frames=0.0, objects=2, defocus=0.0)
REGION_PX = SIZE_PX + 2 * margin_px(MOTION)
seeds = st.integers(0, 2**32 - 1)


def blob(x_px: float = 0.0, y_px: float = 0.0, sigma_px: float = 3.0) -> Tensor:
    """(1, 3, R, R): a bright spot on black, off the middle by (x, y)."""
    axis = torch.arange(REGION_PX) - (REGION_PX - 1) / 2
    spot = torch.exp(-((axis[None] - x_px) ** 2 + (axis[:, None] - y_px) ** 2) / (2 * sigma_px**2))
    return spot.expand(1, 3, -1, -1).clone()


def centroid(picture: Tensor) -> tuple[float, float]:
    mass = picture[0, 0].double()
    axis = torch.arange(mass.shape[0], dtype=torch.float64)
    return float((mass.sum(0) @ axis) / mass.sum()), float((mass.sum(1) @ axis) / mass.sum())


def distance_px(a: Tensor, b: Tensor) -> float:
    return float(np.hypot(*np.subtract(centroid(a), centroid(b))))


def scene(seed: int = 0) -> Tensor:
    """(1, 3, R, R): a real picture, another part of it for every seed."""
    pixels = data.astronaut()
    rng = np.random.default_rng(seed)
    row, column = rng.integers(0, 512 - REGION_PX, 2)
    cut = pixels[row : row + REGION_PX, column : column + REGION_PX]
    return torch.from_numpy(cut.transpose(2, 0, 1).copy())[None].float() / 255


def draw(seed: int, **changes: float) -> Exposure:
    return draw_exposure(np.random.default_rng(seed), replace(MOTION, **changes), REGION_PX)


def middle_of(path: NDArray[np.float32]) -> NDArray[np.float32]:
    """The time step that has as many before it as after it, as (1, 4)."""
    assert len(path) % 2 == 1
    return path[len(path) // 2 :][:1]


@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_sharp_is_the_middle_of_the_exposure_for_the_camera(seed: int) -> None:
    """As GOPRO and REDS have it: the frame in the middle of those that were averaged."""
    drawn = draw(seed, still=0.0, objects=0, highlights=0.0)
    exposure = Exposure(middle_of(drawn.camera))
    blurred, sharp = render(blob(5.0, -7.0), blob(), [exposure], SIZE_PX)
    assert distance_px(blurred, sharp) < 0.1
    assert drawn.camera.shape == (drawn.steps, 4)


@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_sharp_is_the_middle_of_the_exposure_for_an_object(seed: int) -> None:
    """A bright object on black, drawn path and mask: in the middle it is where it is sharp."""
    drawn = draw(seed, still=0.0, highlights=0.0)
    black = torch.zeros(1, 3, REGION_PX, REGION_PX)
    for path in drawn.objects:
        middle = middle_of(path)
        exposure = Exposure(np.zeros_like(middle), objects=(middle,), masks=(disc_mask(),))
        blurred, sharp = render(black, torch.ones_like(black), [exposure], SIZE_PX)
        assert sharp.sum() > 100
        assert distance_px(blurred, sharp) < 0.1


def test_paths_are_bent_so_that_their_centre_of_mass_lies_beside_them() -> None:
    """On real pairs the sharp frame is 1 px off the centre of mass of a 22 px path."""
    long = (draw(seed, still=0.0, shaky=0.0).camera[:, :2] for seed in range(300))
    offsets = [
        np.hypot(*path.mean(axis=0)) / np.hypot(*(path[-1] - path[0]))
        for path in long
        if len(path) > 10
    ]
    assert 0.02 < np.median(offsets) < 0.08


def disc_mask() -> NDArray[np.float32]:
    side = REGION_PX // 4
    axis = np.arange(side) - (side - 1) / 2
    distance = np.hypot(axis[None], axis[:, None])
    return np.clip(3.0 - distance, 0, 1).astype(np.float32)


def test_an_object_covers_what_is_behind_it() -> None:
    """Hardly anything moves: outside the mask is the scene, inside what the object shows."""
    still = np.full((3, 4), 1e-6, np.float32)
    region, filling = scene(0), scene(1)
    exposure = Exposure(still, objects=(still,), masks=(disc_mask(),))
    edge = margin_px(MOTION)
    middle = (..., slice(edge, edge + SIZE_PX), slice(edge, edge + SIZE_PX))
    for picture in render(region, filling, [exposure], SIZE_PX):
        assert float((picture - region[middle])[..., :16, :].abs().max()) < 1e-3
        assert float((picture - filling[middle])[..., 30:34, 30:34].abs().max()) < 1e-3


def test_a_path_that_starts_where_it_is_sharp_is_seen_by_these_tests() -> None:
    path = np.zeros((10, 4), np.float32)
    path[:, 0] = np.linspace(0, 8, 10)
    blurred, sharp = render(blob(), blob(), [Exposure(path)], SIZE_PX)
    assert distance_px(blurred, sharp) == pytest.approx(4.0, abs=0.05)


@settings(max_examples=50, deadline=None)
@given(seed=seeds)
def test_drawn_exposures_stay_in_range(seed: int) -> None:
    exposure = draw(seed)
    for path, least in ((exposure.camera, 0), *((path, 0) for path in exposure.objects)):
        assert path.shape == (exposure.steps, 4)
        length = np.hypot(*np.diff(path[:, :2], axis=0).T).sum()
        # What is drawn is the length at even speed on a straight line.
        assert least <= length <= 2.2 * MOTION.path_px
        # What moves into the picture is part of the region.
        assert np.abs(path[:, :2]).max() <= margin_px(MOTION)
    assert len(exposure.objects) == len(exposure.masks) <= MOTION.objects
    for mask in exposure.masks:
        assert mask.shape == (REGION_PX // 4,) * 2
        assert mask.dtype == np.float32
        assert mask.min() >= 0
        assert mask.max() <= 1
    assert 1.0 <= exposure.highlight_gain <= (30.0 if exposure.defocus_px else 6.0)


@settings(max_examples=40, deadline=None)
@given(seed=seeds)
def test_time_steps_are_close_enough_to_show_no_ghosts(seed: int) -> None:
    exposure = draw(seed, still=0.0)
    for path in (exposure.camera, *exposure.objects):
        if len(path) > 1:
            assert np.hypot(*np.diff(path[:, :2], axis=0).T).max() < 2.5


@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_linear_averaging_keeps_the_mean(seed: int) -> None:
    """Light is neither made nor lost: a spot that stays inside keeps its sum."""
    exposure = replace(draw(seed, still=0.0, objects=0, highlights=0.0, zoom=0.0), gamma=1.0)
    blurred, sharp = render(blob(), blob(), [exposure], SIZE_PX)
    assert float(blurred.sum()) == pytest.approx(float(sharp.sum()), rel=2e-3)
    assert float(blurred.max()) <= float(sharp.max()) + 1e-5


@settings(max_examples=20, deadline=None)
@given(seed=seeds, gamma=st.sampled_from([2.2, 4.0, 0.0]))
def test_averaging_light_comes_out_brighter(seed: int, gamma: float) -> None:
    """As GOPRO's blur_gamma does: the power mean exceeds the mean, and so does the exponential."""
    exposure = draw(seed, still=0.0, highlights=0.0)
    pictures = [
        render(scene(seed), scene(1), [replace(exposure, gamma=g)], SIZE_PX)[0]
        for g in (1.0, gamma)
    ]
    assert float((pictures[1] - pictures[0]).min()) > -0.01
    assert float((pictures[1] - pictures[0]).mean()) >= -1e-6


@settings(max_examples=15, deadline=None)
@given(seed=seeds)
def test_a_still_exposure_gives_the_sharp_picture(seed: int) -> None:
    exposure = draw(seed, still=1.0)
    assert exposure.steps == 1
    blurred, sharp = render(scene(seed), scene(1), [exposure], SIZE_PX)
    torch.testing.assert_close(blurred, sharp, atol=1e-5, rtol=0)
    if exposure.highlight_gain == 1.0:
        edge = margin_px(MOTION)
        middle = scene(seed)[..., edge : edge + SIZE_PX, edge : edge + SIZE_PX]
        assert float((sharp - middle).abs().max()) < 1e-3  # through the gamma curve and back


def test_the_same_picture_in_any_batch() -> None:
    exposures = [draw(seed) for seed in range(6)]
    assert {len(e.objects) for e in exposures} == {0, 1, 2}, "choose seeds of every kind"
    regions = torch.cat([scene(seed) for seed in range(6)])
    fillings = torch.cat([scene(seed + 10) for seed in range(6)])
    together = render(regions, fillings, exposures, SIZE_PX)
    order = [4, 2, 0]
    some = render(regions[order], fillings[order], [exposures[n] for n in order], SIZE_PX)
    for n in range(6):
        alone = render(regions[n : n + 1], fillings[n : n + 1], [exposures[n]], SIZE_PX)
        for whole, one in zip(together, alone, strict=True):
            torch.testing.assert_close(whole[n], one[0], atol=2e-6, rtol=0)
    for whole, part in zip(together, some, strict=True):
        torch.testing.assert_close(whole[order], part, atol=2e-6, rtol=0)


def test_the_same_seed_draws_the_same() -> None:
    first, second, other = draw(7), draw(7), draw(8)
    np.testing.assert_array_equal(first.camera, second.camera)
    assert first.highlight_gain == second.highlight_gain
    assert first.camera.shape != other.camera.shape or (first.camera != other.camera).any()


def test_frames_leave_copies_and_the_one_in_the_middle_is_sharp() -> None:
    """GOPRO's kind of blur: a spot on a straight path leaves as many spots as there were frames."""
    path_px = 60.0
    motion = replace(MOTION, path_px=path_px, still=0.0, frames=1.0, objects=0, shaky=0.0)
    region_px = SIZE_PX + 2 * margin_px(motion)
    seen = set()
    for seed in range(40):
        exposure = draw_exposure(np.random.default_rng(seed), motion, region_px)
        frames = exposure.steps // exposure.middle_steps
        assert exposure.steps == frames * exposure.middle_steps
        seen.add(frames)
        first, second = exposure.camera[: 2 * exposure.middle_steps, :2].reshape(2, -1, 2)
        gap = np.hypot(*(second[0] - first[-1]))
        within = max([0.0, *np.hypot(*np.diff(first, axis=0).T)])
        assert gap >= within  # a shutter that is closed between the frames
    assert seen == {7, 9, 11, 13}

    path = np.zeros((21, 4), np.float32)  # 7 frames of 3 steps, 9 px apart
    path[:, 0] = (9 * np.arange(-3, 4)[:, None] + np.array([-1, 0, 1])).ravel()
    exposure = Exposure(path, middle_steps=3)
    blurred, sharp = render(blob(sigma_px=1.0), blob(), [exposure], SIZE_PX)
    row = blurred[0, 0, SIZE_PX // 2]
    peaks = (row[1:-1] > row[:-2]) & (row[1:-1] >= row[2:]) & (row[1:-1] > 0.03)
    assert int(peaks.sum()) == 7
    momentary = render(blob(sigma_px=1.0), blob(), [Exposure(path)], SIZE_PX)[1]
    assert distance_px(sharp, momentary) < 0.05
    assert float(sharp.max()) < 0.9 * float(momentary.max())  # blurred a little in itself


def test_a_defocused_scene_is_its_own_target() -> None:
    plain = Exposure(np.zeros((1, 4), np.float32))
    soft = replace(plain, defocus_px=5.0)
    sharp = render(scene(), scene(), [plain], SIZE_PX)[1]
    blurred, target = render(scene(), scene(), [soft], SIZE_PX)
    torch.testing.assert_close(blurred, target, rtol=0, atol=0)
    assert float((target[..., 1:] - target[..., :-1]).abs().mean()) < 0.5 * float(
        (sharp[..., 1:] - sharp[..., :-1]).abs().mean()
    )
    assert float(target.mean()) == pytest.approx(float(sharp.mean()), abs=0.02)


def test_weak_motion_is_weak() -> None:
    for seed in range(40):
        exposure = draw(seed, still=0.0, weak=1.0, shaky=0.0, frames=0.5)
        length = np.hypot(*np.diff(exposure.camera[:, :2], axis=0).T).sum()
        assert length <= 2.2 * 4


def test_patterns_are_of_every_kind_and_fine() -> None:
    pictures = [draw_pattern(np.random.default_rng(seed), 96) for seed in range(60)]
    for picture in pictures:
        assert picture.shape == (3, 96, 96)
        assert picture.dtype == torch.uint8
    contrasts = [picture.float().std() for picture in pictures]
    assert np.mean(np.array(contrasts) > 10) > 0.8
    assert not torch.equal(pictures[0], pictures[1])
    assert torch.equal(pictures[7], draw_pattern(np.random.default_rng(7), 96))


def test_shapes_and_ranges() -> None:
    exposures = [draw(seed) for seed in range(3)]
    regions = torch.cat([scene(seed) for seed in range(3)])
    for size_px in (SIZE_PX, 50):
        blurred, sharp = render(regions, regions.flip(0), exposures, size_px)
        for pictures in (blurred, sharp):
            assert pictures.shape == (3, 3, size_px, size_px)
            assert pictures.dtype == torch.float32
            assert float(pictures.min()) >= 0.0
            assert float(pictures.max()) <= 1.0


def test_a_light_out_of_focus_is_a_disc_in_blurred_and_sharp() -> None:
    lamp = torch.full((1, 3, REGION_PX, REGION_PX), 0.2)
    middle = REGION_PX // 2
    lamp[:, :, middle - 2 : middle + 2, middle - 2 : middle + 2] = 1.0
    still = Exposure(np.zeros((1, 4), np.float32), gamma=2.2, defocus_px=8.0, highlight_gain=30.0)
    blurred, sharp = render(lamp, lamp, [still], SIZE_PX)
    torch.testing.assert_close(blurred, sharp)
    row = sharp[0, 0, SIZE_PX // 2]
    assert row[SIZE_PX // 2 - 6 : SIZE_PX // 2 + 6].min() > 0.85  # flat and bright
    assert row[SIZE_PX // 2 - 14] < 0.25  # and dark beside it


def test_a_saturated_highlight_leaves_a_bright_streak() -> None:
    """A lamp brighter than white stays white along its path; a white wall as dim as any."""
    path = np.zeros((16, 4), np.float32)
    path[:, 0] = np.linspace(-6, 6, 16)
    spot = (blob(sigma_px=1.5) > 0.5).float()
    plain, sharp_plain = render(spot, spot, [Exposure(path)], SIZE_PX)
    lamp, sharp_lamp = render(spot, spot, [Exposure(path, highlight_gain=6.0)], SIZE_PX)
    torch.testing.assert_close(sharp_plain, sharp_lamp)
    assert float(lamp.max()) == 1.0
    assert float(plain.max()) < 0.5
    # What is not nearly white is not changed.
    grey = 0.8 * spot
    changed = render(grey, grey, [Exposure(path, highlight_gain=6.0)], SIZE_PX)[0]
    torch.testing.assert_close(changed, render(grey, grey, [Exposure(path)], SIZE_PX)[0])


def test_blur_removes_detail_along_the_motion_only() -> None:
    path = np.zeros((24, 4), np.float32)
    path[:, 0] = np.linspace(-8, 8, 24)
    stripes = (torch.arange(REGION_PX) // 4 % 2).float()
    along = stripes.expand(1, 3, REGION_PX, REGION_PX).contiguous()
    across = along.mT.contiguous()
    assert float(render(along, along, [Exposure(path)], SIZE_PX)[0].std()) < 0.05
    assert float(render(across, across, [Exposure(path)], SIZE_PX)[0].std()) > 0.49


@pytest.mark.parametrize(("read", "shot"), [(3 / 255, 0.0), (0.0, 3e-4), (2 / 255, 2e-4)])
def test_noise_has_the_variance_that_is_asked_for(read: float, shot: float) -> None:
    for level in (0.3, 0.7):
        flat = torch.full((1, 3, 256, 256), level)
        noisy = degrade(flat, [Degradation(read_noise=read, shot_noise=shot, noise_seed=5)])
        expected = read**2 + shot * level + 1 / 12 / 255**2  # the last of rounding
        assert float(noisy.var()) == pytest.approx(expected, rel=0.03)
        assert float(noisy.mean()) == pytest.approx(level, abs=1e-3)


def jpeg(pixels: NDArray[np.uint8], quality: int, *, subsampled: bool) -> NDArray[np.float64]:
    """Through Pillow's encoder and decoder."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=2 * subsampled)
    with Image.open(file) as image:
        return np.asarray(image, dtype=float)


def psnr_db(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(10 * np.log10(255**2 / np.mean((a - b) ** 2)))


@pytest.mark.parametrize("subsampled", [False, True])
@pytest.mark.parametrize("quality", [30, 70, 85, 95])
def test_jpeg_is_that_of_real_encoders(quality: int, subsampled: bool) -> None:
    pixels = data.astronaut()[100:260, 150:310]
    images = torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None].float() / 255
    degraded = degrade(images, [Degradation(jpeg_quality=quality, chroma_subsampled=subsampled)])
    ours = degraded[0].numpy().transpose(1, 2, 0).astype(float) * 255
    theirs = jpeg(pixels, quality, subsampled=subsampled)
    # The error is the same to a few per cent, and it is the same error.
    assert psnr_db(ours, pixels.astype(float)) == pytest.approx(
        psnr_db(theirs, pixels.astype(float)), abs=0.3
    )
    assert psnr_db(ours, theirs) > psnr_db(theirs, pixels.astype(float)) + 5


def test_quantisation_tables_are_those_of_the_standard() -> None:
    """The first rows of ITU-T T.81, Annex K.1."""
    luma, chroma = jpeg_constants(torch.device("cpu"))[2:4]
    assert luma[0].tolist() == [16, 11, 10, 16, 24, 40, 51, 61]
    assert chroma[0].tolist() == [17, 18, 24, 47, 99, 99, 99, 99]


@pytest.mark.parametrize("shape", [(17, 40), (16, 1), (33, 31)])
def test_jpeg_of_any_size(shape: tuple[int, int]) -> None:
    pixels = data.astronaut()[100 : 100 + shape[0], 150 : 150 + shape[1]]
    images = torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None].float() / 255
    degraded = degrade(images, [Degradation(jpeg_quality=90, chroma_subsampled=True)])
    assert degraded.shape == images.shape
    ours = degraded[0].numpy().transpose(1, 2, 0).astype(float) * 255
    assert psnr_db(ours, jpeg(pixels, 90, subsampled=True)) > 35


def test_degradations_do_not_depend_on_the_batch() -> None:
    images = torch.cat([scene(seed) for seed in range(4)])
    drawn = [draw_degradation(np.random.default_rng(seed), 0.7, 0.7) for seed in range(4)]
    assert {bool(d.jpeg_quality) for d in drawn} == {True, False}
    before = images.clone()
    together = degrade(images, drawn)
    torch.testing.assert_close(images, before)  # the input is untouched
    for n in range(4):
        alone = degrade(images[n : n + 1], drawn[n : n + 1])[0]
        torch.testing.assert_close(together[n], alone, atol=1e-6, rtol=0)


@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_degraded_pictures_are_8_bit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = torch.from_numpy(rng.random((1, 3, 16, 24), dtype=np.float32))
    values = degrade(images, [draw_degradation(rng, 0.5, 0.5)]) * 255
    assert float((values - values.round()).abs().max()) < 1e-3
    assert float(values.min()) >= 0.0
    assert float(values.max()) <= 255.0


def test_shares_of_noise_and_jpeg() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_degradation(rng, 0.3, 0.6) for _ in range(2000)]
    assert np.mean([d.shot_noise > 0 for d in drawn]) == pytest.approx(0.3, abs=0.04)
    assert np.mean([d.jpeg_quality > 0 for d in drawn]) == pytest.approx(0.6, abs=0.04)
    assert all(70 <= d.jpeg_quality < 99 for d in drawn if d.jpeg_quality)
    nothing = draw_degradation(rng, 0.0, 0.0)
    clean = scene()
    torch.testing.assert_close(degrade(clean, [nothing]), clean, atol=1e-6, rtol=0)
