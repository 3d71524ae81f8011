"""Bringing in the weights that the paper's authors publish.

Their PyTorch release (github.com/SeungjunNah/DeepDeblur-PyTorch) saves ``models/model-N.pt``:
a pickled dictionary with the generator's parameters under ``G``, and a discriminator's under
``D`` where there was one. The generator's names are

    body_models.S.body.0                    first convolution of level S, 0 the finest
    body_models.S.body.I.body.0 and .2      the two convolutions of residual block I, from 1
    body_models.S.body.(last)               last convolution
    conv_end_models.S.uppath.0              what brings level S up to level S - 1

Pixel values there span 255 and are shifted by half of that; a level hands its shifted output
on, as our ``resnet`` body does. The files are read with PyTorch's restricted unpickler, which
knows tensors and plain containers and runs nothing.
"""

from __future__ import annotations

import io
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any

import torch
from torch import Tensor

from deblurcli.errors import WeightsError
from deblurcli.models.config import GeneratorConfig
from deblurcli.models.generator import MultiScaleGenerator
from deblurcli.weights.files import ModelCard, read_pickled, save_weights

_MODEL_IN_ZIP = re.compile(r"model-(\d+)\.pt")
_LARGEST_BYTES = 1 << 30  # the real ones have 47 MB; guards against zip bombs
_VALUE_RANGE = 255.0


def import_published(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    name: str,
    licence: str = "unknown",
    overwrite: bool = False,
) -> ModelCard:
    """Turns a published checkpoint into a weights file that gives the same output.

    Args:
        source: a ``.pt`` file, or the published zip archive with ``models/model-N.pt`` in it,
            of which the largest N is taken.
        target: the ``.safetensors`` file to write, in float32 as published.
        name: the name for the model card.
        licence: SPDX identifier, if the user knows it: the files don't say.

    Raises:
        WeightsError: `source` holds anything else than such parameters.
        DeblurError: `target` exists and `overwrite` is false, or can't be written.
    """
    network = read_published(source)
    card = ModelCard(
        name=name,
        recipe={"imported_from": Path(source).name, "format": "DeepDeblur-PyTorch"},
        licence=licence,
        notes="Published by the paper's authors, imported by deblurcli.",
    )
    save_weights(target, network, card, half=False, overwrite=overwrite)
    return card


def read_published(source: str | os.PathLike[str]) -> MultiScaleGenerator:
    """The network of a published checkpoint, on the CPU in float32, in evaluation mode.

    Raises:
        WeightsError: the file is missing, damaged, or holds anything else.
    """
    path = Path(source)
    document = _load(path)
    if isinstance(document, Mapping) and "G" in document:
        if not set(document) <= {"G", "D"}:
            raise _refusal(path, f"unexpected {sorted(map(str, set(document) - {'G', 'D'}))}")
        document = document["G"]
    parameters = _checked_parameters(path, document)
    config = _configuration(path, parameters)
    renamed = {}
    for name, tensor in parameters.items():
        new_name = _our_name(name, config)
        if new_name is None:
            raise _refusal(path, f"unexpected {name!r}")
        renamed[new_name] = tensor
    with torch.device("meta"):
        network = MultiScaleGenerator(config)
    try:
        network.load_state_dict(renamed, strict=True, assign=True)
    except RuntimeError as error:
        raise _refusal(path, "parameters are missing or of other shapes") from error
    return network.eval().requires_grad_(False)


def _load(path: Path) -> Any:
    """What the file holds, read with the restricted unpickler."""
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise _refusal(path, "it is far too large")
        with path.open("rb") as file:
            return read_pickled(path, _model_stream(path, file))
    except FileNotFoundError:
        raise WeightsError(path, "no such file", "check the path") from None
    except OSError as error:
        raise WeightsError(
            path, f"can't be read ({error.strerror or error})", "check the file"
        ) from error
    except zipfile.BadZipFile as error:
        raise _refusal(path, "damaged") from error


