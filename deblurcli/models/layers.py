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


class Int8GatedBlock(nn.Module):
    """A `GatedBlock` whose 3×3 convolution is computed in eight bits, with oneDNN's kernels.

    Norm, gate, 1×1 convolution and sum stay as they were. The features' range needs no
    calibration pictures: a normalised feature hardly leaves four standard deviations, and those
    that do are clipped. Range is moved between each feature and its weights, so that both round
    about equally well (SmoothQuant, arXiv 2211.10438).
    """

    def __init__(self, block: GatedBlock) -> None:
        super().__init__()
        norm, conv = block.norm, block.conv1
        weight, ranges = conv.weight.detach(), 4 * norm.weight.abs() + norm.bias.abs()
        balance = (
            ranges.clamp(min=1e-6) ** 0.75 / weight.abs().amax((0, 2, 3)).clamp(min=1e-6) ** 0.25
        )
        self.scale = float((ranges / balance).max()) / 127
        # What the norm gives is then a value of 0 to 255 and a half, for the rounding.
        self.norm_weight = norm.weight.detach() / balance / self.scale
        self.norm_bias = norm.bias.detach() / balance / self.scale + 128.5
        weight = weight * balance[:, None, None]
        self.scales = weight.abs().amax((1, 2, 3)).clamp(min=1e-12) / 127
        rounded = (weight / self.scales[:, None, None, None]).round().to(torch.int8)
        self.layout = (conv.stride, conv.padding, conv.dilation, conv.groups)
        self.weight = torch.ops.onednn.qconv_prepack(
            rounded, self.scales, self.scale, 128, *self.layout, None
        )
        self.zeros, self.bias = torch.zeros(len(rounded), dtype=torch.int32), conv.bias
        self.eps, self.conv2 = norm.eps, block.conv2

    def forward(self, features: Tensor) -> Tensor:
        pixels = features.permute(0, 2, 3, 1).float()
        norm = (self.norm_weight, self.norm_bias, self.eps)
        normalised = F.layer_norm(pixels, pixels.shape[-1:], *norm).clamp_(0, 255)
        values, gates = torch.ops.onednn.qconv2d_pointwise(
            *(normalised.to(torch.uint8).permute(0, 3, 1, 2), self.scale, 128),
            *(self.weight, self.scales, self.zeros, self.bias, *self.layout),
            *(1.0, 0, features.dtype, "none", [], ""),
        ).chunk(2, dim=1)
        change: Tensor = self.conv2(values * gates)
        return change.add_(features)
