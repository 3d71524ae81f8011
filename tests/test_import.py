"""Importing the authors' checkpoints: what comes out is what the original network gives.

`published_forward` is the reference: the published forward pass, written from its description
alone (float64 NumPy images, scikit-image's pyramid, PyTorch only for the convolutions), sharing
no line with deblurcli/network.py.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import conv2d, pixel_shuffle

from deblurcli.checkpoints import load_weights
from deblurcli.published import import_published

transform = pytest.importorskip("skimage.transform")

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


def published_forward(parameters: Parameters, image: np.ndarray, scales: int) -> np.ndarray:
    """The published network on (H, W, 3) values in [0, 255], H and W multiples of 2^(K-1)."""

    def convolve(values: torch.Tensor, name: str) -> torch.Tensor:
        weight = parameters[f"{name}.weight"].double()
        return conv2d(values, weight, parameters[f"{name}.bias"].double(), padding=2)

    pyramid = list(transform.pyramid_gaussian(image, max_layer=scales - 1, channel_axis=-1))
    inputs = [torch.from_numpy(p.transpose(2, 0, 1).copy())[None] - 127.5 for p in pyramid]
    blocks = sum(1 for n in parameters if n.startswith("body_models.0.") and "2.weight" in n[-8:])
    blocks = len({n.split(".")[3] for n in parameters if n.startswith("body_models.0.body.")}) - 2
    output = torch.empty(0)
    for level in range(scales - 1, -1, -1):
        values = inputs[level]
        if level < scales - 1:
            coarser = convolve(output, f"conv_end_models.{level + 1}.uppath.0")
            values = torch.cat((values, pixel_shuffle(coarser, 2)), dim=1)
        values = convolve(values, f"body_models.{level}.body.0")
        for block in range(1, blocks + 1):
            inner = convolve(values, f"body_models.{level}.body.{block}.body.0").clamp_min(0)
            values = values + convolve(inner, f"body_models.{level}.body.{block}.body.2")
        output = convolve(values, f"body_models.{level}.body.{blocks + 1}")
    return (output + 127.5)[0].numpy().transpose(1, 2, 0)


def random_image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3)).astype(np.float64)


def restore(path: Path, image: np.ndarray) -> np.ndarray:
    network, _ = load_weights(path)
    tensor = torch.from_numpy((image / 255).transpose(2, 0, 1).astype(np.float32))[None]
    with torch.inference_mode():
        return network(tensor)[0].numpy().transpose(1, 2, 0) * 255.0


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Largest difference, in units of the full range."""
    return float(np.abs(one - other).max() / 255)


@pytest.mark.parametrize("scales", [1, 2, 3])
def test_full_size_network_gives_what_the_original_gives(tmp_path: Path, scales: int) -> None:
    parameters = random_parameters(scales)
    torch.save({"G": OrderedDict(parameters)}, tmp_path / "model-1000.pt")
    import_published(tmp_path / "model-1000.pt", tmp_path / "out.safetensors", name="theirs")
    image = random_image(24, 40)
    expected = published_forward(parameters, image, scales)
    assert np.ptp(expected) > 50  # the comparison below is about something
    assert difference(restore(tmp_path / "out.safetensors", image), expected) < 1e-4


@pytest.mark.parametrize(("height", "width"), [(13, 18), (15, 23), (1, 1), (2, 7)])
def test_other_sizes_are_padded_as_the_original_does(
    tmp_path: Path, height: int, width: int
) -> None:
    parameters = random_parameters(3, features=8, blocks=2)
    torch.save(parameters, tmp_path / "model.pt")
    import_published(tmp_path / "model.pt", tmp_path / "out.safetensors", name="theirs")
    image = random_image(height, width)
    padding = ((0, -height % 4), (0, -width % 4), (0, 0))
    padded = np.pad(image, padding, mode="edge")  # their demo mode repeats the last row and column
    expected = published_forward(parameters, padded, 3)[:height, :width]
    assert difference(restore(tmp_path / "out.safetensors", image), expected) < 1e-4
