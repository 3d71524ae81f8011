"""The metrics against scikit-image and SciPy, and what they must do by their meaning."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage, signal
from skimage import data
from skimage import metrics as reference

from deblurcli.errors import UsageError
from deblurcli.evaluation import metrics


@pytest.fixture(scope="module")
def sharp() -> np.ndarray:
    return np.ascontiguousarray(data.astronaut()[40:295, 30:331])


def blurred(image: np.ndarray, sigma_px: float = 2.0) -> np.ndarray:
    smooth = ndimage.gaussian_filter(image.astype(float), (sigma_px, sigma_px, 0))
    return np.rint(smooth).astype(np.uint8)


def test_psnr_equals_scikit_image_and_ssim_wangs_definition(sharp: np.ndarray) -> None:
    soft = blurred(sharp)
    wanted = reference.peak_signal_noise_ratio(sharp, soft, data_range=255)
    assert metrics.psnr(soft, sharp) == pytest.approx(wanted, abs=1e-9)
    x = np.arange(-5, 6)
    window = np.exp(-(x[:, None] ** 2 + x**2) / 4.5)
    window /= window.sum()
    means = []
    for a, b in zip(np.moveaxis(soft, 2, 0) * 1.0, np.moveaxis(sharp, 2, 0) * 1.0, strict=True):
        smooth = [signal.convolve2d(v, window, mode="valid") for v in (a, b, a * a, b * b, a * b)]
        mean_a, mean_b = smooth[:2]
        va, vb, covariance = (
            smooth[2] - mean_a**2,
            smooth[3] - mean_b**2,
            smooth[4] - mean_a * mean_b,
        )
        c1, c2 = 2.55**2, 7.65**2
        numerator = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
        means.append((numerator / ((mean_a**2 + mean_b**2 + c1) * (va + vb + c2))).mean())
    assert metrics.ssim(soft, sharp) == pytest.approx(np.mean(means), abs=1e-6)


def test_matlab_rgb_ssim_by_its_documented_steps(sharp: np.ndarray) -> None:
    """MATLAB's steps for an m x n x 3 array, the 11x11x11 window as one sum in PyTorch."""
    distance = torch.arange(-5, 6, dtype=torch.float64)
    line = torch.exp(-(distance**2) / (2 * 1.5**2))
    window = line[:, None, None] * line[:, None] * line
    window /= window.sum()

    def smooth(volume: torch.Tensor) -> torch.Tensor:
        padded = torch.nn.functional.pad(volume[None, None], (5,) * 6, mode="replicate")
        return torch.nn.functional.conv3d(padded, window[None, None])[0, 0]

    small = sharp[:60, :70]
    soft = blurred(small)
    a, b = (torch.from_numpy(image.astype(float)) for image in (soft, small))
    mean_a, mean_b = smooth(a), smooth(b)
    variance_a, variance_b = smooth(a * a) - mean_a**2, smooth(b * b) - mean_b**2
    covariance = smooth(a * b) - mean_a * mean_b
    c1, c2 = 2.55**2, 7.65**2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * covariance + c2) / (variance_a + variance_b + c2)
    wanted = float((luminance * structure).mean())
    assert metrics.ssim_matlab_rgb(soft, small) == pytest.approx(wanted, abs=1e-6)
    # The conventions are different numbers: confusing them must show.
    assert abs(wanted - metrics.ssim(soft, small)) > 1e-3


