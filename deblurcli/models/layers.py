"""What the networks share."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F  # noqa: N812  (the field's name for it)
from torch import Tensor, nn


def without_autocast(device: str) -> AbstractContextManager[object]:
    """Computes as the operands' dtypes say, on devices of this type."""
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
