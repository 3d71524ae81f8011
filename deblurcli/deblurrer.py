"""`Deblurrer`: from a blurred image to a sharp one, the library's heart."""

from __future__ import annotations

import gc
import math
import os
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deblurcli.devices import (
    ConvolutionShape,
    Precision,
    choose_device,
    choose_precision,
    memory_budget_bytes,
)
from deblurcli.errors import DeviceMemoryError, UsageError, WeightsError, logger
from deblurcli.models.generator import quantise
from deblurcli.models.network import RestorationNetwork, main_convolution
from deblurcli.models.registry import kind_of
from deblurcli.tiling import restore_strips
from deblurcli.weights.files import ModelCard, load_weights

if TYPE_CHECKING:
    from deblurcli.weights.download import ShowProgress

Image = NDArray[Any]
"""``(H, W, 3)`` uint8, uint16 or float32, sRGB."""

MIN_TILE_PX = 128
"""No tile is made smaller than this."""

_FULL_SCALE = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}

# Copies of an ensemble: the dimensions of (N, C, H, W) that are flipped, whether they are swapped.
_COPIES: tuple[tuple[tuple[int, ...], bool], ...] = tuple(
    (flipped, turned) for turned in (False, True) for flipped in ((), (3,), (2, 3), (2,))
)

_ABSURD = 10.0  # pictures lie in [0, 1]; sound networks overshoot by a few tenths

# What PyTorch says in a plain RuntimeError: its CPU allocator on Linux and on Windows, MPS, and
# oneDNN, which gives no reason when there is no room for its kernels.
_OUT_OF_MEMORY = (
    "DefaultCPUAllocator",
    "not enough memory",
    "out of memory",
    "could not create a primitive",
)


