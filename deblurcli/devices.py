"""Where the network runs and in which precision, and why.

bf16 is chosen on its own only where the processor computes it natively: on CUDA from compute
capability 8.0 (Ampere), and on CPUs with AVX-512 BF16 or AMX where a convolution of the network's
own shape is measured to be faster than in fp32: of two CPUs that claim bf16, one ran it at twice
the speed of fp32, the other at 0.6 times. The answer is kept in the user's cache. How far bf16
stays from fp32 is stated at `Precision`.
"""

from __future__ import annotations

import json
import os
import platform
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import platformdirs
import torch
from numpy.typing import NDArray

from deblurcli.errors import DeviceError, UsageError

PrecisionName = Literal["fp32", "bf16", "fp16"]

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MIN_SPEEDUP = 1.1
"""How much faster than fp32 bf16 has to be on a CPU: it is less exact."""
_REMEDY_CPU = "use --device cpu or auto"


@dataclass(frozen=True)
class ConvolutionShape:
    """Of the convolution that stands for a network when precisions are timed; by default the
    one that holds most parameters of the default network."""

    in_channels: int = 128
    out_channels: int = 256
    kernel_px: int = 3


@dataclass(frozen=True)
class Precision:
    """In which precision the network's features are computed, and why.

    The images and the sums with them stay in fp32; only the features between are in `name`.
    On 8-bit output bf16 stays within 0.25/255 of fp32 in the mean, at a PSNR between the two
    of at least 50 dB (held by a test).
    """

    name: PrecisionName
    reason: str

    @property
    def dtype(self) -> torch.dtype:
        return _DTYPES[self.name]

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class DeviceDescription:
    """One device of this machine, for ``deblur info``.

    Attributes:
        name: as ``--device`` takes it.
        model: what the maker calls it.
        memory_bytes: its whole memory, None where unknown.
        precision: what ``--precision auto`` chooses there, and why.
    """

    name: str
    model: str
    memory_bytes: int | None
    precision: Precision


def choose_device(name: str = "auto") -> torch.device:
    """The device for a name: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    ``auto`` is CUDA where there is one, else Apple's MPS, else the CPU.

    Raises:
        UsageError: no such kind of device.
        DeviceError: there is none here.
    """
    name = name.strip().lower()
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, _, number = name.partition(":")
    if not re.fullmatch(r"cpu|mps|cuda(:[0-9]+)?", name):
        raise UsageError(name, "no such device", "give auto, cpu, cuda, cuda:1 or mps")
    if kind == "cuda":
        return _choose_cuda(name, int(number) if number else None)
    if kind == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(name, "no Apple GPU is available here", _REMEDY_CPU)
    return torch.device(kind)


def _choose_cuda(name: str, index: int | None) -> torch.device:
    if torch.version.cuda is None and torch.version.hip is None:
        raise DeviceError(
            name,
            "this PyTorch is built without CUDA",
            f"{_REMEDY_CPU}, or install PyTorch for CUDA (https://pytorch.org)",
        )
    if not torch.cuda.is_available():
        raise DeviceError(
            name, "no CUDA device is available here", f"{_REMEDY_CPU}, or check nvidia-smi"
        )
    count = torch.cuda.device_count()
    if index is None:
        index = torch.cuda.current_device()
    if index >= count:
        there = "cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise DeviceError(name, "no such CUDA device", f"give one of {there}")
    return torch.device("cuda", index)


def choose_precision(
    name: str, device: torch.device, shape: ConvolutionShape | None = None
) -> Precision:
    """The precision for a name (``auto``, ``fp32``, ``bf16``, ``fp16``) on a device.

    Args:
        shape: of the network's main convolution, which ``auto`` times on a CPU.

    Raises:
        UsageError: no such precision.
        DeviceError: the device doesn't compute in it.
    """
    if name == "auto":
        return _choose_automatically(device, shape or ConvolutionShape())
    if name == "fp32":
        return Precision("fp32", "asked for")
    if name == "bf16":
        if device.type == "mps":
            raise DeviceError("bf16", "not supported on Apple GPUs", "use --precision fp32 or fp16")
        native, where = _native_bf16(device)
        return Precision("bf16", "asked for" if native else f"asked for, though slow: {where}")
    if name == "fp16":
        if device.type == "cpu":
            raise DeviceError("fp16", "not supported on CPUs", "use --precision auto, bf16 or fp32")
        return Precision("fp16", "asked for")
    raise UsageError(name, "no such precision", "give auto, fp32, bf16 or fp16")


def _choose_automatically(device: torch.device, shape: ConvolutionShape) -> Precision:
    if device.type == "mps":
        return Precision("fp32", "half precision is not relied on on Apple GPUs")
    native, where = _native_bf16(device)
    if not native or device.type != "cpu":
        return Precision("bf16" if native else "fp32", where)
    speedup = bf16_speedup(shape)
    measured = f"bf16 is {speedup:.1f} times as fast as fp32 here, measured"
    return Precision("bf16" if speedup >= MIN_SPEEDUP else "fp32", measured)


