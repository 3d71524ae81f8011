"""The multi-scale generator of Nah, Kim and Lee, "Deep Multi-scale Convolutional Neural Network for
Dynamic Scene Deblurring" (CVPR 2017, arXiv 1612.02177), coarse to fine, with two bodies: the
paper's ``resnet``, and ``unet``, our compact one for CPUs, about 1/36 of the operations.
"""

import math
from copy import deepcopy

import torch
import torch.nn.functional as F  # noqa: N812  (the field's name for it)
from torch import Tensor, nn

from deblurcli.errors import UsageError
from deblurcli.models.compact import GatedBlock, Int8GatedBlock, UNetLevel
from deblurcli.models.config import GeneratorConfig
from deblurcli.models.deepdeblur import ResNetLevel
from deblurcli.models.network import RestorationNetwork, without_autocast


class MultiScaleGenerator(RestorationNetwork):
    """Restores motion-blurred images coarse to fine. The output is not clamped."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config: GeneratorConfig = config
        self.features_per_pixel = config.channels[0] / config.unshuffle**2
        level = ResNetLevel if config.body == "resnet" else UNetLevel
        # Index 0 is the finest level, as in the authors' release.
        levels = [level(config, k) for k in range(config.scales)]
        self.levels = nn.ModuleList(levels)
        self.alignment_px = max(each.alignment_px * 2**k for k, each in enumerate(levels))
        self.pads_mirrored = level.pads_mirrored

    def forward(self, blurred: Tensor) -> Tensor:
        return self.restore_scales(blurred)[0]

    def restore_scales(self, blurred: Tensor) -> list[Tensor]:
        """The restored images of every pyramid level, finest first, as training needs them: level k
        is comparable with level k of ``gaussian_pyramid(sharp, K)``."""
        span = self.config.value_range
        # The images themselves stay exact under autocast; only features may be bf16 or fp16.
        with without_autocast(blurred.device.type):
            padded = blurred
            for dim in (2, 3):
                if missing := -padded.shape[dim] % self.alignment_px:
                    padded = extend(padded, dim, 0, missing, mirrored=self.pads_mirrored)
            pyramid = gaussian_pyramid(padded, len(self.levels))
        outputs: list[Tensor] = []
        up_features: Tensor | None = None
        for level, image in zip(reversed(self.levels), reversed(pyramid), strict=True):
            restored, up_features = level((image - 0.5) * span, up_features)
            outputs.append((restored / span).add_(0.5))
        outputs.reverse()
        height, width = blurred.shape[-2:]
        return [
            output[..., : -(-height // 2**k), : -(-width // 2**k)]
            for k, output in enumerate(outputs)
        ]


def quantised(network: RestorationNetwork) -> RestorationNetwork:
    """A copy for inference mode whose gated blocks compute in eight bits but those just before the
    picture, whose rounding would show. Raises UsageError for a network without gated blocks."""
    network = deepcopy(network)
    blocks = {n: block for n, block in network.named_modules() if isinstance(block, GatedBlock)}
    if not blocks:
        reason = "only networks of gated blocks compute in int8"
        raise UsageError(network.config.body, reason, "use --precision auto")
    finest = [n for n in blocks if n.startswith("levels.0.")]
    last = [n for n in finest if ".decoders.0." in n] or finest[-1:]
    for name, block in blocks.items():
        if name not in last:
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, Int8GatedBlock(block))
    return network


def gaussian_pyramid(image: Tensor, levels: int) -> list[Tensor]:
    """A Gaussian pyramid, finest first; level k is ``(N, C, ceil(H / 2^k), ceil(W / 2^k))``. Each
    step smooths with σ = 2/3 px, truncated at 4 σ, mirrored at the edges (edge pixel repeated), and
    halves with bilinear interpolation: what scikit-image's ``pyramid_gaussian`` computes, on which
    the authors' release was trained."""
    pyramid = [image]
    for _ in range(levels - 1):
        pyramid.append(_halve(_halve(pyramid[-1], 2), 3))
    return pyramid


def _halve(image: Tensor, dim: int) -> Tensor:
    """Smooths and halves along one dimension, 2 (height) or 3 (width)."""
    radius = 3  # int(4 σ + 0.5) for σ = 2/3, as scipy.ndimage truncates
    weights = [math.exp(-0.5 * (i / (2 / 3)) ** 2) for i in range(-radius, radius + 1)]
    weights = [weight / sum(weights) for weight in weights]
    length = image.shape[dim]
    span, step = length, 1
    if length % 2 == 0:
        # Bilinear halving of an even length is the mean of pairs: one kernel does both.
        weights = [(a + b) / 2 for a, b in zip([*weights, 0.0], [0.0, *weights], strict=True)]
        span, step = length - 1, 2
    extended = extend(image, dim, radius, radius)
    # On three channels sums of slices are several times faster than depthwise convolutions on CPUs.
    shifted = (slice(i, i + span, step) for i in range(len(weights)))
    terms = (extended[:, :, s] if dim == 2 else extended[:, :, :, s] for s in shifted)
    result = torch.mul(next(terms), weights[0])
    for weight, term in zip(weights[1:], terms, strict=True):
        result = result.add(term, alpha=weight)
    if length % 2 == 0:
        return result
    size = [*result.shape[2:]]
    size[dim - 2] = (length + 1) // 2
    return F.interpolate(result, size=size, mode="bilinear", align_corners=False)


def extend(image: Tensor, dim: int, before: int, after: int, *, mirrored: bool = True) -> Tensor:
    """`image` with `before` and `after` more rows (`dim` 2) or columns (3) around it: the image
    mirrored, edge pixel repeated, as often as it takes, or, if not `mirrored`, its edge."""
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
