"""Random parameters, named as the paper's authors name theirs."""

from __future__ import annotations

import torch

Parameters = dict[str, torch.Tensor]


def random_parameters(
    scales: int, *, features: int = 64, blocks: int = 19, seed: int = 0
) -> Parameters:
    """Parameters with the names and shapes of a published checkpoint, of a size that keeps the
    signal alive through all layers."""
    generator = torch.Generator().manual_seed(seed)
    parameters: Parameters = {}

    def add_convolution(name: str, inputs: int, outputs: int, gain: float = 1.0) -> None:
        spread = gain / (inputs * 25) ** 0.5
        shape = (outputs, inputs, 5, 5)
        parameters[f"{name}.weight"] = torch.randn(shape, generator=generator) * spread
        parameters[f"{name}.bias"] = torch.randn(outputs, generator=generator)

    for level in range(scales):
        body = f"body_models.{level}.body"
        add_convolution(f"{body}.0", 3 if level == scales - 1 else 6, features)
        for block in range(1, blocks + 1):
            add_convolution(f"{body}.{block}.body.0", features, features)
            add_convolution(f"{body}.{block}.body.2", features, features, gain=0.3)
        add_convolution(f"{body}.{blocks + 1}", features, 3)
    for level in range(1, scales):
        add_convolution(f"conv_end_models.{level}.uppath.0", 3, 12)
    return parameters


def small_parameters(scales: int = 2) -> Parameters:
    return random_parameters(scales, features=4, blocks=1)
