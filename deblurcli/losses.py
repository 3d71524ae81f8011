"""What a training step minimises.

The paper: a content loss over all scales, 1/(2K) Σ_k ‖L_k − S_k‖² / (c_k w_k h_k), plus λ = 1e-4
times an adversarial loss on the finest scale (Nah et al., CVPR 2017, sections 3.3 and 3.4).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


def charbonnier(restored: Tensor, sharp: Tensor) -> Tensor:
    """Mean of √(difference² + ε²), ε = 1e-3: smooth at 0, linear further out."""
    return torch.sqrt((restored - sharp) ** 2 + 1e-6).mean()


def l1(restored: Tensor, sharp: Tensor) -> Tensor:
    return (restored - sharp).abs().mean()


def mse(restored: Tensor, sharp: Tensor) -> Tensor:
    """Half the mean squared difference, as the paper has it."""
    return 0.5 * ((restored - sharp) ** 2).mean()


def frequency(restored: Tensor, sharp: Tensor) -> Tensor:
    """Mean L1 distance of the orthonormal Fourier transforms."""
    difference = torch.fft.rfft2((restored - sharp).float(), norm="ortho")
    return torch.view_as_real(difference).abs().mean()


CONTENT_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "charbonnier": charbonnier,
    "l1": l1,
    "mse": mse,
}


def multi_scale_loss(
    restored: Sequence[Tensor], sharp: Sequence[Tensor], content: str, frequency_weight: float
) -> Tensor:
    """Mean over the scales of content and frequency loss.

    Args:
        restored, sharp: pyramids of the same number of levels and sizes, (N, 3, H, W) in [0, 1].
        content: a key of `CONTENT_LOSSES`.
        frequency_weight: 0 leaves the frequency loss out.
    """
    loss = CONTENT_LOSSES[content]
    total = restored[0].new_zeros(())
    for r, s in zip(restored, sharp, strict=True):
        total = total + loss(r.float(), s)
        if frequency_weight:
            total = total + frequency_weight * frequency(r, s)
    return total / len(restored)


class Discriminator(nn.Module):
    """Tells restored from sharp patches: strided convolutions and one logit per picture.

    Input (N, 3, H, W) in [0, 1]; output (N, 1) logits, high for "sharp". Layers as in the authors'
    own code (SeungjunNah/DeepDeblur_release, ``model.lua``): ten convolutions without biases, leaky
    ReLU with slope 0.2 after each, one value for 256×256 pixels. What is larger gives the mean
    over several; what fits no whole number of times is filled up with zeros on the way.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        incoming = 3
        for channels, stride in (
            (32, 1),
            (32, 2),
            (64, 1),
            (64, 2),
            (128, 1),
            (128, 4),
            (256, 1),
            (256, 4),
            (512, 1),
        ):
            convolution = nn.Conv2d(incoming, channels, 5, stride, padding=2, bias=False)
            layers += [convolution, nn.LeakyReLU(0.2)]
            incoming = channels
        self.features = nn.Sequential(*layers)
        self.summary = nn.Sequential(
            nn.Conv2d(incoming, incoming, 4, stride=4, bias=False), nn.LeakyReLU(0.2)
        )
        self.verdict = nn.Linear(incoming, 1, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        features = self.features(images - 0.5)
        height, width = features.shape[2:]
        whole = nn.functional.pad(features, (0, -width % 4, 0, -height % 4))
        verdict: Tensor = self.verdict(self.summary(whole).mean(dim=(2, 3)))
        return verdict
