"""The compact network for CPUs: a small U-Net of 3×3 convolutions at each level."""

from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812  (the field's name for it)
from torch import Tensor, nn

from deblurcli.models.config import GeneratorConfig
from deblurcli.models.network import ResidualBlock


def compact_config(
    channels: tuple[int, ...] = (48, 96, 128, 128),
    scales: int = 3,
    unshuffle: int = 2,
    block: Literal["residual", "gated"] = "gated",
) -> GeneratorConfig:
    """The default network: small U-Nets, coarse to fine; only the finest has over three depths."""
    n = len(channels)
    blocks = ((1,) * min(n - 1, 2) + (3,) + (4,) * (n - 3), (2,) * (n - 1))
    depths = (n,) + (3,) * (scales - 1) if n > 3 else ()
    return GeneratorConfig("unet", scales, channels, *blocks, 3, unshuffle, block, depths=depths)


class GatedBlock(nn.Module):
    """Normalise, conv to twice the features, multiply the halves, 1×1 conv, add: the gate of NAFNet
    (Chen et al., ECCV 2022, arXiv 2204.04676) with one dense convolution in place of its depthwise
    pair, because on CPUs dense ones compute several times faster."""

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
        weight, ranges = conv.weight.detach(), (4 * norm.weight.abs() + norm.bias.abs()).detach()
        largest = weight.abs().amax((0, 2, 3)).clamp(min=1e-6)
        balance = ranges.clamp(min=1e-6) ** 0.75 / largest**0.25
        self.scale = float((ranges / balance).max()) / 127
        self.norm_weight = norm.weight.detach() / balance / self.scale
        self.norm_bias = norm.bias.detach() / balance / self.scale
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
        pixels, norm = features.permute(0, 2, 3, 1).float(), (self.norm_weight, self.norm_bias)
        levels = F.layer_norm(pixels, pixels.shape[-1:], *norm, self.eps).round_().clamp_(-128, 127)
        # The kernels take 0 to 255, but conversion to int8 is nine times as fast as to uint8.
        shifted = levels.to(torch.int8).view(torch.uint8).add_(128)
        values, gates = torch.ops.onednn.qconv2d_pointwise(
            *(shifted.permute(0, 3, 1, 2), self.scale, 128),
            *(self.weight, self.scales, self.zeros, self.bias, *self.layout),
            *(1.0, 0, features.dtype, "none", [], ""),
        ).chunk(2, dim=1)
        change: Tensor = self.conv2(values * gates)
        return change.add_(features)


class UNetLevel(nn.Module):
    """One level of the compact network: a U-Net that predicts the change to its input. It hands its
    last features, which hold more than the image, to the next finer level."""

    pads_mirrored = True  # up to 31 px are added: better picture than streaks

    def __init__(self, config: GeneratorConfig, level: int) -> None:
        super().__init__()
        coarsest = level == config.scales - 1
        depths = config.depths[level] if config.depths else len(config.channels)
        channels, k = config.channels[:depths], config.kernel_px
        block = GatedBlock if config.block == "gated" else ResidualBlock
        self.unshuffle = config.unshuffle
        self.alignment_px: int = config.unshuffle * 2 ** (depths - 1)
        pixels = 3 * config.unshuffle**2
        first, pad = channels[0], k // 2
        self.from_coarser = None if coarsest else nn.Conv2d(first, 4 * first, k, padding=pad)
        self.head = nn.Conv2d(pixels if coarsest else pixels + first, first, k, padding=pad)

        def blocks(counts: tuple[int, ...]) -> nn.ModuleList:
            each = zip(channels, counts, strict=False)
            return nn.ModuleList(nn.Sequential(*(block(c, k) for _ in range(n))) for c, n in each)

        self.encoders = blocks(config.encoder_blocks)
        self.downs = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairwise(channels))
        self.ups = nn.ModuleList(nn.Conv2d(b, 4 * a, 1) for a, b in pairwise(channels))
        self.decoders = blocks(config.decoder_blocks[: depths - 1])
        self.tail = nn.Conv2d(first, pixels, k, padding=pad)
        # On the meta device a file will bring the values; and drawing random numbers there makes
        # PyTorch import its compiler and SymPy, which takes a second or two.
        if self.tail.weight.is_meta:
            return
        # Without normalisation layers the sizes of the features have to be right from the
        # start. PyTorch's default hardly learns here in the first thousand steps, and neither
        # does a gain of √2 everywhere: it grows over the levels until the first steps break all.
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, ResidualBlock):
                nn.init.kaiming_normal_(module.conv1.weight, nonlinearity="relu")
            if isinstance(module, (ResidualBlock, GatedBlock)):
                module.conv2.weight.data.mul_(0.1)
        for sum_of_two in (*self.ups, self.from_coarser):
            if sum_of_two is not None:
                sum_of_two.weight.data.mul_(0.5)
        # At first the output is nearly the input, which is a good guess already.
        self.tail.weight.data.mul_(0.05)

    def forward(self, blurred: Tensor, coarser: Tensor | None) -> tuple[Tensor, Tensor]:
        features = F.pixel_unshuffle(blurred, self.unshuffle)
        if self.from_coarser is not None and coarser is not None:
            upscaled = F.pixel_shuffle(self.from_coarser(coarser), 2)
            # The convolution of both concatenated, as the sum of two: nothing is copied.
            weight, pixels, pad = self.head.weight, features.shape[1], self.head.padding
            features = F.conv2d(features, weight[:, :pixels], self.head.bias, padding=pad)
            features.add_(F.conv2d(upscaled, weight[:, pixels:], padding=pad))
        else:
            features = self.head(features)
        skips: list[Tensor] = []
        for depth, encoder in enumerate(self.encoders):
            features = encoder(features)
            if depth < len(self.downs):
                skips.append(features)
                features = self.downs[depth](features)
        for depth in reversed(range(len(self.ups))):
            features = F.pixel_shuffle(self.ups[depth](features), 2).add_(skips[depth])
            features = self.decoders[depth](features)
        return blurred + F.pixel_shuffle(self.tail(features), self.unshuffle), features
