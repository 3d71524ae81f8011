"""The blocks that the networks are built of."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F  # noqa: N812  (the field's name for it)
from torch import Tensor, nn


def without_autocast(tensor: Tensor) -> AbstractContextManager[object]:
    """Computes as the operands' dtypes say, on the device of `tensor`."""
    device = tensor.device.type
    if torch.amp.is_autocast_available(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()


class ResidualBlock(nn.Module):
    """conv, ReLU, conv, add; no normalisation and no ReLU after the sum (the paper, Fig. 2)."""

    def __init__(self, channels: int, kernel_px: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, kernel_px, padding=kernel_px // 2)
        self.conv2 = nn.Conv2d(channels, channels, kernel_px, padding=kernel_px // 2)

    def forward(self, features: Tensor) -> Tensor:
        change: Tensor = self.conv2(F.relu(self.conv1(features), inplace=True))
        return change.add_(features)


class GatedBlock(nn.Module):
    """Normalise, conv to twice the features, multiply the halves, 1×1 conv, add.

    The gate of NAFNet (Chen et al., ECCV 2022, arXiv 2204.04676) with one dense convolution in
    place of its depthwise pair: on CPUs dense ones compute several times faster.
    """

    def __init__(self, channels: int, kernel_px: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.conv1 = nn.Conv2d(channels, 2 * channels, kernel_px, padding=kernel_px // 2)
        self.conv2 = nn.Conv2d(channels, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        # Over the features of each pixel; in channels-last memory nothing is moved.
        normalised = self.norm(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        values, gates = self.conv1(normalised).chunk(2, dim=1)
        change: Tensor = self.conv2(values * gates)
        return change.add_(features)