def _model_stream(path: Path, file: IO[bytes]) -> IO[bytes]:
    """The ``.pt`` file itself, or the latest one in a published archive."""
    if not zipfile.is_zipfile(file):
        file.seek(0)
        return file
    with zipfile.ZipFile(file) as archive:
        models: dict[PurePosixPath, int] = {}
        for member in archive.namelist():
            match = _MODEL_IN_ZIP.fullmatch(PurePosixPath(member).name)
            if match and "__MACOSX" not in member:
                models[PurePosixPath(member)] = int(match[1])
        if not models:  # a .pt file is itself a zip archive since PyTorch 1.6
            if path.suffix == ".zip":
                raise _refusal(path, "no models/model-N.pt is in it")
            file.seek(0)
            return file
        if len({member.parent for member in models}) > 1:
            raise WeightsError(
                path, "holds several models", "unpack it and import one .pt file from it"
            )
        latest = max(models, key=models.__getitem__)
        if archive.getinfo(str(latest)).file_size > _LARGEST_BYTES:
            raise _refusal(path, f"{latest} in it is far too large")
        return io.BytesIO(archive.read(str(latest)))


def _checked_parameters(path: Path, document: Any) -> dict[str, Tensor]:
    """The state dictionary, names without ``module.``; only finite float tensors pass."""
    if not isinstance(document, Mapping) or not document:
        raise _refusal(path, "it holds no parameters")
    parameters: dict[str, Tensor] = {}
    for name, tensor in document.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise _refusal(path, f"{name!r} is no parameter")
        if not tensor.is_floating_point() or tensor.layout != torch.strided:
            raise _refusal(path, f"{name!r} is not a plain float tensor")
        if not torch.isfinite(tensor).all():
            raise _refusal(path, f"{name!r} holds values that are not finite")
        plain = tensor.detach().to(torch.float32).clone(memory_format=torch.contiguous_format)
        parameters[name.removeprefix("module.")] = plain
    return parameters


def _configuration(path: Path, parameters: Mapping[str, Tensor]) -> GeneratorConfig:
    """The size of the network, read from the names and shapes of its parameters."""
    levels = {int(m[1]) for n in parameters if (m := re.match(r"body_models\.(\d+)\.", n))}
    modules = {
        int(m[1]) for n in parameters if (m := re.match(r"body_models\.0\.body\.(\d+)\.", n))
    }
    first = parameters.get("body_models.0.body.0.weight")
    if first is None or first.ndim != 4 or not 1 <= len(levels) <= 3 or len(modules) < 3:
        raise _refusal(path, "its parameters are not named like DeepDeblur-PyTorch's")
    return GeneratorConfig(
        body="resnet",
        scales=len(levels),
        channels=(first.shape[0],),
        encoder_blocks=(len(modules) - 2,),
        kernel_px=first.shape[-1],
        value_range=_VALUE_RANGE,
    )


def _our_name(name: str, config: GeneratorConfig) -> str | None:
    """What our network calls a parameter of theirs; None for a name it has no place for."""
    if match := re.fullmatch(r"conv_end_models\.([1-9])\.uppath\.0\.(weight|bias)", name):
        return f"levels.{int(match[1]) - 1}.from_coarser.{match[2]}"
    match = re.fullmatch(r"body_models\.(\d)\.body\.(\d+)(\.body\.[02])?\.(weight|bias)", name)
    if match is None:
        return None
    level, index, inner, kind = match[1], int(match[2]), match[3], match[4]
    blocks = config.encoder_blocks[0]
    if inner is None and index in (0, blocks + 1):
        return f"levels.{level}.{'head' if index == 0 else 'tail'}.{kind}"
    if inner is not None and 1 <= index <= blocks:
        part = "conv1" if inner == ".body.0" else "conv2"
        return f"levels.{level}.blocks.{index - 1}.{part}.{kind}"
    return None


def _refusal(path: Path, reason: str) -> WeightsError:
    return WeightsError(
        path,
        f"not a DeepDeblur-PyTorch checkpoint: {reason}",
        "give its models/model-N.pt or the published zip",
    )
