"""The time of the default network beside DMPHN's, a strong public network that runs on a CPU.

    python benchmarks/dmphn.py [--size 720x1280] [--rounds 5]

DMPHN 1-2-4 (Zhang, Dai, Li and Koniusz, "Deep Stacked Hierarchical Multi-patch Network for Image
Deblurring", CVPR 2019, arXiv 1904.03468), written anew from the paper, with random weights: for its
time only. Both restore the same random picture in turn, in each precision, ours also with ONNX
Runtime. Prints medians of the time and of the processor's time, which other programs disturb less,
and how many times as much of the latter DMPHN takes, in fp32 and at its best.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from deblurcli import Deblurrer


class Residual(nn.Sequential):
    """Adds conv, ReLU, conv to what comes in."""

    def __init__(self, channels: int) -> None:
        convs = [nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2)]
        super().__init__(convs[0], nn.ReLU(inplace=True), convs[1])

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features).add_(features)


def encoder() -> nn.Sequential:
    """15 convolutions: the picture to 128 features at a quarter of its size."""
    layers: list[nn.Module] = []
    for before, after, stride in ((3, 32, 1), (32, 64, 2), (64, 128, 2)):
        layers += [nn.Conv2d(before, after, 3, stride, 1), Residual(after), Residual(after)]
    return nn.Sequential(*layers)


def decoder() -> nn.Sequential:
    """The way back, with transposed convolutions."""
    layers: list[nn.Module] = []
    for before, after in ((128, 64), (64, 32)):
        up = nn.ConvTranspose2d(before, after, 4, 2, 1)
        layers += [Residual(before), Residual(before), up]
    return nn.Sequential(*layers, Residual(32), Residual(32), nn.Conv2d(32, 3, 3, padding=1))


class DMPHN(nn.Module):
    """Levels of 4, 2 and 1 patches; each hands its features and its picture to the next."""

    def __init__(self) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoder() for _ in range(3))
        self.decoders = nn.ModuleList(decoder() for _ in range(3))

    def forward(self, blurred: Tensor) -> Tensor:
        halves = blurred.chunk(2, dim=2)
        rows = [
            torch.cat([self.encoders[2](part) for part in half.chunk(2, dim=3)], dim=3)
            for half in halves
        ]
        pictures = [self.decoders[2](row) for row in rows]
        rows = [
            self.encoders[1](half + picture) + row
            for half, picture, row in zip(halves, pictures, rows, strict=True)
        ]
        features = torch.cat(rows, dim=2)
        whole = self.encoders[0](blurred + self.decoders[1](features)) + features
        restored: Tensor = self.decoders[0](whole)
        return restored


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", default="720x1280", help="rows x columns, multiples of 16")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    height, width = map(int, options.size.split("x"))
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = torch.from_numpy(picture[None].astype(np.float32) / 255).permute(0, 3, 1, 2)
    network = DMPHN().eval().to(memory_format=torch.channels_last)

    def dmphn(dtype: torch.dtype | None) -> None:
        with torch.autocast("cpu", dtype) if dtype else nullcontext(), torch.inference_mode():
            network(image)

    peers: dict[str, Callable[[], object]] = {
        "DMPHN fp32": partial(dmphn, None),
        "DMPHN bf16": partial(dmphn, torch.bfloat16),
    }
    ours = {
        f"default {name}": partial(Deblurrer.load(device="cpu", precision=name).restore, picture)
        for name in ("fp32", "bf16", "int8", "auto")
    }
    ours["default onnx"] = partial(Deblurrer.load(backend="onnx").restore, picture)
    seconds: dict[str, list[float]] = {name: [] for name in (*peers, *ours)}
    processor: dict[str, list[float]] = {name: [] for name in (*peers, *ours)}
    for _ in range(options.rounds):
        for name, run in (*peers.items(), *ours.items()):
            start, start_processor = time.perf_counter(), time.process_time()
            run()
            seconds[name].append(time.perf_counter() - start)
            processor[name].append(time.process_time() - start_processor)
    best = min(statistics.median(processor[name]) for name in peers)
    exact = statistics.median(processor["DMPHN fp32"])
    parameters = sum(p.numel() for p in network.parameters()) / 1e6
    print(f"{width}x{height}, {torch.get_num_threads()} threads, DMPHN: {parameters:.1f} M")
    for name, times in processor.items():
        median, wall = statistics.median(times), statistics.median(seconds[name])
        ratios = f"DMPHN fp32 {exact / median:5.1f} x, its best {best / median:5.1f} x"
        print(f"{name:14} {wall:7.2f} s, processor {median:7.2f} s   {ratios}")


if __name__ == "__main__":
    main()
