"""How near a restored picture is to the sharp one, in the conventions of the published tables.

`psnr` needs NumPy only; the others need the extra ``eval`` (scikit-image, which brings SciPy), and
names that are not among `METRICS` are those of pyiqa (extra ``metrics``): LPIPS, NIQE and more.

Three conventions of SSIM are in use for the same data sets, and they differ by several
hundredths (docs/benchmarks.md), so each has its own name here: `ssim`, `ssim_matlab_rgb`, `mssim`.
All take ``(H, W, 3) uint8`` sRGB arrays of one size and leave them untouched.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from deblurcli.errors import UsageError, not_installed
from deblurcli.io.image import Image

SSIM_MIN_PX = 11  # what both sides of a picture must have for SSIM


@dataclass(frozen=True)
class Column:
    """A column of the tables."""

    name: str  # in JSON and CSV
    title: str
    form: str  # how numbers are written
    higher_is_better: bool | None  # None where neither is


@dataclass(frozen=True)
class Metric(Column):
    """A figure of a restored picture; its name is also that for ``--metrics``."""

    convention: str  # what exactly it is
    measure: Callable[[Image, Image], float]  # restored, sharp; some need no reference
    min_px: int = 1  # what both sides of a picture must have


def psnr(restored: Image, sharp: Image) -> float:
    """Peak signal-to-noise ratio in dB over all pixels and channels; inf where they are equal.
    Raises ValueError where the arrays are not uint8 RGB of one size."""
    shapes, dtypes = {restored.shape, sharp.shape}, {restored.dtype, sharp.dtype}
    if len(shapes) > 1 or restored.shape[2:] != (3,) or dtypes != {np.dtype(np.uint8)}:
        raise ValueError(f"(H, W, 3) uint8 of one size wanted, not {shapes} of {dtypes}")
    difference = restored.astype(np.float64) - sharp
    return decibels(float(np.mean(np.square(difference))))


def decibels(squared_error: float) -> float:
    """The PSNR in dB of a mean squared error in levels of 255."""
    return math.inf if squared_error == 0 else 10 * math.log10(255**2 / squared_error)


def ssim(restored: Image, sharp: Image) -> float:
    """Structural similarity (Wang et al., IEEE TIP 2004) per channel, then the mean, as
    DeepDeblur-PyTorch gives it. Only windows wholly inside the picture count."""
    from skimage.metrics import structural_similarity

    similarity = structural_similarity(  # type: ignore[no-untyped-call]
        restored,
        sharp,
        channel_axis=2,
        gaussian_weights=True,
        use_sample_covariance=False,
        data_range=255,
    )
    return float(similarity)


def ssim_matlab_rgb(restored: Image, sharp: Image) -> float:
    """MATLAB's ``ssim(restored, sharp)`` on RGB arrays, which it takes for volumes.

    The 11x11x11 Gaussian reaches over the channel axis as well, edges repeat the outermost
    pixel and channel, and every position counts. Not a sensible measure, but the one of the
    2017 paper (so its author: SeungjunNah/DeepDeblur_release, issue 51) and of many since.
    """
    luminance, contrast, structure = _compare(restored.astype(np.float64), sharp.astype(np.float64))
    return float(np.mean(luminance * contrast * structure))


def mssim(restored: NDArray[np.float64], sharp: NDArray[np.float64]) -> float:
    """The multi-scale SSIM of Köhler's benchmark, of grey ``(H, W)`` pictures in [0, 255].

    Wang, Simoncelli, Bovik: "Multi-scale structural similarity for image quality assessment"
    (2003) in the variant of MeTriX MuX 1.1: five scales, between them the low-pass of the
    biorthogonal 9/7 wavelet, and the means of contrast and structure taken apart at each. Raises
    ValueError for a side below `MSSIM_MIN_PX`, where the coarsest scale has no window.
    """
    from scipy import ndimage

    if min(restored.shape) < MSSIM_MIN_PX:
        raise ValueError(f"{MSSIM_MIN_PX} px a side wanted, not {restored.shape}")
    result: float = 1.0
    for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        if scale:
            for axis in (0, 1):
                restored, sharp = (
                    ndimage.correlate1d(image, _LOW_PASS, axis, mode="reflect")
                    for image in (restored, sharp)
                )
            restored, sharp = restored[::2, ::2], sharp[::2, ::2]
        inside = (slice(_RADIUS_PX, -_RADIUS_PX),) * 2  # windows wholly inside only
        luminance, contrast, structure = (part[inside].mean() for part in _compare(restored, sharp))
        result *= abs(contrast * structure) ** weight
    return float(result * luminance**weight)


def sharpness(image: Image) -> float:
    """A measure of sharpness that needs no reference, from 0 (blurred) to 1 (sharp).

    One minus the blur effect of Crété, Dolmière, Ladret and Nicolas: "The blur effect:
    perception and estimation with a new no-reference perceptual blur metric" (SPIE 2007): how
    much of the picture's detail a further blur takes away. It rewards noise and halos too, so it
    is a hint beside the other figures and never a score of its own.
    """
    from skimage.measure import blur_effect

    if not np.ptp(image, axis=(0, 1)).any():
        return 0.0  # flat: scikit-image 0.25 divides by 0
    effect = blur_effect(image, h_size=11, channel_axis=2)  # type: ignore[no-untyped-call]
    return 1 - float(effect)


METRICS = {metric.name: metric for metric in (
    Metric(
        "psnr_db", "PSNR dB", ".2f", True,
        "PSNR: RGB, 8-bit rounded output, mean of per-image values",
        psnr,
    ),
    Metric(
        "ssim", "SSIM", ".4f", True,
        "SSIM: Gaussian weights sigma 1.5, 11x11, no sample covariance, mean over RGB channels "
        "(scikit-image; DeepDeblur-PyTorch)",
        ssim,
        SSIM_MIN_PX,
    ),
    Metric(
        "ssim_matlab_rgb", "SSIM (MATLAB RGB)", ".4f", True,
        "SSIM (MATLAB RGB): MATLAB's ssim on the RGB array as a volume (the 2017 paper's table)",
        ssim_matlab_rgb,
    ),
    Metric(
        "sharpness", "Sharpness", ".3f", None,
        "Sharpness: 1 - blur effect (Crété 2007), without a reference: noise and halos raise it, "
        "too",
        lambda restored, _: sharpness(restored),
        4,
    ),
)}  # fmt: skip
"""Those of our own; the first is measured always."""


def has_scikit_image() -> bool:
    """Whether the metrics beside PSNR can be measured here."""
    return find_spec("skimage") is not None


def find_metrics(names: Sequence[str] | None = None) -> list[Metric]:
    """PSNR and the metrics of these names, ours or any that pyiqa has; None takes all of ours that
    can be measured here. Raises UsageError for an unknown name, or one that needs an extra."""
    if names is None:
        names = list(METRICS) if has_scikit_image() else []
    found = {"psnr_db": METRICS["psnr_db"]}
    for name in names:
        if name in ("", "psnr", "psnr_db"):
            continue
        if name in METRICS and not has_scikit_image():
            raise not_installed(f"--metrics {name}", "scikit-image", "eval")
        found[name] = METRICS.get(name) or load_pyiqa_metric(name)
    return list(found.values())


@cache
def load_pyiqa_metric(name: str) -> Metric:
    if find_spec("pyiqa") is None:
        raise not_installed(f"--metrics {name}", "pyiqa", "metrics")
    import torch

    try:
        import pyiqa

        known = name in pyiqa.list_models()
        device = "cuda" if torch.cuda.is_available() else "cpu"
        network = pyiqa.create_metric(name, device=device) if known else None
    except Exception as error:  # it imports much, and downloads parameters, in many ways
        detail = str(error).partition("\n")[0] or type(error).__name__
        remedy = "check its installation or the network"
        raise UsageError(f"--metrics {name}", f"pyiqa can't load it ({detail})", remedy) from error
    if network is None:
        remedy = "give one of pyiqa.list_models()"
        raise UsageError(f"--metrics {name}", "pyiqa has no such metric", remedy)

    def measure(restored: Image, sharp: Image) -> float:
        images = [
            torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float() / 255
            for image in (restored, sharp)
        ]
        with torch.inference_mode():
            return float(network(*images[: 1 if network.metric_mode == "NR" else 2]))

    convention = f"{name}: pyiqa {pyiqa.__version__}, with its default settings"
    return Metric(name, name.upper(), ".4f", not network.lower_better, convention, measure)


MSSIM_MIN_PX = 11 * 2**4
_RADIUS_PX = 5  # 11x11 window
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
# Analysis low-pass of the biorthogonal 9/7 wavelet, sum 1.
_HALF = (0.377402855612830, -0.110624404418440, -0.023849465019560, 0.037828455507260)
_LOW_PASS = np.array([*_HALF[::-1], 0.852698679008890, *_HALF])
_LOW_PASS /= _LOW_PASS.sum()


def _compare(a: NDArray[np.float64], b: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """SSIM's luminance, contrast and structure in Gaussian windows, each of the arrays' shape."""
    from scipy import ndimage

    def smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(ndimage.gaussian_filter(values, 1.5, mode="nearest", radius=_RADIUS_PX))

    mean_a, mean_b = smooth(a), smooth(b)
    variance_a = np.maximum(smooth(a * a) - mean_a**2, 0)
    variance_b = np.maximum(smooth(b * b) - mean_b**2, 0)
    covariance, deviations = smooth(a * b) - mean_a * mean_b, np.sqrt(variance_a * variance_b)
    return [
        (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1),
        (2 * deviations + _C2) / (variance_a + variance_b + _C2),
        (covariance + _C2 / 2) / (deviations + _C2 / 2),
    ]
