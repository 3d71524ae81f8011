"""The networks: one multi-scale generator, two bodies.

Both restore an image coarse to fine, as in Nah, Kim and Lee, "Deep Multi-scale Convolutional
Neural Network for Dynamic Scene Deblurring" (CVPR 2017, arXiv 1612.02177). A Gaussian pyramid
of the blurred image is made; the coarsest level is restored first, and what each level found is
scaled up and handed to the next finer one. They differ in the body that works at each level:

- ``resnet``, the paper's own: 5×5 convolutions at full resolution, residual blocks without
  normalisation. With K = 3 levels 11.72 M parameters and 336 GMAC for a 256×256 image.
- ``unet``, our compact one for CPUs: a small U-Net of 3×3 convolutions on pixel-unshuffled
  input, about a fortieth of the operations. Its blocks are the paper's (``residual``) or
  normalised and gated ones (``gated``), which learned more in the same time.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812  (the field's name for it)
from torch import Tensor, nn


@dataclass(frozen=True)
class GeneratorConfig:
    """All that is needed to rebuild a `MultiScaleGenerator` before loading its weights.

    Attributes:
        body: ``"resnet"`` (the paper's) or ``"unet"`` (compact).
        scales: number of pyramid levels, the paper's K.
        channels: features per depth. One number for ``resnet``; for ``unet`` one per depth,
            each depth at half the resolution of the one before.
        encoder_blocks: residual blocks per depth on the way down (``unet``), or of the whole
            body (``resnet``, one number).
        decoder_blocks: residual blocks per depth on the way up, one fewer than depths (``unet``).
        kernel_px: side of the convolution kernels.
        unshuffle: the body works on pixel-unshuffled input at 1/unshuffle of its level's
            resolution (``unet``).
        block: ``"residual"`` or ``"gated"`` (``unet``).
        value_range: the span of pixel values inside the network: 1 for ours, 255 for the
            weights that the authors publish. The generator's own input and output are always
            in [0, 1].
    """

    body: Literal["resnet", "unet"]
    scales: int
    channels: tuple[int, ...]
    encoder_blocks: tuple[int, ...]
    decoder_blocks: tuple[int, ...] = ()
    kernel_px: int = 3
    unshuffle: int = 1
    block: Literal["residual", "gated"] = "residual"
    value_range: float = 1.0

    def __post_init__(self) -> None:
        """Raises ValueError for what is no network: the fields may come from a foreign file."""
        depths = len(self.channels) if self.body == "unet" else 1
        numbers = (self.scales, self.unshuffle, *self.channels, *self.encoder_blocks)
        sensible = (
            self.body in ("resnet", "unet")
            and self.block in ("residual", "gated")
            and all(type(n) is int and n >= 1 for n in numbers)
            and self.scales <= 8
            and len(self.channels) == len(self.encoder_blocks) == depths >= 1
            and len(self.decoder_blocks) == depths - 1
            and all(type(n) is int and n >= 0 for n in self.decoder_blocks)
            and type(self.kernel_px) is int
            and self.kernel_px % 2 == 1
            and 0 < self.value_range < math.inf
        )
        if not sensible:
            raise ValueError(f"not the configuration of a network: {self}")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> GeneratorConfig:
        """Raises TypeError on unknown or missing fields, ValueError on senseless values."""
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()
        }
        return cls(**values)


def deepdeblur_config(scales: int = 3, value_range: float = 1.0) -> GeneratorConfig:
    """The paper's network: 64 features, 19 residual blocks, 5×5 kernels, K = `scales`."""
    return GeneratorConfig(
        body="resnet",
        scales=scales,
        channels=(64,),
        encoder_blocks=(19,),
        kernel_px=5,
        value_range=value_range,
    )


def compact_config(
    channels: tuple[int, ...] = (48, 96, 128),
    scales: int = 3,
    unshuffle: int = 2,
    block: Literal["residual", "gated"] = "gated",
) -> GeneratorConfig:
    """The default network: three small U-Nets, coarse to fine."""
    *wider, _ = channels
    return GeneratorConfig(
        body="unet",
        scales=scales,
        channels=channels,
        encoder_blocks=(*(1 for _ in wider), 3),
        decoder_blocks=tuple(2 for _ in wider),
        kernel_px=3,
        unshuffle=unshuffle,
        block=block,
    )


class MultiScaleGenerator(nn.Module):
    """Restores motion-blurred images coarse to fine.

    Input and output are ``(N, 3, H, W)`` floating-point tensors of sRGB-encoded values in
    [0, 1], for any H, W ≥ 1; the output has the size, dtype and device of the input and is not
    clamped. Normalisation and padding happen inside. For memory and speed, channels-last
    tensors are preferred but not required.

    Attributes:
        config: rebuilds this network.
        alignment_px: crops of one image whose origins are multiples of this see the same pixel
            grid inside the network as the whole image does; tiles should start there.
        pads_mirrored: whether an image is extended to a multiple of that by mirroring it, else
            by repeating its last row and column.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        bodies: dict[str, type[_ResNetLevel] | type[_UNetLevel]] = {
            "resnet": _ResNetLevel,
            "unet": _UNetLevel,
        }
        level = bodies[config.body]
        # Index 0 is the finest level, as in the authors' release.
        self.levels = nn.ModuleList(
            level(config, coarsest=k == config.scales - 1) for k in range(config.scales)
        )
        self.alignment_px: int = level.alignment_px(config) * 2 ** (config.scales - 1)
        self.pads_mirrored = level.pads_mirrored

    def forward(self, blurred: Tensor) -> Tensor:
        """The restored images, ``(N, 3, H, W)`` like `blurred`."""
        return self.restore_scales(blurred)[0]

    def restore_scales(self, blurred: Tensor) -> list[Tensor]:
        """The restored images of every pyramid level, finest first, as training needs them.

        Level k is ``(N, 3, ceil(H / 2^k), ceil(W / 2^k))``, comparable with level k of
        ``gaussian_pyramid(sharp, K)``.
        """
        span = self.config.value_range
        # The images themselves stay exact under autocast; only features may be bf16 or fp16.
        with _without_autocast(blurred):
            padded = _pad_to_multiple(blurred, self.alignment_px, mirrored=self.pads_mirrored)
            pyramid = gaussian_pyramid(padded, len(self.levels))
        outputs: list[Tensor] = []
        message: Tensor | None = None
        for level, image in zip(reversed(self.levels), reversed(pyramid), strict=True):
            restored, message = level((image - 0.5) * span, message)
            outputs.append(restored / span + 0.5)
        outputs.reverse()
        height, width = blurred.shape[-2:]
        return [
            output[..., : -(-height // 2**k), : -(-width // 2**k)]
            for k, output in enumerate(outputs)
        ]


def _without_autocast(tensor: Tensor) -> AbstractContextManager[object]:
    """Computes as the operands' dtypes say, on the device of `tensor`."""
    device = tensor.device.type
    if torch.amp.is_autocast_available(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()


def gaussian_pyramid(image: Tensor, levels: int) -> list[Tensor]:
    """A Gaussian pyramid, finest first; level k is ``(N, C, ceil(H / 2^k), ceil(W / 2^k))``.

    Each step smooths with σ = 2/3 px, truncated at 4 σ, mirrored at the edges (edge pixel
    repeated), and halves with bilinear interpolation: what scikit-image's ``pyramid_gaussian``
    computes, on which the authors' release was trained.
    """
    pyramid = [image]
    for _ in range(levels - 1):
        pyramid.append(_halve(_halve(pyramid[-1], 2), 3))
    return pyramid


def _halve(image: Tensor, dim: int) -> Tensor:
    """Smooths and halves along one dimension, 2 (height) or 3 (width)."""
    radius = 3  # int(4 σ + 0.5) for σ = 2/3, as scipy.ndimage truncates
    weights = [math.exp(-0.5 * (i / (2 / 3)) ** 2) for i in range(-radius, radius + 1)]
    total = sum(weights)
    weights = [w / total for w in weights]
    length = image.shape[dim]
    image = extend(image, dim, radius, radius)
    if length % 2:
        image = _correlate(image, weights, dim, length, step=1)
        size = [*image.shape[2:]]
        size[dim - 2] = (length + 1) // 2
        return F.interpolate(image, size=size, mode="bilinear", align_corners=False)
    # Bilinear halving of an even length is the mean of pairs: one kernel does both.
    pairs = [(a + b) / 2 for a, b in zip([*weights, 0.0], [0.0, *weights], strict=True)]
    return _correlate(image, pairs, dim, length - 1, step=2)


def _correlate(image: Tensor, weights: list[float], dim: int, span: int, step: int) -> Tensor:
    """Σ weights[i] · image shifted by i. On three channels sums of slices are several times
    faster than depthwise convolutions on a CPU."""
    terms = (
        image[:, :, i : i + span : step] if dim == 2 else image[:, :, :, i : i + span : step]
        for i in range(len(weights))
    )
    result = torch.mul(next(terms), weights[0])
    for weight, term in zip(weights[1:], terms, strict=True):
        result = result.add(term, alpha=weight)
    return result


def extend(image: Tensor, dim: int, before: int, after: int, *, mirrored: bool = True) -> Tensor:
    """`image` with `before` and `after` more rows (`dim` 2) or columns (3) around it.

    They mirror the image, edge pixel repeated, as often as it takes; if not `mirrored`, they
    repeat the edge.
    """
    length, device = image.shape[dim], image.device

    def outside(indices: Tensor) -> Tensor:
        if not mirrored:
            return image.index_select(dim, indices.clamp(0, length - 1))
        # A tensor as divisor, because ONNX can't take a symbolic length for a number.
        indices = indices % torch.full_like(indices, 2 * length)
        folded = torch.where(indices < length, indices, 2 * length - 1 - indices)
        return image.index_select(dim, folded)

    start = outside(torch.arange(-before, 0, device=device))
    end = outside(torch.arange(after, device=device) + length)
    return torch.cat((start, image, end), dim)


def _pad_to_multiple(image: Tensor, multiple: int, *, mirrored: bool) -> Tensor:
    """Extends right and bottom to a multiple of `multiple`."""
    for dim in (2, 3):
        if image.shape[dim] % multiple:
            image = extend(image, dim, 0, -image.shape[dim] % multiple, mirrored=mirrored)
    return image


class _ResidualBlock(nn.Module):
    """conv, ReLU, conv, add; no normalisation and no ReLU after the sum (the paper, Fig. 2)."""

    def __init__(self, channels: int, kernel_px: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, kernel_px, padding=kernel_px // 2)
        self.second = nn.Conv2d(channels, channels, kernel_px, padding=kernel_px // 2)

    def forward(self, features: Tensor) -> Tensor:
        change: Tensor = self.second(F.relu(self.first(features), inplace=True))
        return features + change


class _GatedBlock(nn.Module):
    """Normalise, conv to twice the features, multiply the halves, 1×1 conv, add.

    The gate of NAFNet (Chen et al., ECCV 2022, arXiv 2204.04676) with one dense convolution in
    place of its depthwise pair: on CPUs dense ones compute several times faster.
    """

    def __init__(self, channels: int, kernel_px: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.first = nn.Conv2d(channels, 2 * channels, kernel_px, padding=kernel_px // 2)
        self.second = nn.Conv2d(channels, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        # Over the features of each pixel; in channels-last memory nothing is moved.
        normalised = self.norm(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        values, gates = self.first(normalised).chunk(2, dim=1)
        change: Tensor = self.second(values * gates)
        return features + change


class _ResNetLevel(nn.Module):
    """One level of the paper's network, with the step that hands its result to the next."""

    pads_mirrored = False  # as the authors' release does

    def __init__(self, config: GeneratorConfig, *, coarsest: bool) -> None:
        super().__init__()
        (features,), (blocks,) = config.channels, config.encoder_blocks
        k, pad = config.kernel_px, config.kernel_px // 2
        self.from_coarser = None if coarsest else nn.Conv2d(3, 12, k, padding=pad)
        self.head = nn.Conv2d(3 if coarsest else 6, features, k, padding=pad)
        self.blocks = nn.Sequential(*(_ResidualBlock(features, k) for _ in range(blocks)))
        self.tail = nn.Conv2d(features, 3, k, padding=pad)

    @staticmethod
    def alignment_px(config: GeneratorConfig) -> int:
        del config
        return 1

    def forward(self, blurred: Tensor, coarser: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.from_coarser is not None and coarser is not None:
            upscaled = F.pixel_shuffle(self.from_coarser(coarser), 2)
            blurred = torch.cat((blurred, upscaled), dim=1)
        features = self.blocks(self.head(blurred))
        # The output is an image, not a change to one: half precision would show in 16-bit photos.
        with _without_autocast(features):
            restored = self.tail(features.to(self.tail.weight.dtype))
        return restored, restored


class _UNetLevel(nn.Module):
    """One level of the compact network: a U-Net that predicts the change to its input.

    Its message to the next finer level is its last features, which hold more than the image.
    """

    pads_mirrored = True  # up to 31 px are added: better picture than streaks

    def __init__(self, config: GeneratorConfig, *, coarsest: bool) -> None:
        super().__init__()
        channels, k = config.channels, config.kernel_px
        block = _GatedBlock if config.block == "gated" else _ResidualBlock
        self.unshuffle = config.unshuffle
        pixels = 3 * config.unshuffle**2
        self.from_coarser = (
            None if coarsest else nn.Conv2d(channels[0], 4 * channels[0], k, padding=k // 2)
        )
        incoming = pixels if coarsest else pixels + channels[0]
        self.head = nn.Conv2d(incoming, channels[0], k, padding=k // 2)
        self.encoders = nn.ModuleList(
            nn.Sequential(*(block(c, k) for _ in range(n)))
            for c, n in zip(channels, config.encoder_blocks, strict=True)
        )
        self.downs = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairwise(channels))
        self.ups = nn.ModuleList(nn.Conv2d(b, 4 * a, 1) for a, b in pairwise(channels))
        self.decoders = nn.ModuleList(
            nn.Sequential(*(block(c, k) for _ in range(n)))
            for c, n in zip(channels, config.decoder_blocks, strict=False)
        )
        self.tail = nn.Conv2d(channels[0], pixels, k, padding=k // 2)
        # On the meta device a file will bring the values; and drawing random numbers there makes
        # PyTorch import its compiler and SymPy, which takes a second or two.
        if not self.tail.weight.is_meta:
            self._initialise()

    @staticmethod
    def alignment_px(config: GeneratorConfig) -> int:
        return int(config.unshuffle * 2 ** (len(config.channels) - 1))

    def _initialise(self) -> None:
        # Without normalisation layers the sizes of the features have to be right from the
        # start. PyTorch's default hardly learns here in the first thousand steps, and neither
        # does a gain of √2 everywhere: it grows over the levels until the first steps break all.
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, _ResidualBlock):
                nn.init.kaiming_normal_(module.first.weight, nonlinearity="relu")
            if isinstance(module, (_ResidualBlock, _GatedBlock)):
                module.second.weight.data.mul_(0.1)
        for sum_of_two in (*self.ups, self.from_coarser):
            if sum_of_two is not None:
                sum_of_two.weight.data.mul_(0.5)
        # At first the output is nearly the input, which is a good guess already.
        self.tail.weight.data.mul_(0.05)

    def forward(self, blurred: Tensor, coarser: Tensor | None) -> tuple[Tensor, Tensor]:
        features = F.pixel_unshuffle(blurred, self.unshuffle)
        if self.from_coarser is not None and coarser is not None:
            upscaled = F.pixel_shuffle(self.from_coarser(coarser), 2)
            features = torch.cat((features, upscaled), dim=1)
        features = self.head(features)
        skips: list[Tensor] = []
        for depth, encoder in enumerate(self.encoders):
            features = encoder(features)
            if depth < len(self.downs):
                skips.append(features)
                features = self.downs[depth](features)
        for depth in reversed(range(len(self.ups))):
            features = skips[depth] + F.pixel_shuffle(self.ups[depth](features), 2)
            features = self.decoders[depth](features)
        return blurred + F.pixel_shuffle(self.tail(features), self.unshuffle), features
