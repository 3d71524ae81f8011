"""Weights files: a network's parameters in safetensors, with all that is needed to rebuild it.

Checkpoints of other people's networks (``.pth``, ``.ckpt``) are read with PyTorch's restricted
unpickler, which knows tensors and plain containers and runs nothing.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from pickle import UnpicklingError
from typing import IO

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from deblurcli.errors import AnyPath, WeightsError, cannot_read
from deblurcli.io.files import atomic_output
from deblurcli.models.config import OWN_BODIES, ForeignConfig
from deblurcli.models.foreign import load_foreign
from deblurcli.models.generator import MultiScaleGenerator
from deblurcli.models.network import RestorationNetwork, count_gmacs
from deblurcli.models.registry import load_network
from deblurcli.weights import manifest
from deblurcli.weights.manifest import CHECKPOINT_SUFFIXES, METADATA_KEY, ModelCard, check_zoo


def save_weights(
    path: AnyPath,
    network: RestorationNetwork,
    card: ModelCard,
    *,
    half: bool = True,
    overwrite: bool = False,
) -> None:
    """Writes a weights file, in half precision (float16) unless `half` is false. Raises DeblurError
    if the file exists and `overwrite` is false, or can't be written."""
    document = {
        # Older versions of deblurcli can read those of our own networks.
        "format": 2 if isinstance(network, MultiScaleGenerator) else manifest.WEIGHTS_VERSION,
        "network": network.config.to_json(),
        "card": card.__dict__,
    }
    tensors = {}
    for name, tensor in network.state_dict().items():
        stored = tensor.half() if half and tensor.is_floating_point() else tensor
        # A copy: safetensors holds no parameter that two layers share.
        tensors[name] = stored.to("cpu", copy=True).contiguous()
    with atomic_output(Path(path), overwrite=overwrite) as part:
        # Not `save_file`: what it raises on a full disk is no OSError.
        part.write_bytes(save(tensors, metadata={METADATA_KEY: json.dumps(document)}))


def load_weights(path: AnyPath) -> tuple[RestorationNetwork, ModelCard]:
    """Rebuilds the network of a weights file, or of another network's checkpoint (``.pth``,
    ``.ckpt``), on the CPU in float32, in evaluation mode. Raises WeightsError if the file is
    missing, damaged, its parameters don't fit its network or are not all finite, or the extra for
    networks of others is missing."""
    path = Path(path)
    if path.suffix in CHECKPOINT_SUFFIXES:
        check_zoo(path)
        content = read_pickled(path)
        try:
            foreign = load_foreign(content if isinstance(content, Mapping) else {})
        except ValueError as error:
            remedy = "give a checkpoint of a network for deblurring at scale 1"
            raise WeightsError(path, str(error), remedy) from error
        return foreign, ModelCard(name=path.stem, notes=f"{foreign.config.body}, from {path.name}")
    config, card = manifest.read_header(path)
    try:
        if config["body"] not in OWN_BODIES:
            check_zoo(path)
        stored = manifest.current_names(load_file(path))
        parameters = {n: t.float() if t.is_floating_point() else t for n, t in stored.items()}
        network = load_network(config, parameters)
    except RuntimeError as error:  # names or shapes differ
        remedy = "the file is damaged or of another version: get it again"
        reason = "its parameters don't fit the network it names"
        raise WeightsError(path, reason, remedy) from error
    except (SafetensorError, OSError, LookupError, AttributeError, TypeError, ValueError) as error:
        raise manifest.damaged(path, error) from error
    if not all(bool(tensor.isfinite().all()) for tensor in parameters.values()):
        remedy = "get it again, or train anew with a lower learning rate"
        raise WeightsError(path, "damaged: not all of its parameters are finite numbers", remedy)
    return network.eval().requires_grad_(False), card


def save_published(
    path: Path, network: RestorationNetwork, card: ModelCard, *, overwrite: bool = False
) -> None:
    """Writes what others trained, in float32 as they published it; as `save_weights`."""
    if isinstance(network.config, ForeignConfig):
        network.config = replace(network.config, gmacs=round(count_gmacs(network), 2))
    save_weights(path, network, card, half=False, overwrite=overwrite)


def read_pickled(path: Path, file: IO[bytes] | None = None) -> object:
    """What a PyTorch file, or the part `file` of it, holds, on the CPU, read with the restricted
    unpickler. Raises WeightsError if it is missing, damaged, or holds more than tensors and plain
    containers."""
    try:
        return torch.load(file or path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise cannot_read(path, error, error_class=WeightsError) from error
    except UnpicklingError as error:
        reason = "holds more than parameters, or is damaged; nothing in it was run"
        raise WeightsError(path, reason, "get the file again from its authors") from error
    except Exception as error:  # a damaged file breaks PyTorch's readers in many ways
        raise WeightsError(path, "damaged", "get the file again from its authors") from error