def bf16_speedup(shape: ConvolutionShape) -> float:
    """How much faster a convolution is on this CPU in bf16 than in fp32.

    Timed once (some 50 ms), then taken from ``precision.json`` in the user's cache, where it is
    kept by CPU, PyTorch, number of threads and shape.
    """
    file = platformdirs.user_cache_path("deblurcli", appauthor=False) / "precision.json"
    key = f"{_cpu_model()}, torch {torch.__version__}, {shape}"
    known: dict[str, float] = {}
    with suppress(OSError, ValueError, TypeError):
        known = dict(json.loads(file.read_text(encoding="utf-8")))
        if key in known:
            return float(known[key])
    known[key] = round(_time_bf16(shape), 2)
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f"{file.name}.{os.getpid()}.part")
        part.write_text(json.dumps(known, indent=2), encoding="utf-8")
        part.replace(file)
    return known[key]


def _time_bf16(shape: ConvolutionShape) -> float:
    macs_per_pixel = shape.in_channels * shape.out_channels * shape.kernel_px**2
    side_px = min(256, max(16, int((3e8 / macs_per_pixel) ** 0.5)))
    best: dict[torch.dtype, float] = {}
    features = torch.full((1, shape.in_channels, side_px, side_px), 0.5)
    weight = torch.full((shape.out_channels, shape.in_channels, *2 * [shape.kernel_px]), 0.01)
    # In turn, and the best of each: other programs disturb both alike. The first warms up.
    with torch.inference_mode():
        for round_ in range(6):
            for dtype in (torch.float32, torch.bfloat16):
                x = features.to(dtype, memory_format=torch.channels_last)
                w = weight.to(dtype, memory_format=torch.channels_last)
                start = time.perf_counter()
                torch.nn.functional.conv2d(x, w)
                seconds = time.perf_counter() - start
                if round_:
                    best[dtype] = min(seconds, best.get(dtype, seconds))
    return best[torch.float32] / best[torch.bfloat16]


def _native_bf16(device: torch.device) -> tuple[bool, str]:
    """Whether `device` computes in bf16 natively, and in words why or why not."""
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        words = f"compute capability {major}.{minor}"
        if torch.version.hip is not None:
            return torch.cuda.is_bf16_supported(), "as ROCm reports it"
        if (major, minor) >= (8, 0):
            return True, f"native at {words}"
        return False, f"bf16 is not native at {words}"
    if _cpu_supports("_is_amx_tile_supported"):
        return True, "native on this CPU (AMX)"
    if _cpu_supports("_is_avx512_bf16_supported"):
        return True, "native on this CPU (AVX-512 BF16)"
    return False, "bf16 is not native on this CPU (neither AVX-512 BF16 nor AMX)"


def _cpu_supports(query: str) -> bool:
    # Private to PyTorch and added over several releases; absent means we can't rely on it.
    function = getattr(torch.cpu, query, None)
    with suppress(Exception):
        return bool(function and function())
    return False


def memory_budget_bytes(device: torch.device) -> int:
    """How much memory one forward pass may take on `device`.

    On the CPU a fixed amount that leaves the whole process far below 2 GB: more would not be
    faster there. On CUDA most of what is free now.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # What PyTorch holds in reserve is free for us, too.
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(0.6 * free)
    return (2048 if device.type == "mps" else 700) * 2**20


def describe_devices() -> list[DeviceDescription]:
    """All devices of this machine that we can use, the one ``auto`` takes first."""
    devices: list[DeviceDescription] = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            device = torch.device("cuda", index)
            properties = torch.cuda.get_device_properties(device)
            devices.append(
                DeviceDescription(
                    str(device),
                    properties.name,
                    properties.total_memory,
                    choose_precision("auto", device),
                )
            )
    if torch.backends.mps.is_available():
        memory_bytes = None
        with suppress(AttributeError, RuntimeError):  # not in every PyTorch
            memory_bytes = torch.mps.recommended_max_memory()
        precision = choose_precision("auto", torch.device("mps"))
        devices.append(DeviceDescription("mps", "Apple GPU", memory_bytes, precision))
    precision = choose_precision("auto", torch.device("cpu"))
    devices.append(DeviceDescription("cpu", _cpu_model(), _main_memory_bytes(), precision))
    return devices


def _cpu_model() -> str:
    threads = torch.get_num_threads()
    model = platform.processor() or platform.machine()
    with suppress(OSError, StopIteration, IndexError):
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
        model = next(line for line in lines if line.startswith("model name")).split(":", 1)[1]
    return f"{model.strip()}, {threads} thread{'s' if threads != 1 else ''}"


def _main_memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not on Windows
        return None


def send(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    """Copies an array to a device; where that is a GPU, without waiting for it."""
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
