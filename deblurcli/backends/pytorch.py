"""Networks that PyTorch runs, on CPUs and GPUs, in several precisions."""

import re
from collections import Counter
from contextlib import nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deblurcli import devices
from deblurcli.devices import ConvolutionShape, Precision
from deblurcli.errors import logger
from deblurcli.models.compact import GatedBlock
from deblurcli.models.generator import quantised
from deblurcli.models.network import RestorationNetwork
from deblurcli.models.registry import kind_of

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# What PyTorch says in a plain RuntimeError: its CPU allocator on Linux and on Windows, MPS, and
# oneDNN, which gives no reason when there is no room for its kernels.
_OUT_OF_MEMORY = "DefaultCPUAllocator|not enough memory|out of memory|could not create a primitive"


class TorchBackend:
    """A network, where and in what PyTorch computes it, and what its tiles have to be: neighbours
    share `overlap_px`, start at multiples of `alignment_px`, and where they are cut unasked have
    sides of `max_tile_px` at most."""

    def __init__(self, network: RestorationNetwork, device: str, precision: str) -> None:
        """Moves the network to the device in place; raises what `choose_device` and
        `choose_precision` do."""
        self._kind = kind_of(network.config)
        self.overlap_px, self.alignment_px = self._kind.overlap_px, network.alignment_px
        self.device = devices.choose_device(device)
        # Of those convolutions that together hold the most parameters.
        parameters: Counter[ConvolutionShape] = Counter()
        gated = any(isinstance(module, GatedBlock) for module in network.modules())
        for conv in network.modules():
            if isinstance(conv, torch.nn.Conv2d) and conv.groups == 1:
                sizes = (conv.in_channels, conv.out_channels, conv.kernel_size[0])
                parameters[ConvolutionShape(*sizes, gated)] += conv.weight.numel()
        ((shape, _),) = parameters.most_common(1)
        self.precision = devices.choose_precision(precision, self.device, shape)
        if not self._kind.half_precision and self.precision.name in ("bf16", "fp16"):
            self.precision = Precision("fp32", f"{network.config.body} computes in nothing else")
        # Smaller tiles compute more twice, larger ones take more than docs/speed.md promises.
        self.max_tile_px = 896 if self.device.type == "cpu" else 2**20
        self.network: RestorationNetwork = network.to(self.device)
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d):  # others may have parameters of more dimensions
                # mypy: torch's stubs know no Module.to(memory_format=…)
                module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        # Another copy: `network` stays what was given, also to be counted.
        self._computing = quantised(network) if self.precision.name == "int8" else network

    def forward(self, blurred: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """Images ``(N, h, w, 3)`` in [0, 1], restored; None when out of memory."""
        restored = None
        try:
            restored = self._compute(blurred, self._dtype)
            if self.precision.name == "fp16" and not np.isfinite(restored).all():
                # fp16 ends at 65504; beyond that the picture would come out black.
                logger.info("fp16 overflowed; this part is computed in fp32 instead")
                restored = self._compute(blurred, torch.float32)
        except (torch.OutOfMemoryError, MemoryError):
            pass
        except RuntimeError as error:
            if not re.search(_OUT_OF_MEMORY, str(error)):
                raise
        # Not within the except block: its traceback would keep the tensors alive.
        if restored is None and self.device.type == "cuda":
            torch.cuda.empty_cache()
        return restored

    def _compute(self, blurred: NDArray[np.float32], dtype: torch.dtype) -> NDArray[np.float32]:
        half = nullcontext() if dtype == torch.float32 else torch.autocast(self.device.type, dtype)
        with torch.inference_mode(), half:
            # A permuted (N, H, W, 3) tensor is channels-last: nothing has to be copied.
            image = torch.from_numpy(blurred).to(self.device).permute(0, 3, 1, 2)
            restored: Tensor = self._computing(image)
            return restored.float().permute(0, 2, 3, 1).cpu().numpy()

    @property
    def _dtype(self) -> torch.dtype:
        """Of the features; in int8 only the largest convolutions are computed."""
        best = self.precision
        return _DTYPES[best.beside_int8 if best.name == "int8" else best.name]

    def max_pixels(self) -> int:
        """How many pixels one call of `forward` may have, by the memory that it may take."""
        budget_bytes = 2**31 if self.device.type == "mps" else devices.CPU_BUDGET_BYTES
        if self.device.type == "cuda":  # most of what is free now
            free, _ = torch.cuda.mem_get_info(self.device)
            # What PyTorch holds in reserve is free for us, too.
            free += torch.cuda.memory_reserved(self.device)
            budget_bytes = int(0.6 * (free - torch.cuda.memory_allocated(self.device)))
        return int(budget_bytes / self._kind.bytes_per_pixel(self.network, self._dtype))
