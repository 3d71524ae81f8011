"""What a training step minimises.

The paper: a content loss over all scales, 1/(2K) Σ_k ‖L_k − S_k‖² / (c_k w_k h_k), plus λ = 1e-4
times an adversarial loss on the finest scale (Nah et al., CVPR 2017, sections 3.3 and 3.4).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def charbonnier(restored: Tensor, sharp: Tensor) -> Tensor:
    """Mean of √(difference² + ε²), ε = 1e-3: smooth at 0, linear further out."""
    return torch.sqrt((restored - sharp) ** 2 + 1e-6).mean()


def l1(restored: Tensor, sharp: Tensor) -> Tensor:
    return (restored - sharp).abs().mean()


def mse(restored: Tensor, sharp: Tensor) -> Tensor:
    """Half the mean squared difference, as the paper has it."""
    return 0.5 * ((restored - sharp) ** 2).mean()


def fft_l1(restored: Tensor, sharp: Tensor) -> Tensor:
    """Mean L1 distance of the orthonormal Fourier transforms."""
    difference = torch.fft.rfft2((restored - sharp).float(), norm="ortho")
    return torch.view_as_real(difference).abs().mean()


CONTENT_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "charbonnier": charbonnier,
    "l1": l1,
    "mse": mse,
}


def multi_scale_loss(
    restored: Sequence[Tensor], sharp: Sequence[Tensor], content: str, fft_weight: float
) -> Tensor:
    """Mean over the scales of content and Fourier loss.

    Args:
        restored, sharp: pyramids of the same number of levels and sizes, (N, 3, H, W) in [0, 1].
        content: a key of `CONTENT_LOSSES`.
        fft_weight: of the distance of the Fourier transforms; 0 leaves it out.
    """
    loss = CONTENT_LOSSES[content]
    total = restored[0].new_zeros(())
    for r, s in zip(restored, sharp, strict=True):
        total = total + loss(r.float(), s)
        if fft_weight:
            total = total + fft_weight * fft_l1(r, s)
    return total / len(restored)
