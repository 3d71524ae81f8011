"""``deblur info``: what people paste into bug reports.

Every part is gathered on its own, so that a broken one (a PyTorch that can't be imported, a
damaged manifest) is named in its place and hides nothing else.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TypeAlias

import deblurcli
from deblurcli import __version__
from deblurcli.cli import console, options
from deblurcli.weights import hub

Fact: TypeAlias = str | int | bool | None
Facts: TypeAlias = Mapping[str, Fact]
Part: TypeAlias = Fact | Facts | Sequence[Facts]
"""One part of the document: a fact, several by name, or several of each of a few things."""

_LIBRARIES = (
    "torch",
    "numpy",
    "pillow",
    "pillow-heif",
    "imageio",
    "tifffile",
    "av",
    "safetensors",
    "typer",
    "pooch",
    "onnxruntime",
)
_BARE = {"name", "version", "state", "path", "folder", "place", "model", "machine", "device"}
_BARE |= {"precision", "reason", "error"}
"""Facts that speak for themselves; of others the text gives the name, too."""
_VARIABLES = (
    "DEBLUR_*",
    "CUDA_VISIBLE_DEVICES",
    "PYTORCH_*",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "XDG_CACHE_HOME",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "REQUESTS_CA_BUNDLE",
)


def info(
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Show versions, devices, the precision chosen and why, and where the weights lie."""
    console.start(quiet=quiet, verbose=verbose)
    document = gather(device, precision)
    if json:
        console.print_json(document)
        return
    lines = []
    for title, part in document.items():
        things = part if isinstance(part, Sequence) and not isinstance(part, str) else [part]
        texts = [_text(thing) for thing in things] or ["none"]
        if title in ("libraries", "environment") and isinstance(part, Mapping):
            texts = [f"{name} {version or 'missing'}" for name, version in part.items()] or ["none"]
        heading = title.replace("_", " ")
        lines += [f"{'' if at else heading:<16} {text}".rstrip() for at, text in enumerate(texts)]
    text = "\n".join(lines)
    # The user's name stays out of what is pasted in public.
    home = os.path.expanduser("~").rstrip(os.sep)  # noqa: PTH111  (may be what is broken)
    print(text.replace(home + os.sep, "~" + os.sep) if len(home) > 1 else text)


def _text(part: Fact | Facts) -> str:
    """``{"name": "cpu", "threads": 2, "cuda": None}`` as ``cpu, threads 2``."""
    if not isinstance(part, Mapping):
        return str(part)
    words = []
    for name, fact in part.items():
        if fact is None or fact is False:
            continue
        if name.endswith("bytes") and isinstance(fact, int):
            words.append(f"{fact / 2**30:.1f} GiB" if fact > 2**30 else f"{fact / 1e6:.1f} MB")
        elif fact is True:
            words.append(name)
        else:
            words.append(str(fact) if name in _BARE else f"{name.replace('_', ' ')} {fact}")
    return ", ".join(words)


def gather(device: str = "auto", precision: str = "auto") -> dict[str, Part]:
    """All that `deblur info` knows, as one JSON document.

    A part that fails is ``{"error": "..."}``.
    """

    def guarded(part: Callable[[], Part]) -> Part:
        try:
            return part()
        except Exception as error:
            lines = str(error).splitlines()
            return {"error": f"{type(error).__name__}: {lines[0] if lines else ''}"}

    return {
        "deblurcli": __version__,
        "installed_in": str(Path(deblurcli.__file__).parent),
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "system": platform.platform(),
        "processor": {
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "usable_cores": len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else None,
        },
        "libraries": _libraries(),
        "torch": guarded(_torch),
        "devices": guarded(_devices),
        "chosen": guarded(lambda: _chosen(device, precision)),
        "weights": guarded(_weights),
        "weights_folders": [
            {"place": label, "folder": str(folder), "exists": folder.is_dir()}
            for label, folder in hub.places().items()
        ],
        "cache": guarded(_cache),
        "environment": _environment(),
    }


def _libraries() -> dict[str, str | None]:
    versions: dict[str, str | None] = {}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def _torch() -> Facts:
    import torch

    cudnn = None
    if torch.version.cuda:
        cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return {
        "version": torch.__version__,
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cuda": torch.version.cuda,
        "cudnn": cudnn,
        "rocm": torch.version.hip,
    }


def _devices() -> list[Facts]:
    from deblurcli.devices import describe_devices

    return [
        {
            "name": device.name,
            "model": device.model,
            "memory_bytes": device.memory_bytes,
            "precision": device.precision.name,
            "reason": device.precision.reason,
        }
        for device in describe_devices()
    ]


def _chosen(device_name: str, precision_name: str) -> Facts:
    from deblurcli.devices import choose_device, choose_precision

    device = choose_device(device_name)
    precision = choose_precision(precision_name, device)
    return {"device": str(device), "precision": precision.name, "reason": precision.reason}


def _weights() -> list[Facts]:
    default = hub.catalogue().default
    rows: list[Facts] = [
        {
            "name": listing.entry.name,
            "default": listing.entry.name == default,
            "state": listing.state,
            "path": str(listing.path) if listing.path else None,
            "bytes": listing.entry.bytes,
            "sha256": listing.entry.sha256,
        }
        for listing in hub.listings()
    ]
    if not any(row["default"] for row in rows):
        rows.insert(0, {"name": default, "default": True, "state": "absent", "path": None})
    return rows


def _cache() -> Facts:
    folder = hub.cache_folder()
    files = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    nearest = next(f for f in (folder, *folder.parents) if f.exists())
    return {
        "folder": str(folder),
        "bytes": sum(path.stat().st_size for path in files),
        "writable": os.access(nearest, os.W_OK),
    }


def _environment() -> dict[str, str]:
    """The variables that change what deblur does. Passwords and keys in URLs are left out."""
    found = {}
    for name, value in sorted(os.environ.items()):
        for pattern in _VARIABLES:
            prefix = pattern.removesuffix("*")
            if name.upper() == pattern or (pattern != prefix and name.startswith(prefix)):
                without_user = re.sub(r"(^|//)[^/@\s]+@", r"\1***@", value)
                found[name] = re.sub(r"(://[^?#\s]*)[?#]\S*", r"\1?***", without_user)
    return found
