"""What every network of this package is to those who run it, and what they share."""

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F  # noqa: N812  (the field's name for it)
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from deblurcli.models.config import NetworkConfig


class RestorationNetwork(nn.Module):
    """Restores blurred images.

    Input and output are ``(N, 3, H, W)`` floating-point tensors of sRGB-encoded values in
    [0, 1], for any H, W ≥ 1; the output has the size and device of the input. Normalisation and
    padding happen inside. Channels-last tensors take less memory and time.
    """

    config: NetworkConfig  # with the parameters, rebuilds it
    alignment_px: int  # tiles that start at multiples of it see the pixel grid of the whole image
    features_per_pixel: float  # channels of its largest features, for each pixel of the image
    pads_mirrored: bool = True  # to multiples of `alignment_px`: by mirroring, else by the edge

    def forward(self, blurred: Tensor) -> Tensor:
        """The restored images, ``(N, 3, H, W)`` like `blurred`."""
        raise NotImplementedError


class ResidualBlock(nn.Module):
    """conv, ReLU, conv, add; no normalisation and no ReLU after the sum (the paper, Fig. 2)."""

    def __init__(self, channels: int, kernel_px: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, kernel_px, padding=kernel_px // 2)
        self.conv2 = nn.Conv2d(channels, channels, kernel_px, padding=kernel_px // 2)

    def forward(self, features: Tensor) -> Tensor:
        change: Tensor = self.conv2(F.relu(self.conv1(features), inplace=True))
        return change.add_(features)


def without_autocast(device: str) -> AbstractContextManager[object]:
    """Computes as the operands' dtypes say, on devices of this type."""
    known = torch.amp.is_autocast_available(device)
    return torch.autocast(device, enabled=False) if known else nullcontext()


def count_gmacs(network: RestorationNetwork) -> float:
    """Multiply-accumulates for one 256×256 image, in 10⁹, as tables give them."""
    parameter = next(network.parameters())
    # A sixteenth of the area takes a sixteenth of the work.
    side_px = max(64, network.alignment_px)
    image = torch.zeros(1, 3, side_px, side_px, dtype=parameter.dtype, device=parameter.device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    return float(counter.get_total_flops() / 2 * (256 / side_px) ** 2 / 1e9)