def test_mssim_by_its_definition(sharp: np.ndarray) -> None:
    """Written anew with plain 2-D windows; the product of contrasts, structures, luminance."""
    grey = np.array([0.299, 0.587, 0.114])
    a, b = sharp @ grey, blurred(sharp) @ grey
    x = np.arange(-5, 6)
    window = np.exp(-(x[:, None] ** 2 + x**2) / 4.5)
    window /= window.sum()
    wavelet = np.array([0.0378284555, -0.0238494650, -0.1106244044, 0.3774028556, 0.8526986790])
    wavelet = np.concatenate([wavelet, wavelet[-2::-1]])
    low_pass = np.outer(wavelet, wavelet) / wavelet.sum() ** 2

    def smooth(image: np.ndarray) -> np.ndarray:
        return np.asarray(signal.convolve2d(image, window, mode="valid"))

    wanted, c1, c2 = 1.0, 2.55**2, 7.65**2
    for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        if scale:
            a, b = (
                signal.convolve2d(image, low_pass, mode="same", boundary="symm")[::2, ::2]
                for image in (a, b)
            )
        mean_a, mean_b = smooth(a), smooth(b)
        va, vb = smooth(a * a) - mean_a**2, smooth(b * b) - mean_b**2
        root = np.sqrt(np.maximum(va, 0)) * np.sqrt(np.maximum(vb, 0))
        contrast = ((2 * root + c2) / (va + vb + c2)).mean()
        structure = ((smooth(a * b) - mean_a * mean_b + c2 / 2) / (root + c2 / 2)).mean()
        wanted *= (contrast * structure) ** weight
    luminance = ((2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)).mean()
    wanted *= luminance**0.1333
    assert 0.5 < wanted < 0.99
    found = metrics.mssim(sharp @ grey, blurred(sharp) @ grey)
    assert found == pytest.approx(wanted, abs=1e-5)
    assert metrics.mssim(sharp @ grey, sharp @ grey) == pytest.approx(1)
    with pytest.raises(ValueError, match="176 px"):
        metrics.mssim(np.zeros((175, 300)), np.zeros((175, 300)))


def test_sharpness_falls_with_blur(sharp: np.ndarray) -> None:
    series = [sharp, blurred(sharp, 1), blurred(sharp, 2), blurred(sharp, 4)]
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
    ],
)
def test_other_arrays_are_refused(a: np.ndarray, b: np.ndarray) -> None:
    with pytest.raises(ValueError, match="wanted"):
        metrics.psnr(a, b)


def test_without_the_extra_there_is_psnr_and_one_line_for_ssim(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics, "find_spec", lambda name: None)
    assert [metric.name for metric in metrics.find_metrics()] == ["psnr_db"]
    assert [metric.name for metric in metrics.find_metrics(["psnr"])] == ["psnr_db"]
    with pytest.raises(UsageError, match=r"--metrics ssim: needs .*scikit-image; pip install"):
        metrics.find_metrics(["ssim"])
    with pytest.raises(UsageError, match=r"--metrics niqe: needs .*pyiqa; pip install"):
        metrics.find_metrics(["niqe"])


class FakePyiqa:
    """What is used of pyiqa: names, whether they need a reference, and lower_better."""

    __version__ = "0.1"

    def list_models(self) -> list[str]:
        return ["lpips", "niqe", "broken"]

    def create_metric(self, name: str, device: str) -> Any:
        if name == "broken":
            raise OSError("no network\nfurther lines")

        def network(*images: torch.Tensor) -> torch.Tensor:
            assert len(images) == (2 if name == "lpips" else 1)
            assert images[0].shape == (1, 3, 20, 30)
            return images[0].mean() - (images[1].mean() if len(images) > 1 else 0)

        network.metric_mode = "FR" if name == "lpips" else "NR"  # type: ignore[attr-defined]
        network.lower_better = True  # type: ignore[attr-defined]
        return network


def test_metrics_of_pyiqa_get_what_they_expect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "find_spec", lambda name: name)
    monkeypatch.setitem(sys.modules, "pyiqa", FakePyiqa())
    metrics.load_pyiqa_metric.cache_clear()
    first, lpips, niqe = metrics.find_metrics(["lpips", "niqe"])
    assert (first.name, lpips.title, niqe.title) == ("psnr_db", "LPIPS", "NIQE")
    assert lpips.higher_is_better is False
    light, dark = (np.full((20, 30, 3), level, np.uint8) for level in (255, 51))
    assert lpips.measure(light, dark) == pytest.approx(0.8)
    assert niqe.measure(dark, light) == pytest.approx(0.2)
    with pytest.raises(UsageError, match="nonsense: pyiqa has no such metric"):
        metrics.find_metrics(["nonsense"])
    with pytest.raises(UsageError, match=r"broken: pyiqa can't load it \(no network\)"):
        metrics.find_metrics(["broken"])