class Deblurrer:
    """Restores motion-blurred images with one network on one device.

    Safe to use from several threads at once: nothing changes between calls but the size of the
    tiles, after the device ran out of memory.

    Attributes:
        network: the generator, on `device`.
        card: what the weights file says of itself.
        weights_path: the file the weights came from; None for a network made in memory.
        device: where it computes.
        precision: in what, and why.
        strength: how much of the change is applied, 0 (none) to 1 (all).
        ensemble: how many turned and flipped copies the result is the mean of.
        overlap_px: what neighbouring tiles share.
        tile: ``"auto"``, 0 (never tile) or the tile's side in pixels.
        tile_limit_px: what memory was found to allow; None as long as it sufficed.
    """

    def __init__(
        self,
        network: RestorationNetwork,
        card: ModelCard | None = None,
        *,
        device: str = "auto",
        precision: str = "auto",
        tile: str | int = "auto",
        strength: float = 1.0,
        ensemble: int = 1,
        weights_path: str | os.PathLike[str] | None = None,
    ) -> None:
        """Uses a network that is in memory already; `load` is the usual way.

        The network is moved to `device` in place.

        Raises:
            UsageError: an unknown device or precision, a `tile`, `strength` or `ensemble` out of
                range.
            DeviceError: the device or precision is not available here.
        """
        self._kind = kind_of(network.config)
        self.overlap_px = self._kind.overlap_px
        self.tile = _check_settings(tile, strength, ensemble)
        self.strength = float(strength)
        self.ensemble = ensemble
        self.device = choose_device(device)
        shape = ConvolutionShape(*main_convolution(network))
        self.precision = choose_precision(precision, self.device, shape)
        if self.precision.name == "int8":
            try:
                quantise(network)
            except ValueError as error:
                raise UsageError(network.config.body, str(error), "use --precision auto") from None
        if not self._kind.half_precision and self.precision.name != "fp32":
            self.precision = Precision("fp32", f"{network.config.body} computes in nothing else")
        self.network: RestorationNetwork = network.to(self.device)
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d):  # others may have parameters of more dimensions
                # mypy: torch's stubs know no Module.to(memory_format=…)
                module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.card = card if card is not None else ModelCard()
        self.weights_path = weights_path
        self.tile_limit_px: int | None = None

    @classmethod
    def load(
        cls,
        weights: str | os.PathLike[str] = "default",
        device: str = "auto",
        precision: str = "auto",
        *,
        tile: str | int = "auto",
        strength: float = 1.0,
        ensemble: int = 1,
        offline: bool = False,
        show_progress: ShowProgress | None = None,
    ) -> Deblurrer:
        """Loads weights, by name or from a file, on a device.

        Args:
            weights: ``"default"``, another name that ``deblur weights list`` knows, or a path.
            device: ``"auto"`` (CUDA, else MPS, else CPU), ``"cpu"``, ``"cuda"``, ``"cuda:1"``
                or ``"mps"``.
            precision: ``"auto"``, ``"fp32"``, ``"bf16"``, ``"fp16"``, or ``"int8"`` (x86 CPUs).
            tile: ``"auto"`` (tile images that would take too much memory otherwise), a side in
                pixels (at least `MIN_TILE_PX` is used), or 0: never tile.
            strength: the output is ``blurred + strength * (restored - blurred)``.
            ensemble: 1, 2, 4 or 8: restore so many flipped and turned copies of the image and
                take their mean, which is a little better and takes so many times as long.
            offline: never download.
            show_progress: gives the bar that shows a download.

        Raises:
            WeightsError: the weights are missing, damaged, or of another program.
            DeviceError: the device or precision is not available here.
            UsageError: a setting is unknown or out of range.
        """
        from deblurcli.weights.hub import find

        # The cheap complaints first, before a download.
        _check_settings(tile, strength, ensemble)
        where = choose_device(device)
        if precision != "auto":  # that is measured with the network's own shape
            choose_precision(precision, where)
        path = find(weights, offline=offline, show_progress=show_progress)
        network, card = load_weights(path)
        return cls(
            network,
            card,
            device=device,
            precision=precision,
            tile=tile,
            strength=strength,
            ensemble=ensemble,
            weights_path=path,
        )

    def restore(self, image: Image) -> Image:
        """The restored image.

        Args:
            image: ``(H, W, 3)``, any H, W ≥ 1; uint8, uint16, or float32 in [0, 1]; sRGB.
                Any memory layout; it is not changed.

        Returns:
            A new array of the same shape and dtype, rounded to nearest, within the dtype's
            range (float32: [0, 1]).

        Raises:
            TypeError: not a NumPy array, or of another dtype.
            ValueError: another shape, or float values that are not in [0, 1].
            DeviceMemoryError: the device's memory is too small even for the smallest tile.
            WeightsError: what the network gives is not finite, or far from any picture.
        """
        check_image(image)
        if self.strength == 0:
            return image.copy()
        height, width = image.shape[:2]
        try:
            output = np.empty((height, width, 3), image.dtype)
            for rows, strip in restore_strips(
                lambda rows, columns: self._restore_region(to_tensor(image[rows, columns])),
                height,
                width,
                tile_px=self.tile_px(height, width),
                overlap_px=self.overlap_px,
                alignment_px=self.network.alignment_px,
            ):
                if self.strength != 1.0:
                    strip = to_tensor(image[rows]).lerp_(strip, self.strength)  # noqa: PLW2901
                output[rows] = to_image(strip, image.dtype)
            return output
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
        # Not the network, which would have gone on with smaller tiles.
        raise DeviceMemoryError(
            f"image of {width}×{height} pixels",
            "not enough main memory for the picture itself",
            "close other programs",
        )

    def restore_batch(self, images: Sequence[Image]) -> list[Image]:
        """Restores several images; on a GPU, small ones of one size and dtype go together.

        Takes and gives what `restore` does, in the same order, with the same result but for
        rounding.
        """
        for image in images:
            check_image(image)
        if self.strength == 0:
            return [image.copy() for image in images]
        results: list[Image] = []
        for (shape, dtype), same in groupby(images, lambda image: (image.shape, image.dtype)):
            left = list(same)
            while left:
                limit = self.max_batch(*shape[:2])
                group, left = left[:limit], left[limit:]
                if len(group) > 1:
                    blurred = torch.stack([to_tensor(image) for image in group])
                    restored = self._try_forward(blurred)
                    if restored is not None:
                        blurred.lerp_(restored, self.strength)
                        results += [to_image(sharp, dtype) for sharp in blurred]
                        continue
                # One, which may be large; or too many for the memory.
                results += [self.restore(image) for image in group]
        return results

    def max_batch(self, height: int, width: int) -> int:
        """How many images of this size to restore in one forward pass."""
        if self.device.type == "cpu":  # one image keeps all cores busy; more only take memory
            return 1
        if max(height, width) > self.tile_px(height, width):  # it has to be cut into tiles
            return 1
        return max(1, min(32, self.max_pixels() // self._padded_pixels(height, width)))

    def _restore_region(self, blurred: Tensor) -> Tensor:
        """Restores ``(h, w, 3)`` float32 in one forward pass, or, where the memory doesn't
        suffice, in tiles of half the size, and remembers that."""
        height, width = blurred.shape[:2]
        limit_px = self.tile_limit_px
        if limit_px is None or max(height, width) <= limit_px:
            restored = self._try_forward(blurred[None])
            if restored is not None:
                return restored[0]
            # Not within an except block: its traceback would keep the tensors alive.
            step = self.network.alignment_px
            limit_px = max(height, width) // 2 // step * step
            if limit_px < MIN_TILE_PX:
                raise DeviceMemoryError(
                    str(self.device),
                    f"out of memory even with tiles of {MIN_TILE_PX} pixels",
                    "close other programs"
                    + ("" if self.device.type == "cpu" else ", or use --device cpu"),
                )
            logger.warning(
                "out of memory on %s: going on with tiles of %d px", self.device, limit_px
            )
            self.tile_limit_px = min(limit_px, self.tile_limit_px or limit_px)
            gc.collect()  # frames of the failed pass may hang in reference cycles
        result = torch.empty_like(blurred)
        for rows, strip in restore_strips(
            lambda rows, columns: self._restore_region(blurred[rows, columns]),
            height,
            width,
            tile_px=limit_px,
            overlap_px=self.overlap_px,
            alignment_px=self.network.alignment_px,
        ):
            result[rows] = strip
        return result

    def _try_forward(self, blurred: Tensor) -> Tensor | None:
        """``(N, h, w, 3)`` float32 on the CPU, restored; None when out of memory."""
        restored = None
        try:
            restored = self._forward(blurred, self.precision.dtype)
            if self.precision.name == "fp16" and not bool(restored.isfinite().all()):
                # fp16 ends at 65504; beyond that the picture would come out black.
                logger.info("fp16 overflowed; this part is computed in fp32 instead")
                restored = self._forward(blurred, torch.float32)
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
        if restored is None:
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            return None
        low, high = (float(value) for value in restored.aminmax())
        if not (low > -_ABSURD and high < _ABSURD):  # written so that NaN fails, too
            raise WeightsError(
                self.weights_path or self.card.name or "network",
                f"its results are no picture: values from {low:g} to {high:g}, not from 0 to 1",
                "use other weights",
            )
        return restored

    def _forward(self, blurred: Tensor, dtype: torch.dtype) -> Tensor:
        half = nullcontext() if dtype == torch.float32 else torch.autocast(self.device.type, dtype)
        with torch.inference_mode(), half:
            # A permuted (N, H, W, 3) tensor is channels-last: nothing has to be copied.
            image = blurred.to(self.device).permute(0, 3, 1, 2)
            total = torch.zeros((), device=self.device)
            for flipped, turned in _COPIES[: self.ensemble]:
                copy = image.mT if turned else image
                restored = self.network(copy.flip(flipped) if flipped else copy).float()
                restored = restored.flip(flipped) if flipped else restored
                total = total + (restored.mT if turned else restored)
            return (total / self.ensemble).permute(0, 2, 3, 1).cpu()

    def tile_px(self, height: int, width: int) -> int:
        """The side of the tiles for an image of this size; its own where it isn't cut."""
        if self.tile == 0:
            return max(height, width)
        if self.tile != "auto":
            tile_px = self.tile
        elif self._padded_pixels(height, width) <= (max_pixels := self.max_pixels()):
            tile_px = max(height, width)
        else:
            tile_px = math.isqrt(max_pixels)
            if self.device.type == "cpu":
                tile_px = min(tile_px, self._kind.max_cpu_tile_px)
        return max(min(tile_px, self.tile_limit_px or tile_px), MIN_TILE_PX)

    def _padded_pixels(self, height: int, width: int) -> int:
        """What the network computes on: a strip of one pixel is as much work as a wide one."""
        step = self.network.alignment_px
        return -(-height // step) * step * (-(-width // step) * step)

    def max_pixels(self) -> int:
        """How many pixels one forward pass may have, by the memory that it may take."""
        budget = memory_budget_bytes(self.device)
        bytes_per_pixel = self._kind.bytes_per_pixel(self.network, self.precision.dtype)
        return max(MIN_TILE_PX**2, int(budget / bytes_per_pixel))


def check_image(image: Image) -> None:
    """Raises TypeError or ValueError, with clear words, for what is not an `Image`."""
    if not isinstance(image, np.ndarray):
        raise TypeError(f"image must be a NumPy array, not {type(image).__name__}")
    if image.dtype.name not in _FULL_SCALE:
        raise TypeError(f"image must be uint8, uint16 or float32, not {image.dtype}")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"image must have shape (H, W, 3) with H, W >= 1, not {image.shape}")
    if image.dtype.kind == "f":
        low, high = float(image.min()), float(image.max())
        if not (low >= 0.0 and high <= 1.0):  # written so that NaN fails, too
            raise ValueError(
                f"float32 values must lie in [0, 1], but go from {low:g} to {high:g}: "
                "divide by 255 or 65535, or clip"
            )


def to_tensor(image: Image) -> Tensor:
    """``(h, w, 3)`` float32 in [0, 1] on the CPU, always a copy."""
    return torch.from_numpy(image.astype(np.float32)).div_(_FULL_SCALE[image.dtype.name])


@torch.inference_mode()  # what a network gives may be changed in place only there
def to_image(values: Tensor, dtype: np.dtype[Any]) -> Image:
    """``(h, w, 3)`` float32, clipped to [0, 1], as `dtype`, rounded to nearest.

    Changes `values`.
    """
    values.clamp_(0.0, 1.0)
    if dtype.kind != "f":
        values.mul_(_FULL_SCALE[dtype.name]).round_()
    return values.numpy().astype(dtype)


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return any(words in str(error) for words in _OUT_OF_MEMORY)


def _check_settings(tile: str | int, strength: float, ensemble: int) -> int | Literal["auto"]:
    """The tile's side as a number, or "auto"."""
    if ensemble not in (1, 2, 4, 8):
        raise UsageError(f"ensemble {ensemble}", "no such number of copies", "give 1, 2, 4 or 8")
    if not 0.0 <= strength <= 1.0:
        raise UsageError(f"strength {strength}", "out of range", "give a number from 0 to 1")
    if tile == "auto":
        return "auto"
    try:
        tile_px = int(tile)
    except (TypeError, ValueError):
        tile_px = -1
    if tile_px < 0:
        remedy = "give auto, 0 (never tile) or the side of a tile in pixels"
        raise UsageError(f"tile {tile}", "not a size", remedy)
    return tile_px
