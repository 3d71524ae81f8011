"""`Deblurrer`: from a blurred image to a sharp one, the library's heart."""

import gc
import math
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from itertools import groupby, islice, product
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from deblurcli.backends.onnx import OnnxBackend
from deblurcli.devices import choose_device, choose_precision
from deblurcli.errors import AnyPath, DeviceMemoryError, UsageError, WeightsError, logger
from deblurcli.io.image import Image
from deblurcli.io.options import Progress
from deblurcli.tiling import Values, blend_weights, plan_spans
from deblurcli.weights import hub
from deblurcli.weights.download import ShowProgress
from deblurcli.weights.manifest import ModelCard

if TYPE_CHECKING:  # PyTorch is imported for what it runs only
    from deblurcli.backends.pytorch import TorchBackend
    from deblurcli.models.network import RestorationNetwork

MIN_TILE_PX = 128  # no tile is made smaller than this

_FULL_SCALE = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}

_ABSURD = 10.0  # pictures lie in [0, 1]; sound networks overshoot by a few tenths


class Deblurrer:
    """Restores motion-blurred images with one network on one device.

    Safe to use from several threads at once: nothing changes between calls but the size of the
    tiles, after the device ran out of memory.

    Attributes:
        network: the generator, on `device`; None where ONNX Runtime runs it.
        card: what the weights file, `weights_path`, says of itself.
        precision: in what it computes, and why.
        overlap_px: what neighbouring tiles share.
        tile_limit_px: what memory was found to allow; None as long as it sufficed.
    """

    backend: "TorchBackend | OnnxBackend"

    def __init__(
        self,
        network: "RestorationNetwork | OnnxBackend",
        device: str = "auto",
        precision: str = "auto",
        *,
        tile: str | int = "auto",
        strength: float = 1.0,
        ensemble: int = 1,
    ) -> None:
        """Uses a network that is in memory already, and moves it to `device` in place. Takes and
        raises what `load` does, which is the usual way."""
        self.tile = _check_settings(tile, strength, ensemble)
        self.strength, self.ensemble = float(strength), ensemble
        if isinstance(network, OnnxBackend):
            self.backend, self.network = network, None
        else:
            from deblurcli.backends.pytorch import TorchBackend

            self.backend, self.network = TorchBackend(network, device, precision), network
        self.device, self.precision = self.backend.device, self.backend.precision
        self.overlap_px = self.backend.overlap_px
        self.card = ModelCard()
        self.weights_path: Path | None = None
        self.tile_limit_px: int | None = None

    @classmethod
    def load(
        cls,
        weights: AnyPath = "default",
        device: str = "auto",
        precision: str = "auto",
        *,
        backend: str = "auto",
        tile: str | int = "auto",
        strength: float = 1.0,
        ensemble: int = 1,
        offline: bool = False,
        show_progress: ShowProgress | None = None,
    ) -> "Deblurrer":
        """Loads weights on a device.

        Args:
            weights: ``"default"``, another name that ``deblur weights list`` knows, or a path.
            device, precision: as for `choose_device` and `choose_precision`.
            backend: ``"torch"``; ``"onnx"``, which needs no PyTorch; or ``"auto"``: ONNX Runtime
                for .onnx files and where there is no PyTorch.
            tile: ``"auto"`` (tile images that would take too much memory otherwise), a side in
                pixels (at least `MIN_TILE_PX` is used), or 0: never tile.
            strength: the output is ``blurred + strength * (restored - blurred)``.
            ensemble: 1, 2, 4 or 8: the mean of so many flipped and turned copies' results, which
                is a little better and takes so many times as long.
            offline: never download.
            show_progress: gives the bar that shows a download.

        Raises:
            WeightsError: the weights are missing, damaged, or of another program.
            DeviceError: the device or precision is not available here.
            UsageError: a setting is unknown or out of range, or a package is not installed.
        """
        if backend not in ("auto", "torch", "onnx"):
            raise UsageError(backend, "no such backend", "give auto, torch or onnx")
        is_model = Path(weights).suffix == ".onnx"
        if is_model and backend == "torch":
            raise UsageError(weights, "ONNX Runtime runs it", "give --backend onnx")
        if is_model or (backend == "auto" and find_spec("torch") is None):
            backend = "onnx"
        # The cheap complaints first, before a download.
        _check_settings(tile, strength, ensemble)
        if backend == "onnx":
            OnnxBackend.check(device, precision)
        else:
            where = choose_device(device)
            if precision != "auto":  # that is measured with the network's own shape
                choose_precision(precision, where)
        path = hub.find(weights, offline=offline, show_progress=show_progress)
        network: RestorationNetwork | OnnxBackend
        if backend == "onnx":
            network = OnnxBackend(path)
            card = network.card
        else:
            from deblurcli.weights.files import load_weights

            network, card = load_weights(path)
        deblurrer = cls(network, device, precision, tile=tile, strength=strength, ensemble=ensemble)
        deblurrer.card, deblurrer.weights_path = card, path
        return deblurrer

    def restore(
        self, image: Image, *, out: Image | None = None, on_tile: Progress | None = None
    ) -> Image:
        """The restored image.

        Args:
            image: ``(H, W, 3)``, any H, W ≥ 1; uint8, uint16, or float32 in [0, 1]; sRGB.
                Any memory layout; it is not changed.
            out: the array for the result. It may be `image`: large ones need not be held twice.

        Returns:
            `out`, or a new array of the same shape and dtype, rounded to nearest, within the
            dtype's range (float32: [0, 1]).

        Raises:
            TypeError, ValueError: `image` is anything else.
            DeviceMemoryError: the device's memory is too small even for the smallest tile.
            WeightsError: what the network gives is not finite, or far from any picture.
        """
        check_image(image)
        height, width = image.shape[:2]
        try:
            output = np.empty((height, width, 3), image.dtype) if out is None else out
            if self.strength == 0:
                output[...] = image
                return output
            for rows, strip in self._strips(image, self.tile_px(height, width), on_tile):
                restored = self._finish(image[rows], strip)
                del strip  # before the next row of tiles is held beside it
                output[rows] = restored
            return output
        except MemoryError:
            # Not the network, which would have gone on with smaller tiles.
            reason = "not enough main memory for the picture itself"
            what = f"image of {width}×{height} pixels"
            raise DeviceMemoryError(what, reason, "close other programs") from None

    def _strips(
        self, image: Image, tile_px: int, on_tile: Progress | None = None
    ) -> Iterator[tuple[slice, Values]]:
        """As `restore_strips`; a tile for which memory runs out is restored in smaller ones."""
        height, width = image.shape[:2]
        tile_px = min(tile_px, self.tile_limit_px or tile_px)
        if max(height, width) <= tile_px:
            restored = self._forward(to_floats(image)[None])
            if restored is not None:
                if on_tile is not None:
                    on_tile(1, 1)
                yield slice(0, height), restored.squeeze(0)
                return
            device, step_px = str(self.device), self.backend.alignment_px
            tile_px = max(height, width) // 2 // step_px * step_px
            if tile_px < MIN_TILE_PX:
                reason = f"out of memory even with tiles of {MIN_TILE_PX} pixels"
                or_cpu = "" if device == "cpu" else ", or use --device cpu"
                raise DeviceMemoryError(device, reason, f"close other programs{or_cpu}")
            logger.warning("out of memory on %s: once more with tiles of %d px", device, tile_px)
            self.tile_limit_px = min(tile_px, self.tile_limit_px or tile_px)
            gc.collect()  # frames of the failed pass may hang in reference cycles

        def restore_tile(rows: slice, columns: slice) -> Values:
            strips = [strip for _, strip in self._strips(image[rows, columns], tile_px)]
            return strips[0] if len(strips) == 1 else np.concatenate(strips)

        yield from restore_strips(
            restore_tile,
            height,
            width,
            tile_px=tile_px,
            overlap_px=self.overlap_px,
            alignment_px=self.backend.alignment_px,
            on_tile=on_tile,
        )

    def _finish(self, blurred: Image, restored: Values) -> Image:
        """The change in `strength`, as an image of `blurred`'s dtype."""
        if self.strength != 1.0:
            before = to_floats(blurred)
            restored = before + np.float32(self.strength) * (restored - before)
        values = np.clip(restored, 0.0, 1.0)
        if blurred.dtype.kind != "f":
            values *= _FULL_SCALE[blurred.dtype.name]
            np.rint(values, out=values)
        finished: Image = values.astype(blurred.dtype, order="C")
        return finished

    def restore_batch(
        self, images: Sequence[Image], *, in_place: bool = False, on_tile: Progress | None = None
    ) -> list[Image]:
        """Restores several images; on a GPU, small ones of one size and dtype go together. The
        results are those of `restore` but for rounding. `on_tile` hears of those that go alone, and
        `in_place` puts their results into the images themselves."""
        for image in images:
            check_image(image)
        results: list[Image] = []
        for (shape, _), alike in groupby(images, lambda image: (image.shape, image.dtype)):
            same, limit = list(alike), self.max_batch(*shape[:2])
            for first in range(0, len(same), limit):
                group = same[first : first + limit]
                restored = None
                if len(group) > 1 and self.strength:
                    restored = self._forward(np.stack([to_floats(image) for image in group]))
                if restored is not None:
                    results += map(self._finish, group, restored)
                else:  # one, which may be large; or too many for the memory
                    results += [
                        self.restore(image, out=image if in_place else None, on_tile=on_tile)
                        for image in group
                    ]
        return results

    def max_batch(self, height: int, width: int) -> int:
        """How many images of this size to restore in one forward pass."""
        has_tiles = max(height, width) > self.tile_px(height, width)
        if has_tiles or str(self.device) == "cpu":  # there one keeps all cores busy
            return 1
        return max(1, min(32, self.max_pixels() // self._padded_pixels(height, width)))

    def _forward(self, blurred: Values) -> Values | None:
        """``(N, h, w, 3)`` restored, the mean of the ensemble; None when out of memory."""
        total: Values | None = None
        flips: tuple[tuple[int, ...], ...] = ((), (2,), (1, 2), (1,))  # dimensions of (N, H, W, C)
        for turned, flipped in islice(product((False, True), flips), self.ensemble):
            copy = np.flip(blurred.swapaxes(1, 2) if turned else blurred, flipped)
            restored = self.backend.forward(np.ascontiguousarray(copy))
            if restored is None:
                return None
            restored = np.flip(restored, flipped)
            restored = restored.swapaxes(1, 2) if turned else restored
            total = restored if total is None else total + restored
        assert total is not None
        if self.ensemble > 1:
            total *= np.float32(1 / self.ensemble)
        low, high = float(total.min()), float(total.max())
        if not (low > -_ABSURD and high < _ABSURD):  # written so that NaN fails, too
            reason = f"its results are no picture: values from {low:g} to {high:g}, not from 0 to 1"
            raise WeightsError(self.weights_path or self.card.name, reason, "use other weights")
        return total

    def tile_px(self, height: int, width: int) -> int:
        """The side of the tiles for an image of this size; its own where it isn't cut."""
        tile_px = max(height, width)
        if self.tile != "auto":
            tile_px = self.tile or tile_px
        elif self._padded_pixels(height, width) > (max_pixels := self.max_pixels()):
            tile_px = min(math.isqrt(max_pixels), self.backend.max_tile_px)
        return max(min(tile_px, self.tile_limit_px or tile_px), MIN_TILE_PX)

    def _padded_pixels(self, height: int, width: int) -> int:
        """What the network computes on: a strip of one pixel is as much work as a wide one."""
        step = self.backend.alignment_px
        return -(-height // step) * step * (-(-width // step) * step)

    def max_pixels(self) -> int:
        """How many pixels one forward pass may have, by the memory that it may take."""
        return max(MIN_TILE_PX**2, self.backend.max_pixels())


def restore_strips(
    restore: Callable[[slice, slice], Values],
    height_px: int,
    width_px: int,
    *,
    tile_px: int,
    overlap_px: int,
    alignment_px: int = 1,
    on_tile: Progress | None = None,
) -> Iterator[tuple[slice, Values]]:
    """Restores an image tile by tile and gives finished strips of rows, top to bottom.

    `restore` gives the result of the tile at these rows and columns, ``(h, w, C)`` float32; sizes
    are as for `plan_spans`, for both dimensions. A strip, ``(rows, width_px, C)``, is the
    receiver's to keep or change. Besides one tile, only the rows of pixels that the current row of
    tiles covers are held in floating point.
    """
    row_spans = plan_spans(height_px, tile_px, overlap_px, alignment_px)
    column_spans = plan_spans(width_px, tile_px, overlap_px, alignment_px)
    row_weights, column_weights = blend_weights(row_spans), blend_weights(column_spans)
    next_starts = [*(rows.start for rows in row_spans[1:]), height_px]
    count, done = len(row_spans) * len(column_spans), 0
    carried: Values | None = None  # what earlier rows of tiles added to rows of the next one
    for rows, row_weight, next_start in zip(row_spans, row_weights, next_starts, strict=True):
        band: Values | None = None
        for columns, column_weight in zip(column_spans, column_weights, strict=True):
            tile = restore(rows, columns)
            done += 1
            if on_tile is not None:
                on_tile(done, count)
            if band is None:
                band = np.zeros((len(row_weight), width_px, tile.shape[-1]), np.float32)
                if carried is not None:
                    band[: len(carried)] = carried
                    carried = None
            band[:, columns] += tile * (row_weight[:, None, None] * column_weight[:, None])
            del tile
        assert band is not None
        finished = next_start - rows.start  # the rows before the next row of tiles
        carried = band[finished:].copy()
        yield slice(rows.start, next_start), band[:finished]
        del band


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
            where = f"must lie in [0, 1], but go from {low:g} to {high:g}"
            raise ValueError(f"float32 values {where}: divide by 255 or 65535, or clip")


def to_floats(image: Image) -> Values:
    """``(h, w, 3)`` float32 in [0, 1], always a copy."""
    values = image.astype(np.float32, order="C")
    values /= np.float32(_FULL_SCALE[image.dtype.name])
    return values


def _check_settings(tile: str | int, strength: float, ensemble: int) -> int | Literal["auto"]:
    """The tile's side as a number, or "auto"."""
    if ensemble not in (1, 2, 4, 8):
        raise UsageError(f"ensemble {ensemble}", "no such number of copies", "give 1, 2, 4 or 8")
    if not 0.0 <= strength <= 1.0:
        raise UsageError(f"strength {strength}", "out of range", "give a number from 0 to 1")
    if tile == "auto":
        return "auto"
    if not str(tile).isdecimal():
        remedy = "give auto, 0 (never tile) or the side of a tile in pixels"
        raise UsageError(f"tile {tile}", "not a size", remedy)
    return int(tile)
