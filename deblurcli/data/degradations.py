"""What a camera adds after the blur: sensor noise and JPEG compression.

Batched torch operations on any device. As in `synthesis`, everything random is drawn apart, on
the CPU, one picture at a time; but for the noise itself, which comes of a drawn seed.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor

from deblurcli.devices import send


@dataclass(frozen=True)
class Degradation:
    """What happens to one blurred picture after the exposure."""

    read_noise: float = 0.0  # standard deviation without any signal, for values in [0, 1]
    shot_noise: float = 0.0  # variance per unit of signal
    noise_seed: int = 0  # of the noise itself
    jpeg_quality: int = 0  # 1 to 100, or 0 for no compression
    chroma_subsampled: bool = False  # 4:2:0 instead of 4:4:4


def draw_degradation(
    rng: np.random.Generator,
    noise: float,
    jpeg: float,
    kind: Literal["sensor", "gaussian"] = "sensor",
) -> Degradation:
    """Draws noise with probability `noise` and compression with probability `jpeg`. Noise is read
    and shot noise; or ``"gaussian"``, whose standard deviation is drawn from N(0, (2/255)²) (Nah et
    al., CVPR 2017, section 3)."""
    noisy, compressed = rng.random(2) < (noise, jpeg)
    read_noise, shot_noise = 0.0, 0.0
    if noisy and kind == "gaussian":
        read_noise = abs(rng.normal(0, 2 / 255))
    elif noisy:
        read_noise, shot_noise = rng.uniform(0, 3) / 255, 10 ** rng.uniform(-5, -3.5)
    return Degradation(
        read_noise=read_noise,
        shot_noise=shot_noise,
        noise_seed=int(rng.integers(2**31)),
        jpeg_quality=int(rng.integers(70, 99)) if compressed else 0,
        chroma_subsampled=bool(rng.random() < 0.5),
    )


def degrade(images: Tensor, degradations: Sequence[Degradation], *, rounded: bool = True) -> Tensor:
    """Adds noise and JPEG artefacts to (N, 3, H, W) float32 images in [0, 1], one degradation each.
    Where `rounded`, the results are multiples of 1/255 in [0, 1], as files hold them."""
    images, device = images.clone(), images.device
    for n, d in enumerate(degradations):
        if d.read_noise or d.shot_noise:
            generator = torch.Generator(device).manual_seed(d.noise_seed)
            noise = torch.randn(images.shape[1:], generator=generator, device=device)
            images[n] += noise * (d.read_noise**2 + d.shot_noise * images[n]).sqrt()
    if rounded:
        images = (images.clamp(0, 1) * 255).round() / 255
    compressed = [n for n, d in enumerate(degradations) if d.jpeg_quality]
    if compressed:
        chosen = send(np.array(compressed), device)
        results = _jpeg(images[chosen].clamp(0, 1), [degradations[n] for n in compressed])
        images = images.index_copy(0, chosen, results)
    return images


@cache
def jpeg_constants(device: torch.device) -> list[Tensor]:
    """RGB to YCbCr and back, the 8×8 tables of luma and chroma at quality 50, which are those of
    the standard (ITU-T T.81, Annex K.1), and the 8 cosines as rows."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", quality=50)
    file.seek(0)
    tables = [np.reshape(table, (8, 8)) for table in JpegImageFile(file).quantization.values()]
    # ITU-R BT.601, full range, as JFIF uses it; rows Y, Cb, Cr.
    to_ycc = np.array(
        ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
    )
    frequency = np.arange(8)[:, None]
    cosines = np.cos((2 * np.arange(8) + 1) * frequency * math.pi / 16)
    cosines *= np.where(frequency == 0, math.sqrt(1 / 8), math.sqrt(2 / 8))
    arrays = (to_ycc, np.linalg.inv(to_ycc), *tables, cosines)
    return [send(array.astype(np.float32), device) for array in arrays]


def _jpeg(images: Tensor, degradations: list[Degradation]) -> Tensor:
    device, (height, width) = images.device, images.shape[-2:]
    to_ycc, to_rgb, luma_table, chroma_table, cosines = jpeg_constants(device)
    # Whole blocks, also of the halved chroma; encoders repeat the last row and column, too.
    images = F.pad(images, (0, -width % 16, 0, -height % 16), mode="replicate")
    ycc = torch.einsum("ij,njhw->nihw", to_ycc, images * 255)
    factors = [
        (5000 / d.jpeg_quality if d.jpeg_quality < 50 else 200 - 2 * d.jpeg_quality) / 100
        for d in degradations
    ]  # libjpeg's meaning of "quality"
    drawn = send(np.array([factors, [d.chroma_subsampled for d in degradations]], "f4"), device)
    scale, subsampled = drawn.view(2, -1, 1, 1, 1)

    def quantise(planes: Tensor, table: Tensor) -> Tensor:
        """Rounds the 8×8 block cosine transform."""
        n, c, h, w = planes.shape
        blocks = planes.reshape(n, c, h // 8, 8, w // 8, 8).permute(0, 1, 2, 4, 3, 5)
        step = torch.round(table * scale).clamp(1, 255).view(n, 1, 1, 1, 8, 8)
        rounded = torch.round(cosines @ blocks @ cosines.T / step) * step
        blocks = cosines.T @ rounded @ cosines
        return blocks.permute(0, 1, 2, 4, 3, 5).reshape(n, c, h, w)

    luma = quantise(ycc[:, :1] - 128, luma_table) + 128
    full = quantise(ycc[:, 1:], chroma_table)
    halved = quantise(F.avg_pool2d(ycc[:, 1:], 2), chroma_table)
    halved = F.interpolate(halved, scale_factor=2.0, mode="bilinear", align_corners=False)
    chroma = torch.where(subsampled > 0, halved, full)
    rgb = torch.einsum("ij,njhw->nihw", to_rgb, torch.cat((luma, chroma), dim=1))
    return rgb[..., :height, :width].round().clamp(0, 255) / 255
