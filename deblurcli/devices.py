"""Where the network runs and in which precision, and why; how it is chosen says docs/speed.md."""

import json
import math
import os
import platform
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import platformdirs
from numpy.typing import NDArray

from deblurcli.errors import DeblurError, DeviceError, UsageError
from deblurcli.io.files import atomic_output

if TYPE_CHECKING:  # PyTorch is imported where it is needed: not beside ONNX Runtime
    import torch

PrecisionName = Literal["fp32", "bf16", "fp16", "int8"]

MIN_SPEEDUP = 1.1  # that bf16 has to have on a CPU over fp32: it is less exact
# That int8 has to have in a gated block: the whole network then takes some two thirds of the time.
MIN_INT8_SPEEDUP = 2.0
X86 = platform.machine().lower() in ("x86_64", "amd64")
# Of one forward pass on a CPU: the whole process stays far below 2 GB, more is not faster.
CPU_BUDGET_BYTES = 700 * 2**20
_REMEDY_CPU = "use --device cpu or auto"


class BlockShape(NamedTuple):
    """Of the block that is timed for a network; by default the largest of `compact`'s."""

    channels: int = 128
    kernel_px: int = 3
    gated: bool = True  # the network has gated blocks, which can compute in int8


@dataclass(frozen=True)
class Precision:
    """In which precision the network's features are computed, and why.

    The images and the sums with them stay in fp32; only the features between are in `name`, and
    beside the convolutions that int8 computes, in `beside_int8`. On 8-bit output bf16 differs from
    fp32 by at most 0.25/255 in the mean, with a PSNR of at least 50 dB (held by a test).
    """

    name: PrecisionName
    reason: str
    beside_int8: PrecisionName = "fp32"

    def __str__(self) -> str:
        return self.name


def choose_device(name: str = "auto") -> "torch.device":
    """The device for ``cpu``, ``cuda``, ``cuda:N``, ``mps`` or ``auto``: CUDA, else MPS, else CPU.
    Raises UsageError for no such kind of device, DeviceError where there is none here."""
    import torch

    name = name.strip().lower()
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    apple = torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if gpus else "mps" if apple else "cpu"
    if not re.fullmatch(r"cpu|mps|cuda(:[0-9]+)?", name):
        raise UsageError(name, "no such device", "give auto, cpu, cuda, cuda:1 or mps")
    if name == "mps" and not apple:
        raise DeviceError(name, "no Apple GPU is available here", _REMEDY_CPU)
    if not name.startswith("cuda"):
        return torch.device(name)
    if torch.version.cuda is None and torch.version.hip is None:
        remedy = f"{_REMEDY_CPU}, or install PyTorch for CUDA (https://pytorch.org)"
        raise DeviceError(name, "this PyTorch is built without CUDA", remedy)
    if not gpus:
        remedy = f"{_REMEDY_CPU}, or check nvidia-smi"
        raise DeviceError(name, "no CUDA device is available here", remedy)
    index = int(name[5:]) if name != "cuda" else torch.cuda.current_device()
    if index >= gpus:
        there = "cuda:0" if gpus == 1 else f"cuda:0 to cuda:{gpus - 1}"
        raise DeviceError(name, "no such CUDA device", f"give one of {there}")
    return torch.device("cuda", index)


def choose_precision(  # noqa: PLR0911  (a table of rules)
    name: str, device: "torch.device", shape: BlockShape | None = None
) -> Precision:
    """The precision for ``auto``, ``fp32``, ``bf16``, ``fp16`` or ``int8`` (x86 CPUs) on a device.
    On a CPU ``auto`` times a block of this `shape`, the network's largest. Raises UsageError
    for no such precision, DeviceError where the device doesn't compute in it."""
    shape = shape or BlockShape()
    if name == "int8":
        if device.type != "cpu" or not X86:
            raise DeviceError("int8", "for x86 CPUs only", "use --precision auto")
        beside = choose_precision("auto", device, shape._replace(gated=False))
        return Precision("int8", f"asked for; beside it {beside}: {beside.reason}", beside.name)
    if name == "fp16" and device.type == "cpu":
        raise DeviceError("fp16", "not supported on CPUs", "use --precision auto, bf16 or fp32")
    if name == "fp32":
        return Precision("fp32", "asked for")
    if name == "fp16":
        return Precision("fp16", "asked for")
    if name not in ("auto", "bf16"):
        raise UsageError(name, "no such precision", "give auto, fp32, bf16, fp16 or int8")
    if device.type == "mps" and name == "bf16":
        raise DeviceError("bf16", "not supported on Apple GPUs", "use --precision fp32 or fp16")
    if device.type == "mps":
        return Precision("fp32", "half precision is not relied on on Apple GPUs")
    native, where = _native_bf16(device)
    if name == "bf16":
        return Precision("bf16", "asked for" if native else f"asked for, though slow: {where}")
    best: PrecisionName = "bf16" if native else "fp32"
    if device.type == "cpu":
        ms = time_block(shape, native)
        if native:
            speedup = ms["fp32"] / ms["bf16"]
            best = "bf16" if speedup >= MIN_SPEEDUP else "fp32"
            where = f"bf16 is {speedup:.1f} times as fast as fp32 here, measured"
        if shape.gated and "int8" in ms and (speedup := ms[best] / ms["int8"]) >= MIN_INT8_SPEEDUP:
            where = f"int8 is {speedup:.1f} times as fast as {best} here, measured"
            return Precision("int8", where, best)
    return Precision(best, where)


