"""What is promised of the weights that the project ships: bf16 and tiles do them no harm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from skimage import data

from deblurcli import Deblurrer
from deblurcli.evaluation.metrics import psnr

WEIGHTS = Path(__file__).parents[2] / "weights" / "compact.safetensors"

pytestmark = pytest.mark.skipif(
    not WEIGHTS.is_file(), reason="the default weights are not in this checkout"
)


@pytest.fixture(scope="module")
def blurred() -> np.ndarray:
    """A picture that comes with scikit-image, as if the camera had moved 11 px while exposing."""
    sharp = data.astronaut().astype(np.float32)
    steps = [np.roll(sharp, (step // 2, step), (0, 1)) for step in range(-5, 6)]
    return np.mean(steps, axis=0).round().astype(np.uint8)


@pytest.fixture(scope="module")
def restored(blurred: np.ndarray) -> np.ndarray:
    return Deblurrer.load(WEIGHTS, device="cpu", precision="fp32", tile=0).restore(blurred)


def test_they_restore_something(blurred: np.ndarray, restored: np.ndarray) -> None:
    sharp = data.astronaut()
    inner = slice(16, -16)  # np.roll carries the picture round its edges
    gain = psnr(restored[inner, inner], sharp[inner, inner]) - psnr(
        blurred[inner, inner], sharp[inner, inner]
    )
    assert gain > 0.5


def test_bf16_stays_within_the_stated_distance_of_fp32(
    blurred: np.ndarray, restored: np.ndarray
) -> None:
    rough = Deblurrer.load(WEIGHTS, device="cpu", precision="bf16", tile=0).restore(blurred)
    assert np.abs(rough.astype(int) - restored).mean() <= 0.25
    assert psnr(rough, restored) >= 50


def test_tiles_leave_no_seam(blurred: np.ndarray, restored: np.ndarray) -> None:
    """Tiles far smaller than any that are chosen unasked, so that there are many seams."""
    deblurrer = Deblurrer.load(WEIGHTS, device="cpu", precision="fp32", tile=384)
    difference = np.abs(deblurrer.restore(blurred).astype(int) - restored)
    assert difference.mean() < 0.1  # a tenth of the step that was promised
    assert np.quantile(difference, 0.999) <= 6
    assert difference.max() <= 16  # single pixels of strong blur
