"""All networks by name. To add one: a module beside this one, and its entry here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deblurcli.models.config import GeneratorConfig
from deblurcli.models.foreign import ForeignConfig, ForeignNetwork, load_foreign
from deblurcli.models.generator import MultiScaleGenerator
from deblurcli.models.network import NetworkConfig, RestorationNetwork


@dataclass(frozen=True)
class NetworkKind:
    """What has to be known of a network to load and run it.

    Attributes:
        load: rebuilds it from its configuration and parameters. Raises RuntimeError if the
            parameters don't fit it.
        overlap_px: what neighbouring tiles share.
        feature_maps: how many of its largest features are alive at once, for the memory.
        max_cpu_tile_px: the side of tiles on a CPU: smaller ones compute more twice, larger
            leave the caches.
        half_precision: whether it computes in bf16 and fp16.
    """

    load: Callable[[Any, Mapping[str, Tensor]], RestorationNetwork]
    overlap_px: int
    feature_maps: float
    max_cpu_tile_px: int = 1024
    half_precision: bool = True

    def bytes_per_pixel(self, network: RestorationNetwork, dtype: torch.dtype) -> float:
        """About how much memory a forward pass takes for each pixel of the image."""
        # Beside the features, about ten images are alive.
        return network.features_per_pixel * dtype.itemsize * self.feature_maps + 10 * 3 * 4


def _load_generator(
    config: GeneratorConfig, parameters: Mapping[str, Tensor]
) -> MultiScaleGenerator:
    with torch.device("meta"):  # allocate nothing, initialise nothing: the file has it all
        network = MultiScaleGenerator(config)
    network.load_state_dict(parameters, strict=True, assign=True)
    return network


def _load_saved(config: ForeignConfig, parameters: Mapping[str, Tensor]) -> ForeignNetwork:
    network = load_foreign({n.removeprefix("model."): t for n, t in parameters.items()})
    network.config = config
    return network


# Overlaps of ours: measured on the compact network (docs/speed.md): tiles of 384 px then differ
# from the whole picture by 0.02/255 to 0.11/255 in the mean. Those of others are no measurement: it
# would take trained weights. Memory: measured on a CPU with random weights; FFTformer's is a guess.
NETWORKS: Mapping[str, NetworkKind] = {
    "unet": NetworkKind(_load_generator, overlap_px=192, feature_maps=6),
    "resnet": NetworkKind(_load_generator, overlap_px=192, feature_maps=6),
    "NAFNet": NetworkKind(_load_saved, overlap_px=128, feature_maps=20),
    "KBNet": NetworkKind(_load_saved, overlap_px=128, feature_maps=62),
    "Restormer": NetworkKind(_load_saved, overlap_px=128, feature_maps=40),
    "FFTformer": NetworkKind(_load_saved, overlap_px=128, feature_maps=70, half_precision=False),
    "Uformer": NetworkKind(_load_saved, overlap_px=128, feature_maps=68),
    "MPRNet": NetworkKind(_load_saved, overlap_px=128, feature_maps=26),
    "MIRNet2": NetworkKind(_load_saved, overlap_px=128, feature_maps=16),
}
_OTHER = NetworkKind(_load_saved, overlap_px=128, feature_maps=70, half_precision=False)


def kind_of(config: NetworkConfig) -> NetworkKind:
    """What is known of the network; careful guesses for those of spandrel's without an entry."""
    return NETWORKS.get(config.body, _OTHER)


def read_config(document: dict[str, Any]) -> NetworkConfig:
    """The configuration in a weights file.

    Raises:
        KeyError, TypeError, ValueError: it is invalid.
    """
    ours = document["body"] in ("unet", "resnet")
    if ours:
        return GeneratorConfig.from_json(document)
    body, gmacs = document["body"], document["gmacs"]
    if not isinstance(body, str) or not isinstance(gmacs, (float, int, type(None))):
        raise ValueError(f"not the configuration of a network: {document}")
    return ForeignConfig(body, gmacs)
