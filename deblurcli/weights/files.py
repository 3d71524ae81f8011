"""Weights files: a network's parameters in safetensors, with all that is needed to rebuild it.

The metadata hold one JSON document under the key ``deblurcli``: the format's version, the
network's configuration and the model card (name, training data, recipe, scores, licence).
The file alone rebuilds the network. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from deblurcli.errors import WeightsError
from deblurcli.io.files import atomic_output
from deblurcli.models.config import GeneratorConfig
from deblurcli.models.generator import MultiScaleGenerator

FORMAT_VERSION = 2
"""2 renamed the convolutions of the blocks; see `current_names`."""
_KEY = "deblurcli"
_OLD_NAMES = {"first": "conv1", "second": "conv2"}


@dataclass(frozen=True)
class ModelCard:
    """What a weights file says of itself.

    Attributes:
        name: the name users give to ``--weights``.
        training_data: the data sets it was trained on, with their licences.
        recipe: the values of the training recipe.
        scores: set name to figures, for example ``{"gopro/test": {"psnr_db": 25.1}}``.
        licence: SPDX identifier of the weights.
        notes: anything else: machine, training time, limits.
    """

    name: str = "unnamed"
    training_data: tuple[str, ...] = ()
    recipe: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    licence: str = "unknown"
    notes: str = ""


def save_weights(
    path: str | os.PathLike[str],
    network: MultiScaleGenerator,
    card: ModelCard,
    *,
    half: bool = True,
    overwrite: bool = False,
) -> None:
    """Writes a weights file; in half precision (float16) unless `half` is false.

    Raises:
        DeblurError: the file exists and `overwrite` is false, or can't be written.
    """
    document = {
        "format": FORMAT_VERSION,
        "network": network.config.to_json(),
        "card": {**card.__dict__, "training_data": list(card.training_data)},
    }
    dtype = torch.float16 if half else torch.float32
    tensors = {
        name: tensor.detach().to("cpu", dtype).contiguous()
        for name, tensor in network.state_dict().items()
    }
    with atomic_output(Path(path), overwrite=overwrite) as part:
        # Not `save_file`: what it raises on a full disk is no OSError.
        part.write_bytes(save(tensors, metadata={_KEY: json.dumps(document)}))


def read_card(path: str | os.PathLike[str]) -> tuple[GeneratorConfig, ModelCard]:
    """The network's configuration and model card, without reading the parameters.

    Raises:
        WeightsError: the file is missing, damaged, or not one of ours.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except FileNotFoundError:
        raise WeightsError(path, "no such weights file", "see 'deblur weights list'") from None
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error
    if _KEY not in metadata:
        raise WeightsError(
            path,
            "a safetensors file, but not of deblurcli: it does not say which network it is for",
            "give weights that 'deblur train' or 'deblur weights import' wrote",
        )
    try:
        document = json.loads(metadata[_KEY])
        if document["format"] > FORMAT_VERSION:
            raise WeightsError(
                path, "made by a newer deblurcli", "update: pip install -U deblurcli"
            )
        card = dict(document["card"])
        card["training_data"] = tuple(card.get("training_data", ()))
        return GeneratorConfig.from_json(document["network"]), ModelCard(**card)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error


def load_weights(path: str | os.PathLike[str]) -> tuple[MultiScaleGenerator, ModelCard]:
    """Rebuilds the network of a weights file on the CPU in float32, in evaluation mode.

    Raises:
        WeightsError: the file is missing, damaged, its parameters don't fit its network, or are
            not all finite.
    """
    config, card = read_card(path)
    try:
        with torch.device("meta"):  # allocate nothing, initialise nothing: the file has it all
            network = MultiScaleGenerator(config)
        with safe_open(path, framework="pt") as file:
            parameters = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        parameters = current_names(parameters)
        network.load_state_dict(parameters, strict=True, assign=True)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise _damaged(path, error) from error
    except RuntimeError as error:  # names or shapes differ
        raise WeightsError(
            path,
            "its parameters don't fit the network it names",
            "the file is damaged or of another version: get it again",
        ) from error
    if not all(bool(tensor.isfinite().all()) for tensor in parameters.values()):
        raise WeightsError(
            path,
            "damaged: not all of its parameters are finite numbers",
            "get it again, or train anew with a lower learning rate",
        )
    return network.eval().requires_grad_(False), card


def current_names(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A network's parameters as they are called today, whichever version named them."""
    return {
        ".".join(_OLD_NAMES.get(part, part) for part in name.split(".")): tensor
        for name, tensor in parameters.items()
    }


def _damaged(path: str | os.PathLike[str], error: Exception) -> WeightsError:
    detail = str(error).splitlines()[0] if str(error) else type(error).__name__
    return WeightsError(
        path, f"damaged or not a weights file ({detail})", "get it again: deblur weights pull"
    )
