"""The metrics against scikit-image and SciPy, and what they must do by their meaning."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage import data, measure
from skimage import metrics as reference

from deblurcli.evaluation import metrics


@pytest.fixture(scope="module")
def sharp() -> np.ndarray:
    return np.ascontiguousarray(data.astronaut()[40:295, 30:331])


def blurred(image: np.ndarray, sigma_px: float = 2.0) -> np.ndarray:
    smooth = ndimage.gaussian_filter(image.astype(float), (sigma_px, sigma_px, 0))
    return np.rint(smooth).astype(np.uint8)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(11, 150),
    width=st.integers(11, 150),
    noise=st.floats(0.5, 80),
)
def test_psnr_and_ssim_equal_scikit_image(seed: int, height: int, width: int, noise: float) -> None:
    random = np.random.default_rng(seed)
    a = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    b = np.clip(np.rint(a + random.normal(0, noise, a.shape)), 0, 255).astype(np.uint8)
    b[0, 0] = 255 - a[0, 0] // 2  # never equal
    psnr = reference.peak_signal_noise_ratio(b, a, data_range=255)
    ssim = reference.structural_similarity(
        a, b, channel_axis=2, gaussian_weights=True, use_sample_covariance=False, data_range=255
    )
    assert metrics.psnr(a, b) == pytest.approx(psnr, abs=1e-6)
    assert metrics.ssim(a, b) == pytest.approx(ssim, abs=1e-6)


def test_luminance_ssim_equals_scikit_image_on_matlabs_grey(sharp: np.ndarray) -> None:
    def grey(image: np.ndarray) -> np.ndarray:
        return np.floor(image @ np.array([0.2989, 0.5870, 0.1140]) + 0.5).astype(np.uint8)

    soft = blurred(sharp)
    wanted = reference.structural_similarity(
        grey(soft), grey(sharp), gaussian_weights=True, use_sample_covariance=False
    )
    assert metrics.ssim_luminance(soft, sharp) == pytest.approx(wanted, abs=1e-6)


def test_matlab_rgb_ssim_equals_a_volume_smoothed_by_scipy(sharp: np.ndarray) -> None:
    """MATLAB's documented steps for an m x n x 3 array, written with SciPy's 3-D filter."""

    def smooth(volume: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(volume, 1.5, mode="nearest", radius=5)

    soft = blurred(sharp)
    a, b = soft.astype(float), sharp.astype(float)
    mean_a, mean_b = smooth(a), smooth(b)
    variance_a, variance_b = smooth(a * a) - mean_a**2, smooth(b * b) - mean_b**2
    covariance = smooth(a * b) - mean_a * mean_b
    c1, c2 = 2.55**2, 7.65**2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * covariance + c2) / (variance_a + variance_b + c2)
    wanted = float(np.mean(luminance * structure))
    assert metrics.ssim_matlab_rgb(soft, sharp) == pytest.approx(wanted, abs=1e-6)
    # The three conventions are three numbers: confusing them must show.
    assert abs(wanted - metrics.ssim(soft, sharp)) > 1e-3


def test_sharpness_equals_scikit_images_blur_effect_and_falls_with_blur(
    sharp: np.ndarray,
) -> None:
    series = [sharp, blurred(sharp, 1), blurred(sharp, 2), blurred(sharp, 4)]
    for image in series:
        wanted = 1 - measure.blur_effect(image, h_size=11, channel_axis=2)
        assert metrics.sharpness(image) == pytest.approx(wanted, abs=1e-6)
    figures = [metrics.sharpness(image) for image in series]
    assert figures == sorted(figures, reverse=True)
    assert metrics.sharpness(np.full((20, 30, 3), 9, np.uint8)) == 0


def test_equal_pictures_are_infinitely_near_and_one_level_is_48_db(sharp: np.ndarray) -> None:
    assert metrics.psnr(sharp, sharp) == math.inf
    assert metrics.ssim(sharp, sharp) == pytest.approx(1)
    assert metrics.ssim_matlab_rgb(sharp, sharp) == pytest.approx(1)
    one_off = np.where(sharp < 255, sharp + 1, sharp - 1).astype(np.uint8)
    assert metrics.psnr(one_off, sharp) == pytest.approx(48.1308, abs=1e-3)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (np.zeros((16, 16, 3), np.uint8), np.zeros((16, 17, 3), np.uint8)),
        (np.zeros((16, 16, 3), np.float32), np.zeros((16, 16, 3), np.float32)),
        (np.zeros((16, 16), np.uint8), np.zeros((16, 16), np.uint8)),
        (np.zeros((10, 16, 3), np.uint8), np.zeros((10, 16, 3), np.uint8)),
    ],
)
def test_other_arrays_are_refused(a: np.ndarray, b: np.ndarray) -> None:
    with pytest.raises(ValueError, match="wanted"):
        metrics.ssim(a, b)
