"""``deblur info``: what people paste into bug reports.

Every part is gathered on its own, so that a broken one (a PyTorch that can't be imported, a
damaged manifest) is named in its place and hides nothing else.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import deblurcli
from deblurcli import __version__
from deblurcli.cli import console, options
from deblurcli.weights import hub

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
    else:
        print(_shorten_home("\n".join(_lines(document))))


def gather(device: str = "auto", precision: str = "auto") -> dict[str, Any]:
    """All that `deblur info` knows, as one JSON document.

    A part that fails is ``{"error": "..."}``.
    """
    return {
        "deblurcli": __version__,
        "installed_in": str(Path(deblurcli.__file__).parent),
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "system": platform.platform(),
        "libraries": _libraries(),
        "processor": _guarded(_processor),
        "torch": _guarded(_torch),
        "devices": _guarded(_devices),
        "chosen": _guarded(lambda: _chosen(device, precision)),
        "weights": _guarded(_weights),
        "weights_folders": _guarded(_folders),
        "cache": _guarded(_cache),
        "environment": _environment(),
    }


def _guarded(part: Callable[[], Any]) -> Any:
    try:
        return part()
    except Exception as error:
        lines = str(error).splitlines()
        return {"error": f"{type(error).__name__}: {lines[0] if lines else ''}"}


def _libraries() -> dict[str, str | None]:
    versions: dict[str, str | None] = {}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def _processor() -> dict[str, Any]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    return {"machine": platform.machine(), "cores": os.cpu_count(), "usable_cores": usable}


def _torch() -> dict[str, Any]:
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


def _devices() -> list[dict[str, Any]]:
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


def _chosen(device_name: str, precision_name: str) -> dict[str, Any]:
    from deblurcli.devices import choose_device, choose_precision

    device = choose_device(device_name)
    precision = choose_precision(precision_name, device)
    return {"device": str(device), "precision": precision.name, "reason": precision.reason}


def _weights() -> list[dict[str, Any]]:
    default = hub.catalogue().default
    found = hub.listings()
    rows: list[dict[str, Any]] = [
        {
            "name": listing.entry.name,
            "default": listing.entry.name == default,
            "state": listing.state,
            "path": str(listing.path) if listing.path else None,
            "bytes": listing.entry.bytes,
            "sha256": listing.entry.sha256,
        }
        for listing in found
    ]
    if not any(row["default"] for row in rows):
        rows.insert(0, {"name": default, "default": True, "state": "absent", "path": None})
    return rows


def _folders() -> list[dict[str, Any]]:
    return [
        {"place": p.label, "folder": str(p.folder), "exists": p.folder.is_dir()}
        for p in hub.places()
    ]


def _cache() -> dict[str, Any]:
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
                found[name] = _without_secrets(value)
    return found


def _without_secrets(value: str) -> str:
    value = re.sub(r"(^|//)[^/@\s]+@", r"\1***@", value)
    return re.sub(r"(://[^?#\s]*)[?#]\S*", r"\1?***", value)


def _lines(document: Mapping[str, Any]) -> list[str]:
    lines = [
        _fact("deblurcli", f"{document['deblurcli']}  in {document['installed_in']}"),
        _fact("Python", document["python"]),
        _fact("system", document["system"]),
        _fact("processor", _processor_text(document["processor"])),
        _fact("PyTorch", _torch_text(document["torch"])),
    ]
    versions = [f"{n} {v}" for n, v in document["libraries"].items() if v and n != "torch"]
    lines += [
        _fact("" if at else "libraries", ", ".join(versions[at : at + 4]))
        for at in range(0, len(versions), 4)
    ]
    missing = [n for n, v in document["libraries"].items() if not v and n != "onnxruntime"]
    if missing:
        lines.append(_fact("missing", ", ".join(missing)))
    lines += ["", *_section("devices", document["devices"], _device_lines)]
    lines += _section("chosen", [document["chosen"]], _chosen_lines)
    lines += ["", *_section("weights", document["weights"], _weights_lines)]
    lines += _section("searched", document["weights_folders"], _folder_lines)
    lines += _section("cache", [document["cache"]], _cache_lines)
    lines.append("")
    variables = [f"{name}={value}" for name, value in document["environment"].items()]
    lines += _section("environment", variables, lambda line: [line])
    return lines


def _fact(label: str, text: str) -> str:
    return f"{label:<12} {text}".rstrip()


def _section(label: str, items: Any, describe: Callable[[Any], list[str]]) -> list[str]:
    """The label beside the first line of the items, the others under it."""
    texts: list[str] = []
    for item in [items] if isinstance(items, Mapping) else items:
        failed = isinstance(item, Mapping) and "error" in item
        texts += [item["error"]] if failed else describe(item)
    return [_fact("" if at else label, text) for at, text in enumerate(texts or ["none"])]


def _processor_text(processor: Mapping[str, Any]) -> str:
    if "error" in processor:
        return str(processor["error"])
    text = f"{processor['machine']}, {processor['cores']} cores"
    usable = processor["usable_cores"]
    return text if usable in (None, processor["cores"]) else f"{text}, {usable} of them usable"


def _torch_text(torch: Mapping[str, Any]) -> str:
    if "error" in torch:
        return f"can't be imported: {torch['error']}"
    parts = [f"{torch['version']}, {torch['threads']} thread(s), {torch['cpu_capability']}"]
    parts += [
        f"{label} {torch[key]}"
        for key, label in (("cuda", "CUDA"), ("cudnn", "cuDNN"), ("rocm", "ROCm"))
        if torch[key]
    ]
    return ", ".join(parts)


def _device_lines(device: Mapping[str, Any]) -> list[str]:
    memory = device["memory_bytes"]
    size = f", {memory / 2**30:.1f} GiB" if memory else ""
    return [
        f"{device['name']}: {device['model']}{size}",
        f"  {device['precision']}: {device['reason']}",
    ]


def _chosen_lines(chosen: Mapping[str, Any]) -> list[str]:
    return [f"{chosen['device']}, {chosen['precision']}: {chosen['reason']}"]


def _weights_lines(entry: Mapping[str, Any]) -> list[str]:
    star = " *" if entry["default"] else ""
    if not entry["path"]:
        return [f"{entry['name']}{star}  {entry['state']}"]
    size = f"{entry['bytes'] / 1e6:.1f} MB"
    facts = f"{entry['state']}, {size}, sha256 {entry['sha256'][:12]}"
    return [f"{entry['name']}{star}  {facts}", f"  {entry['path']}"]


def _folder_lines(folder: Mapping[str, Any]) -> list[str]:
    absent = "" if folder["exists"] else "  (not there)"
    return [f"{folder['place']}: {folder['folder']}{absent}"]


def _cache_lines(cache: Mapping[str, Any]) -> list[str]:
    writable = "" if cache["writable"] else ", not writable"
    return [f"{cache['folder']}, {cache['bytes'] / 1e6:.1f} MB{writable}"]


def _shorten_home(text: str) -> str:
    """Keeps the user's name out of what is pasted in public."""
    home = os.path.expanduser("~").rstrip(os.sep)  # noqa: PTH111  (may be what is broken)
    return text.replace(home + os.sep, "~" + os.sep) if len(home) > 1 else text
