"""``deblur info``: what people paste into bug reports."""

import os
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

import deblurcli
from deblurcli import __version__
from deblurcli.cli import console, options
from deblurcli.weights import hub

Facts: TypeAlias = Mapping[str, str | int | bool | None]
Part: TypeAlias = str | Facts | Sequence[Facts]
"""One part of the document: a fact, several by name, or several of each of a few things."""

LIBRARIES = (
    *("torch", "numpy", "pillow", "pillow-heif", "imageio", "tifffile", "av", "safetensors"),
    *("typer", "pooch", "onnxruntime"),
)
VARIABLES = re.compile(
    r"DEBLUR_.*|PYTORCH_.*|CUDA_VISIBLE_DEVICES|(OMP|MKL)_NUM_THREADS|XDG_CACHE_HOME"
    r"|(?i:(HTTPS?|ALL|NO)_PROXY)|REQUESTS_CA_BUNDLE"
)
"""The variables that change what deblur does."""


def info(
    *,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    json: options.Json = False,
) -> None:
    """Show versions, devices, precision, and where the weights lie."""
    document = gather(device, precision)
    if json:
        console.print_json(document)
        return
    lines = []
    for title, part in document.items():
        heading = title.replace("_", " ")
        for thing in (part if isinstance(part, list) else [part]) or ["none"]:
            lines.append(f"{heading:<16} {as_text(thing)}".rstrip())
            heading = ""
    text = "\n".join(lines)
    # The user's name stays out of what is pasted in public.
    home = os.path.expanduser("~").rstrip(os.sep)  # noqa: PTH111  (may be what is broken)
    console.print_lines(text.replace(home + os.sep, "~" + os.sep) if len(home) > 1 else text)


def as_text(facts: Part) -> str:
    """``{"name": "cpu", "threads": 2, "cuda": None}`` as ``name cpu, threads 2``."""
    if not isinstance(facts, Mapping):
        return str(facts)
    words = []
    for name, fact in facts.items():
        if name.endswith("bytes") and isinstance(fact, int):
            words.append(f"{fact / 2**30:.1f} GiB" if fact > 2**30 else f"{fact / 1e6:.1f} MB")
        elif fact is True:
            words.append(name)
        elif fact not in (None, False):
            words.append(f"{name} {fact}")
    return ", ".join(words)


def gather(device: str = "auto", precision: str = "auto") -> dict[str, Part]:
    """All that `deblur info` knows, as one JSON document.

    A part that fails (a PyTorch that can't be imported, a damaged manifest) is
    ``{"error": "..."}`` in its place and hides nothing else.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # on Linux
    document: dict[str, Part] = {
        "deblurcli": __version__,
        "installed_in": str(Path(deblurcli.__file__).parent),
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "system": platform.platform(),
        "processor": {
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "usable_cores": len(affinity(0)) if affinity else None,
        },
    }

    @contextmanager
    def guard(title: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            lines = str(error).splitlines()
            document[title] = {"error": f"{type(error).__name__}: {lines[0] if lines else ''}"}

    versions: dict[str, str | None] = dict.fromkeys(LIBRARIES)
    for name in LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    document["libraries"] = versions
    without_torch = versions["torch"] is None and find_spec("torch") is None
    if without_torch:
        remedy = "ONNX Runtime restores" if versions["onnxruntime"] else "pip install torch"
        document["torch"] = f"not installed; {remedy}"
    else:
        with guard("torch"):
            import torch

            cuda, cudnn = torch.version.cuda, torch.backends.cudnn
            document["torch"] = {
                "version": torch.__version__,
                "threads": torch.get_num_threads(),
                "cpu_capability": torch.backends.cpu.get_cpu_capability(),
                "cuda": cuda,
                "cudnn": cudnn.version() if cuda else None,  # type: ignore[no-untyped-call]
                "rocm": torch.version.hip,
            }
        with guard("devices"):
            from deblurcli.devices import describe_devices

            document["devices"] = describe_devices()
    with guard("chosen"):
        from deblurcli.backends.onnx import OnnxBackend
        from deblurcli.devices import choose_device, choose_precision

        if without_torch:
            OnnxBackend.check(device, precision)
            name, best = OnnxBackend.device, OnnxBackend.precision
        else:
            place = choose_device(device)
            name, best = str(place), choose_precision(precision, place)
        document["chosen"] = {"device": name, "precision": best.name, "reason": best.reason}
    with guard("weights"):
        default = hub.catalogue().default
        rows: list[Facts] = [
            {
                "name": listing.entry.name,
                "default": listing.entry.name == default,
                "state": listing.state,
                "path": str(listing.path) if listing.path else None,
                "bytes": listing.entry.bytes or None,
                "sha256": listing.entry.sha256,
            }
            for listing in hub.listings()
        ]
        if not any(row["default"] for row in rows):
            rows.insert(0, {"name": default, "default": True, "state": "absent", "path": None})
        document["weights"] = rows
    document["weights_folders"] = [
        {"place": label, "folder": str(folder), "exists": folder.is_dir()}
        for label, folder in hub.places().items()
    ]
    variables = {}
    for name, value in sorted(os.environ.items()):
        if VARIABLES.fullmatch(name):
            # Passwords and keys in URLs are left out.
            without_user = re.sub(r"(^|//)[^/@\s]+@", r"\1***@", value)
            variables[name] = re.sub(r"(://[^?#\s]*)[?#]\S*", r"\1?***", without_user)
    document["environment"] = variables
    return document
