"""Where the network runs and in which precision, and why; how it is chosen says docs/speed.md."""

import json
import os
import platform
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
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
Run = Callable[[], object]

MIN_SPEEDUP = 1.1  # that bf16 has to have on a CPU over fp32: it is less exact
MIN_INT8_SPEEDUP = 2.25  # that int8 has to have in a gated block: the network gains half as much
X86 = platform.machine().lower() in ("x86_64", "amd64")
# Of one forward pass on a CPU: the whole process stays far below 2 GB, more is not faster.
CPU_BUDGET_BYTES = 700 * 2**20
_REMEDY_CPU = "use --device cpu or auto"


class ConvolutionShape(NamedTuple):
    """Of the convolution that is timed for a network; by default the largest of `compact`'s."""

    in_channels: int = 128
    out_channels: int = 256
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
    name: str, device: "torch.device", shape: ConvolutionShape | None = None
) -> Precision:
    """The precision for ``auto``, ``fp32``, ``bf16``, ``fp16`` or ``int8`` (x86 CPUs) on a device.
    On a CPU ``auto`` times a convolution of this `shape`: the network's main one. Raises UsageError
    for no such precision, DeviceError where the device doesn't compute in it."""
    shape = shape or ConvolutionShape()
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
    if native and device.type == "cpu":
        speedup = bf16_speedup(shape)
        native = speedup >= MIN_SPEEDUP
        where = f"bf16 is {speedup:.1f} times as fast as fp32 here, measured"
    best: PrecisionName = "bf16" if native else "fp32"
    if device.type == "cpu" and X86 and shape.gated:
        speedup = int8_speedup(shape.in_channels, best)
        if speedup >= MIN_INT8_SPEEDUP:
            where = f"{speedup:.1f} times as fast as {best} here, measured; beside it {best}"
            return Precision("int8", where, best)
    return Precision(best, where)


def bf16_speedup(shape: ConvolutionShape) -> float:
    """How much faster a convolution is on this CPU in bf16 than in fp32, by `measure_speedup`."""
    from torch import bfloat16, float32, full
    from torch.nn.functional import conv2d

    macs_per_pixel = shape.in_channels * shape.out_channels * shape.kernel_px**2
    side_px = min(256, max(16, int((3e8 / macs_per_pixel) ** 0.5)))
    features = full((1, side_px, side_px, shape.in_channels), 0.5).permute(0, 3, 1, 2)
    weight = full((shape.out_channels, shape.in_channels, *2 * [shape.kernel_px]), 0.01)
    both = [(features.to(dtype), weight.to(dtype)) for dtype in (float32, bfloat16)]
    return measure_speedup(f"bf16, {shape[:3]}", *(partial(conv2d, *each) for each in both))


def int8_speedup(channels: int, beside: PrecisionName) -> float:
    """How much faster a gated block of so many features is on this CPU in int8 than in fp32 or
    bf16, by `measure_speedup`; 0 where this PyTorch has no such kernels."""
    import torch

    from deblurcli.models.compact import GatedBlock, Int8GatedBlock

    half = beside == "bf16"
    # Large enough not to fit into the nearest cache, as in a network.
    features = torch.full((1, 48, 48, channels), 0.5).permute(0, 3, 1, 2)
    features = features.bfloat16() if half else features
    with torch.random.fork_rng(devices=()):
        block = GatedBlock(channels, 3).requires_grad_(False)
    try:
        runs = [partial(each, features) for each in (block, Int8GatedBlock(block))]
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            return measure_speedup(f"int8, {channels} features, {beside}", *runs)
    except (AttributeError, RuntimeError):
        return 0.0


def measure_speedup(what: str, usual: Run, faster: Run) -> float:
    """How many times as much of the processor's time one run takes as another: measured once (some
    100 ms), then taken from ``precision.json`` in the user's cache, where `what` names it."""
    import torch

    file = platformdirs.user_cache_path("deblurcli", appauthor=False) / "precision.json"
    key = f"{_cpu_model()}, torch {torch.__version__}, {what}"
    known: dict[str, float] = {}
    with suppress(OSError, ValueError, TypeError):
        known = dict(json.loads(file.read_text(encoding="utf-8")))
        if key in known:
            return float(known[key])
    seconds, threads = {usual: 0.0, faster: 0.0}, torch.get_num_threads()
    # Not by the clock, in turn, and with one thread, as threads wait for each other in loops: so
    # other programs hardly disturb it. The first run warms up.
    torch.set_num_threads(1)
    with torch.inference_mode():
        for n, run in product(range(6), seconds):
            start = time.process_time()
            run()
            seconds[run] += (time.process_time() - start) if n else 0
    torch.set_num_threads(threads)
    known[key] = float(f"{seconds[usual] / max(seconds[faster], 1e-3):.3g}")
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
