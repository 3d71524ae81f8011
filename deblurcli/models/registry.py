"""All networks by name. One more is a module beside this one, a line in config, an entry here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deblurcli.models.config import OWN_BODIES, ForeignConfig, GeneratorConfig, NetworkConfig
from deblurcli.models.foreign import load_foreign
from deblurcli.models.generator import MultiScaleGenerator
from deblurcli.models.network import RestorationNetwork


@dataclass(frozen=True)
class NetworkKind:
    """What has to be known of a network to run it."""

    overlap_px: int = 128  # what neighbouring tiles share
    feature_maps: float = 70  # how many of its largest features are alive at once, for the memory
    half_precision: bool = True  # whether it computes in bf16 and fp16

    def bytes_per_pixel(self, network: RestorationNetwork, dtype: torch.dtype) -> float:
        """About how much memory a forward pass takes for each pixel of the image."""
        # Beside the features, about ten images are alive.
        return network.features_per_pixel * dtype.itemsize * self.feature_maps + 10 * 3 * 4


# Overlaps of ours: measured on the compact network (docs/speed.md): tiles of 384 px then differ
# from the whole picture by 0.02/255 to 0.11/255 in the mean. Those of others are no measurement: it
# would take trained weights. Memory: measured on a CPU with random weights; FFTformer's is a guess.
NETWORKS: Mapping[str, NetworkKind] = {
    "unet": NetworkKind(overlap_px=192, feature_maps=13.7),  # 1280×720 in one piece, in fp32, too
    "resnet": NetworkKind(overlap_px=192, feature_maps=6),
    "NAFNet": NetworkKind(feature_maps=20),
    "KBNet": NetworkKind(feature_maps=62),
    "Restormer": NetworkKind(feature_maps=40),
    "FFTformer": NetworkKind(half_precision=False),
    "Uformer": NetworkKind(feature_maps=68),
    "MPRNet": NetworkKind(feature_maps=26),
    "MIRNet2": NetworkKind(feature_maps=16),
}


def kind_of(config: NetworkConfig) -> NetworkKind:
    """What is known of the network; careful guesses for those of spandrel's without an entry."""
    return NETWORKS.get(config.body, NetworkKind(half_precision=False))


def load_network(config: Mapping[str, Any], parameters: Mapping[str, Tensor]) -> RestorationNetwork:
    """Rebuilds a network from its configuration, as files hold it, and parameters, on the CPU.
    Raises KeyError, TypeError or ValueError if the configuration is invalid, RuntimeError or
    ValueError if the parameters don't fit it."""
    body = config["body"]
    if body in OWN_BODIES:
        with torch.device("meta"):  # allocate nothing, initialise nothing: the file has it all
            network = MultiScaleGenerator(GeneratorConfig.from_json(config))
        network.load_state_dict(parameters, strict=True, assign=True)
        return network
    foreign = load_foreign({n.removeprefix("model."): t for n, t in parameters.items()})
    foreign.config = ForeignConfig(body, config["gmacs"])
    return foreign
