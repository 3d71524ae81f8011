"""Losses against their formulas; the discriminator against the authors' own layers."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from deblurcli.models.discriminator import Discriminator
from deblurcli.training.losses import multi_scale_loss


def test_content_loss_is_the_papers_formula() -> None:
    rng = np.random.default_rng(0)
    levels = [
        [rng.random((2, 3, side, side)).astype(np.float32) for side in (16, 8, 4)] for _ in range(2)
    ]
    # 1/(2K) Σ_k ‖L_k − S_k‖² / (c_k w_k h_k), the mean over the batch
    expected = sum(((a - b) ** 2).sum() / (a[0].size * 2) for a, b in zip(*levels, strict=True)) / 6
    tensors = ([torch.from_numpy(level) for level in pyramid] for pyramid in levels)
    assert float(multi_scale_loss(*tensors, "mse", 0.0)) == pytest.approx(float(expected), rel=1e-5)


def test_frequency_loss_is_the_mean_distance_of_fourier_transforms() -> None:
    rng = np.random.default_rng(0)
    restored, sharp = (rng.random((1, 3, 8, 8)).astype(np.float32) for _ in range(2))
    difference = np.fft.rfft2(restored - sharp, norm="ortho")
    expected = (np.abs(difference.real) + np.abs(difference.imag)).mean() / 2
    levels = ([torch.from_numpy(restored)], [torch.from_numpy(sharp)])
    both = multi_scale_loss(*levels, "l1", 0.5) - multi_scale_loss(*levels, "l1", 0.0)
    assert float(both) == pytest.approx(0.5 * float(expected), rel=1e-4)


def test_discriminator_has_the_authors_layers() -> None:
    judge = Discriminator()
    widths = [3, 32, 32, 64, 64, 128, 128, 256, 256, 512]
    kernels = sum(25 * a * b for a, b in pairwise(widths))
    assert sum(p.numel() for p in judge.parameters()) == kernels + 16 * 512 * 512 + 512
    # One value for 256 pixels, which every one of its pixels has a part in.
    pixels = torch.rand(1, 3, 256, 256, requires_grad=True)
    judge(pixels).sum().backward()
    assert pixels.grad is not None and bool((pixels.grad != 0).all())


@pytest.mark.parametrize("size", [(8, 8), (64, 48), (300, 256)])
def test_discriminator_takes_any_size(size: tuple[int, int]) -> None:
    assert Discriminator()(torch.rand(2, 3, *size)).shape == (2, 1)