def time_block(shape: BlockShape, native_bf16: bool) -> dict[str, float]:
    """Milliseconds that a gated block takes on this CPU in fp32, in bf16 if that is native, and in
    int8 if this is an x86: timed once (some 100 ms), then taken from ``precision.json`` in the
    user's cache."""
    import torch

    from deblurcli.models.compact import GatedBlock, Int8GatedBlock

    file = platformdirs.user_cache_path("deblurcli", appauthor=False) / "precision.json"
    (channels, kernel_px, _), formats = shape, "fp32, bf16" if native_bf16 else "fp32"
    key = f"{_cpu_model()}, torch {torch.__version__}, {channels}, {kernel_px} px, {formats}"
    known: dict[str, dict[str, float]] = {}
    with suppress(OSError, ValueError, TypeError, AttributeError):
        known = dict(json.loads(file.read_text(encoding="utf-8")))
        if key in known:
            return {name: float(each) for name, each in known[key].items()}
    with torch.random.fork_rng(devices=()):
        block = GatedBlock(channels, kernel_px).requires_grad_(False)
    runs: list[tuple[str, torch.nn.Module, bool]] = [("fp32", block, False)]
    runs += [("bf16", block, True)] * native_bf16
    if X86:  # what is beside it in whichever is faster
        runs += [("int8", Int8GatedBlock(block), half) for _, _, half in runs]
    # Some milliseconds at most: a longer run seldom passes without another program's turn.
    side_px = max(16, 7000 // (channels * kernel_px))
    features = torch.full((1, side_px, side_px, channels), 0.5).permute(0, 3, 1, 2)
    ms: dict[str, float] = {}
    # In turn, and the best of each: other programs disturb all alike. The first warms up.
    for n, (name, module, half) in product(range(16), runs):
        x = features.bfloat16() if half else features
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            start = time.perf_counter()
            module(x)
            took = 1000 * (time.perf_counter() - start)
        ms[name] = min(took, ms.get(name, took)) if n else math.inf
    known[key] = {name: float(f"{each:.3g}") for name, each in ms.items()}
    with suppress(OSError, DeblurError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_output(file, overwrite=True) as part:
            part.write_text(json.dumps(known, indent=2), encoding="utf-8")
    return known[key]


def _native_bf16(device: "torch.device") -> tuple[bool, str]:
    """Whether `device` computes in bf16 natively, and in words why or why not."""
    import torch

    if device.type == "cuda":
        if torch.version.hip is not None:
            return torch.cuda.is_bf16_supported(), "as ROCm reports it"
        major, minor = torch.cuda.get_device_capability(device)
        where = f"native at compute capability {major}.{minor}"
        return (True, where) if major >= 8 else (False, f"bf16 is not {where}")
    for query in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        # Private to PyTorch and added over several releases; absent means we can't rely on it.
        with suppress(Exception):
            if getattr(torch.cpu, query)():
                return True, "native on this CPU"
    return False, "bf16 is not native on this CPU (neither AVX-512 BF16 nor AMX)"


def describe_devices() -> list[dict[str, str | int | None]]:
    """All devices of this machine that we can use, the one ``auto`` takes first: the name that
    ``--device`` takes, its maker's model, its whole memory in bytes (None where unknown), and which
    precision ``auto`` chooses there and why."""
    import torch

    devices: list[tuple[str, str, int | None]] = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        devices.append((f"cuda:{index}", properties.name, properties.total_memory))
    if torch.backends.mps.is_available():
        devices.append(("mps", "Apple GPU", torch.mps.recommended_max_memory()))
    memory_bytes = None
    with suppress(AttributeError, OSError, ValueError):  # not on Windows
        memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    devices.append(("cpu", _cpu_model(), memory_bytes))
    chosen = [choose_precision("auto", torch.device(name)) for name, _, _ in devices]
    keys = ("name", "model", "memory_bytes", "precision", "reason")
    rows = ((*row, best.name, best.reason) for row, best in zip(devices, chosen, strict=True))
    return [dict(zip(keys, row, strict=True)) for row in rows]


def _cpu_model() -> str:
    import torch

    threads = torch.get_num_threads()
    model = platform.processor() or platform.machine()
    with suppress(OSError, StopIteration, IndexError):
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
        model = next(line for line in lines if line.startswith("model name")).split(":", 1)[1]
    return f"{model.strip()}, {threads} thread{'s' if threads != 1 else ''}"


def send(array: NDArray[np.generic], device: "torch.device") -> "torch.Tensor":
    """Copies an array to a device; where that is a GPU, without waiting for it."""
    import torch

    tensor = torch.from_numpy(array)
    pinned = tensor.pin_memory() if device.type == "cuda" else tensor
    return pinned.to(device, non_blocking=True)
