"""What a camera adds after the blur: sensor noise and JPEG compression.

Batched torch operations on any device. As in `synthesis`, everything random is drawn apart, on
the CPU, one picture at a time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

# The example quantisation tables of the JPEG standard (ITU-T T.81, Annex K.1).
_LUMA_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA_TABLE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
# ITU-R BT.601, full range, as JFIF uses it; rows Y, Cb, Cr.
_RGB_TO_YCC = (
    (0.299, 0.587, 0.114),
    (-0.168736, -0.331264, 0.5),
    (0.5, -0.418688, -0.081312),
)


@dataclass(frozen=True)
class Degradation:
    """What happens to one blurred picture after the exposure.

    Attributes:
        read_noise: standard deviation of the signal-independent noise, for values in [0, 1].
        shot_noise: variance per unit of signal.
        noise_seed: of the noise itself.
        jpeg_quality: 1 to 100, or 0 for no compression.
        chroma_subsampled: 4:2:0 instead of 4:4:4.
    """

    read_noise: float = 0.0
    shot_noise: float = 0.0
    noise_seed: int = 0
    jpeg_quality: int = 0
    chroma_subsampled: bool = False


def draw_degradation(
    rng: np.random.Generator,
    noise: float,
    jpeg: float,
    kind: Literal["sensor", "gaussian"] = "sensor",
) -> Degradation:
    """Draws noise with probability `noise` and compression with probability `jpeg`.

    Args:
        rng: the only source of randomness.
        noise, jpeg: in [0, 1].
        kind: of noise: ``"sensor"``, read and shot noise; or ``"gaussian"``, whose standard
            deviation is drawn from N(0, (2/255)²) (Nah et al., CVPR 2017, section 3).
    """
    noisy, compressed = rng.random(2) < (noise, jpeg)
    read_noise, shot_noise = 0.0, 0.0
    if noisy and kind == "gaussian":
        read_noise = abs(float(rng.normal(0, 2 / 255)))
    elif noisy:
        read_noise = float(rng.uniform(0, 3) / 255)
        shot_noise = float(10 ** rng.uniform(-5, -3.5))
    return Degradation(
        read_noise=read_noise,
        shot_noise=shot_noise,
        noise_seed=int(rng.integers(2**31)),
        jpeg_quality=int(rng.integers(70, 99)) if compressed else 0,
        chroma_subsampled=bool(rng.random() < 0.5),
    )


def degrade(images: Tensor, degradations: list[Degradation]) -> Tensor:
    """Adds noise and JPEG artefacts and rounds to 8 bits.

    Args:
        images: (N, 3, H, W) float32 in [0, 1].
        degradations: one for each image.

    Returns:
        The degraded images, same shape, in [0, 1] at multiples of 1/255.
    """
    images = images.clone()
    for n, d in enumerate(degradations):
        if d.read_noise or d.shot_noise:
            # On the CPU, so that every device sees the same noise.
            generator = torch.Generator().manual_seed(d.noise_seed)
            noise = torch.randn(images.shape[1:], generator=generator).to(images.device)
            variance = d.read_noise**2 + d.shot_noise * images[n]
            images[n] += noise * variance.sqrt()
    images = (images.clamp(0, 1) * 255).round() / 255
    compressed = [n for n, d in enumerate(degradations) if d.jpeg_quality]
    if compressed:
        images[compressed] = _jpeg(images[compressed], [degradations[n] for n in compressed])
    return images


def _jpeg(images: Tensor, degradations: list[Degradation]) -> Tensor:
    device, (height, width) = images.device, images.shape[-2:]
    # Whole blocks, also of the halved chroma; encoders repeat the last row and column, too.
    images = F.pad(images, (0, -width % 16, 0, -height % 16), mode="replicate")
    to_ycc = torch.tensor(_RGB_TO_YCC, device=device)
    ycc = torch.einsum("ij,njhw->nihw", to_ycc, images * 255) - torch.tensor(
        [128.0, 0.0, 0.0], device=device
    ).view(1, 3, 1, 1)
    factors = [
        5000 / d.jpeg_quality if d.jpeg_quality < 50 else 200 - 2 * d.jpeg_quality
        for d in degradations
    ]  # libjpeg's meaning of "quality"
    scale = torch.tensor(factors, device=device).view(-1, 1, 1) / 100
    luma, chroma = (
        torch.round(torch.tensor(t, device=device, dtype=torch.float32) * scale).clamp(1, 255)
        for t in (_LUMA_TABLE, _CHROMA_TABLE)
    )
    y = _quantise(ycc[:, :1], luma)
    full = _quantise(ycc[:, 1:], chroma)
    halved = _quantise(F.avg_pool2d(ycc[:, 1:], 2), chroma)
    halved = F.interpolate(halved, scale_factor=2.0, mode="bilinear", align_corners=False)
    subsampled = torch.tensor([d.chroma_subsampled for d in degradations], device=device)
    colour = torch.where(subsampled.view(-1, 1, 1, 1), halved, full)
    rgb = torch.einsum(
        "ij,njhw->nihw", torch.linalg.inv(to_ycc), torch.cat((y + 128, colour), dim=1)
    )
    return rgb[..., :height, :width].round().clamp(0, 255) / 255


def _quantise(planes: Tensor, tables: Tensor) -> Tensor:
    """Rounds the 8×8 block cosine transform of (N, C, H, W) planes to (N, 8, 8) tables."""
    n, c, h, w = planes.shape
    frequency = torch.arange(8, device=planes.device, dtype=torch.float32)[:, None]
    basis = torch.cos((2 * torch.arange(8, device=planes.device) + 1) * frequency * math.pi / 16)
    basis = basis * torch.where(frequency == 0, math.sqrt(1 / 8), math.sqrt(2 / 8))
    blocks = planes.reshape(n, c, h // 8, 8, w // 8, 8).permute(0, 1, 2, 4, 3, 5)
    step = tables.view(n, 1, 1, 1, 8, 8)
    rounded = torch.round(basis @ blocks @ basis.T / step) * step
    blocks = basis.T @ rounded @ basis
    return blocks.permute(0, 1, 2, 4, 3, 5).reshape(n, c, h, w)
