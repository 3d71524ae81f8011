"""Bringing in the weights that the paper's authors publish.

Their PyTorch release (github.com/SeungjunNah/DeepDeblur-PyTorch) saves ``models/model-N.pt``:
a pickled dictionary with the generator's parameters under ``G``, and a discriminator's under
``D`` where there was one. The generator's names are

    body_models.S.body.0                    first convolution of level S, 0 the finest
    body_models.S.body.I.body.0 and .2      the two convolutions of residual block I, from 1
    body_models.S.body.(last)               last convolution
    conv_end_models.S.uppath.0              what brings level S up to level S - 1

Pixel values there span 255 and are shifted by half of that; a level hands its shifted output
on, as our ``resnet`` body does.
"""

import io
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from deblurcli.errors import AnyPath, WeightsError, cannot_read
from deblurcli.models.config import GeneratorConfig
from deblurcli.models.network import RestorationNetwork
from deblurcli.models.registry import load_network
from deblurcli.weights.files import read_pickled

_MODEL_IN_ZIP = re.compile(r"([^/]+/)?models/model-\d+\.pt")


def read_published(source: AnyPath) -> RestorationNetwork:
    """The network of a published checkpoint, on the CPU in float32, in evaluation mode: of a
    ``.pt`` file, or of the ``models/model-N.pt`` with the largest N in a published zip archive.
    Raises WeightsError if it is missing, damaged, or holds anything else."""
    path = Path(source)
    document = read_pickled(path, _latest_model(path) if path.suffix == ".zip" else None)
    if isinstance(document, Mapping) and "G" in document and set(document) <= {"G", "D"}:
        document = document["G"]
    if not isinstance(document, Mapping):
        raise _refusal(path, "it holds no parameters")
    parameters: dict[str, Tensor] = {}
    for name, tensor in document.items():
        is_tensor = isinstance(tensor, Tensor) and tensor.layout == torch.strided
        finite = is_tensor and tensor.is_floating_point() and bool(tensor.isfinite().all())
        if not (isinstance(name, str) and finite):
            raise _refusal(path, f"{name!r} is no tensor of finite numbers")
        plain = tensor.detach().to(torch.float32).clone(memory_format=torch.contiguous_format)
        parameters[name.removeprefix("module.")] = plain

    # The names tell how many levels and blocks there are, the first shape the rest.
    numbers = [re.match(r"body_models\.(\d+)\.body\.(\d+)\.", name) for name in parameters]
    levels = {int(match[1]) for match in numbers if match}
    last = max((int(match[2]) for match in numbers if match), default=0)
    first = parameters.get("body_models.0.body.0.weight")
    if first is None or first.ndim != 4 or len(levels) > 3 or not 2 <= last <= 1000:
        raise _refusal(path, "its parameters are not named like DeepDeblur-PyTorch's")
    channels, kernel_px = first.shape[0], first.shape[-1]
    config = GeneratorConfig(
        "resnet", len(levels), (channels,), (last - 1,), kernel_px=kernel_px, value_range=255.0
    )
    our_names: dict[str, str] = {}
    for level in range(config.scales):
        theirs, ours = f"body_models.{level}.body", f"levels.{level}"
        our_names |= {f"{theirs}.0": f"{ours}.head", f"{theirs}.{last}": f"{ours}.tail"}
        for block in range(1, last):
            our_names[f"{theirs}.{block}.body.0"] = f"{ours}.blocks.{block - 1}.conv1"
            our_names[f"{theirs}.{block}.body.2"] = f"{ours}.blocks.{block - 1}.conv2"
        our_names[f"conv_end_models.{level + 1}.uppath.0"] = f"{ours}.from_coarser"
    try:
        renamed = {}
        for name, tensor in parameters.items():
            module, _, kind = name.rpartition(".")
            renamed[f"{our_names[module]}.{kind}"] = tensor
        network = load_network(config.to_json(), renamed)
    except KeyError as error:
        raise _refusal(path, f"unexpected {error}") from error
    except RuntimeError as error:
        raise _refusal(path, "parameters are missing or of other shapes") from error
    return network.eval().requires_grad_(False)


def _latest_model(path: Path) -> io.BytesIO:
    """The ``.pt`` file with the largest number in a published archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            models = [name for name in archive.namelist() if _MODEL_IN_ZIP.fullmatch(name)]
            if len({name.rpartition("/")[0] for name in models}) != 1:
                raise _refusal(path, "no models/model-N.pt is in it, or those of several runs")
            latest = max(models, key=lambda name: int(Path(name).stem.partition("-")[2]))
            return io.BytesIO(archive.read(latest))
    except OSError as error:
        raise cannot_read(path, error, error_class=WeightsError) from error
    except (zipfile.BadZipFile, zlib.error) as error:
        raise _refusal(path, "damaged") from error


def _refusal(path: Path, reason: str) -> WeightsError:
    remedy = "give its models/model-N.pt or the published zip"
    return WeightsError(path, f"not a DeepDeblur-PyTorch checkpoint: {reason}", remedy)
