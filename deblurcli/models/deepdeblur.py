"""The network of the paper: 5×5 convolutions at full resolution, no normalisation."""

import torch
import torch.nn.functional as F  # noqa: N812  (the field's name for it)
from torch import Tensor, nn

from deblurcli.models.config import GeneratorConfig
from deblurcli.models.network import ResidualBlock, without_autocast


def deepdeblur_config(scales: int = 3, value_range: float = 1.0) -> GeneratorConfig:
    """The paper's network: 64 features, 19 residual blocks, 5×5 kernels, K = `scales`."""
    return GeneratorConfig("resnet", scales, (64,), (19,), kernel_px=5, value_range=value_range)


class ResNetLevel(nn.Module):
    """One level of the paper's network, with the step that hands its result to the next."""

    pads_mirrored = False  # as the authors' release does
    alignment_px = 1

    def __init__(self, config: GeneratorConfig, level: int) -> None:
        super().__init__()
        coarsest = level == config.scales - 1
        (features,), (blocks,) = config.channels, config.encoder_blocks
        k, pad = config.kernel_px, config.kernel_px // 2
        self.from_coarser = None if coarsest else nn.Conv2d(3, 12, k, padding=pad)
        self.head = nn.Conv2d(3 if coarsest else 6, features, k, padding=pad)
        self.blocks = nn.Sequential(*(ResidualBlock(features, k) for _ in range(blocks)))
        self.tail = nn.Conv2d(features, 3, k, padding=pad)

    def forward(self, blurred: Tensor, coarser: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.from_coarser is not None and coarser is not None:
            upscaled = F.pixel_shuffle(self.from_coarser(coarser), 2)
            blurred = torch.cat((blurred, upscaled), dim=1)
        features = self.blocks(self.head(blurred))
        # The output is an image, not a change to one: half precision would show in 16-bit photos.
        with without_autocast(features.device.type):
            restored = self.tail(features.to(self.tail.weight.dtype))
        return restored, restored
