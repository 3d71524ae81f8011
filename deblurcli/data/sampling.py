"""What each training step sees: crops of real pairs, and regions to synthesise blur from.

The contents of step s are a pure function of the seed and s. So a resumed run goes on exactly
where it stopped, and several processes see together what one process would see alone.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from deblurcli.config import Recipe
from deblurcli.data.degradations import Degradation, draw_degradation
from deblurcli.data.layouts import Pair
from deblurcli.data.pictures import read_picture
from deblurcli.data.synthesis import Exposure, draw_exposure, draw_pattern, margin_px
from deblurcli.errors import DeblurError, UsageError

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Source:
    """Pictures to train on and how often they are drawn.

    Attributes:
        pairs: real blurred and sharp pairs, or
        photos: sharp photos that blur is synthesised from.
        weight: relative to the other sources.
    """

    pairs: tuple[Pair, ...] = ()
    photos: tuple[Path, ...] = ()
    weight: float = 1.0


@dataclass(frozen=True)
class Augmentation:
    """One of the eight flips and turns, a permutation of R, G, B and a saturation factor.

    Attributes:
        flip: left to right, before the turns.
        quarter_turns: against the clock.
        permutation: which of R, G and B each of them becomes.
        saturation: factor of what `hsv` says.
        hsv: whether the saturation is that of HSV, where the largest of R, G and B stays; else
            their mean stays.
    """

    flip: bool = False
    quarter_turns: int = 0
    permutation: tuple[int, int, int] = (0, 1, 2)
    saturation: float = 1.0
    hsv: bool = False


@dataclass
class StepData:
    """One process's share of a step, on the CPU.

    Attributes:
        slots: for each picture of the step, its number in the whole batch.
        real: slot to (blurred, sharp), each (3, P, P) uint8.
        synthetic: slot to (region, filling, exposure), the first two (3, R, R) uint8; only the
            slots whose picture is new in this step.
        augmentations, degradations: one for each of `slots`.
    """

    slots: list[int] = field(default_factory=list)
    real: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    synthetic: dict[int, tuple[Tensor, Tensor, Exposure]] = field(default_factory=dict)
    augmentations: list[Augmentation] = field(default_factory=list)
    degradations: list[Degradation] = field(default_factory=list)


class PictureCache:
    """Decoded pictures, the latest used ones kept up to a number of bytes."""

    def __init__(
        self, bytes_limit: int = 4 * 2**30, read: Callable[[Path], Pixels] = read_picture
    ) -> None:
        self._limit, self._read, self._held = bytes_limit, read, 0
        self._pictures: OrderedDict[Path, Pixels] = OrderedDict()

    def read(self, path: Path) -> Pixels:
        """(H, W, 3) uint8. Raises DeblurError naming a file that can't be read."""
        if path in self._pictures:
            self._pictures.move_to_end(path)
            return self._pictures[path]
        pixels = self._read(path)
        self._pictures[path] = pixels
        self._held += pixels.nbytes
        while self._held > self._limit and len(self._pictures) > 1:
            self._held -= self._pictures.popitem(last=False)[1].nbytes
        return pixels


class TrainingSteps(Dataset[StepData]):
    """Maps the number of a training step to its data.

    Args:
        sources: what to draw from.
        recipe: batch, reuse and augmentation.
        seed: decides everything random.
        patch_px, batch: of this stage of the training.
        first_step: where this run begins (all synthetic pictures are new there).
        rank, processes: this process takes every `processes`-th picture from `rank` on.
    """

    def __init__(
        self,
        sources: list[Source],
        recipe: Recipe,
        seed: int,
        *,
        patch_px: int,
        batch: int,
        first_step: int = 0,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.sources, self.recipe, self.seed = sources, recipe, seed
        self.patch_px, self.batch, self.first_step = patch_px, batch, first_step
        self.slots = range(rank, batch, processes)
        weights = np.array([source.weight for source in sources], dtype=float)
        self._shares = weights / weights.sum()
        self._cache = PictureCache()

    def __getitem__(self, step: int) -> StepData:
        data = StepData()
        for slot in self.slots:
            fresh = np.random.default_rng((self.seed, 1, step, slot))
            # Slots renew their pictures in turn, not all in the same step.
            version = (step + slot) // self.recipe.reuse
            rng = np.random.default_rng((self.seed, 2, version, slot, self.patch_px))
            source = self.sources[int(rng.choice(len(self.sources), p=self._shares))]
            if source.pairs:
                data.real[slot] = self._draw_pair(fresh, source)
            elif (step + slot) % self.recipe.reuse == 0 or step == self.first_step:
                data.synthetic[slot] = self._draw_regions(rng, source)
            data.slots.append(slot)
            data.augmentations.append(_draw_augmentation(fresh, self.recipe))
            recipe = self.recipe
            data.degradations.append(
                draw_degradation(fresh, recipe.noise, recipe.jpeg, recipe.noise_kind)
            )
        return data

    def _draw_pair(self, rng: np.random.Generator, source: Source) -> tuple[Tensor, Tensor]:
        pair = source.pairs[int(rng.integers(len(source.pairs)))]
        blurred, sharp = self._cache.read(pair.blurred), self._cache.read(pair.sharp)
        if blurred.shape != sharp.shape:
            raise DeblurError(
                pair.blurred, f"not of the size of {pair.sharp}", "take the pair out of the data"
            )
        row, column = _draw_textured_corner(rng, sharp, self.patch_px, pair.sharp)
        crop = (slice(row, row + self.patch_px), slice(column, column + self.patch_px))
        return _to_tensor(blurred[crop]), _to_tensor(sharp[crop])

    def _draw_regions(
        self, rng: np.random.Generator, source: Source
    ) -> tuple[Tensor, Tensor, Exposure]:
        side = self.patch_px + 2 * margin_px(self.recipe.motion)
        region, filling = (self._draw_region(rng, source, side) for _ in range(2))
        return region, filling, draw_exposure(rng, self.recipe.motion, side)

    def _draw_region(self, rng: np.random.Generator, source: Source, side_px: int) -> Tensor:
        if rng.random() < self.recipe.motion.patterns:
            return _to_tensor(draw_pattern(rng, side_px))
        path = source.photos[int(rng.integers(len(source.photos)))]
        return draw_region(rng, self._cache.read(path), side_px, path)


def draw_region(rng: np.random.Generator, pixels: Pixels, side_px: int, path: Path) -> Tensor:
    """A part of a sharp photo to synthesise blur from.

    Args:
        rng: the only source of randomness.
        pixels: (H, W, 3) of the photo.
        side_px: of the region.
        path: the photo's, for the error.

    Returns:
        (3, side_px, side_px) uint8.

    Raises:
        DeblurError: the photo is too small.
    """
    # Scaled down, photos become crisp and free of noise.
    largest = min(pixels.shape[:2]) / side_px
    scale = min(float(np.exp(rng.uniform(0.0, np.log(2.4)))), largest)
    cut = int(side_px * scale)
    row, column = _draw_textured_corner(rng, pixels, max(cut, side_px), path)
    crop = Image.fromarray(pixels[row : row + cut, column : column + cut])
    return _to_tensor(np.asarray(crop.resize((side_px, side_px), Image.Resampling.LANCZOS)))


def _draw_textured_corner(
    rng: np.random.Generator, pixels: Pixels, side_px: int, path: Path
) -> tuple[int, int]:
    """The upper left corner of the crop with most texture among three random ones.

    Many crops of any photo are flat: blur doesn't show there and nothing is to be learned.
    """
    rows, columns = pixels.shape[0] - side_px, pixels.shape[1] - side_px
    if rows < 0 or columns < 0:
        raise DeblurError(
            path,
            f"smaller than the {side_px} px that training cuts from it",
            "take it out of the data, or use smaller patches: --set patch_px=...",
        )
    corners = [(int(rng.integers(rows + 1)), int(rng.integers(columns + 1))) for _ in range(3)]

    def texture(corner: tuple[int, int]) -> float:
        row, column = corner
        green = pixels[row : row + side_px : 3, column : column + side_px, 1].astype(np.int16)
        return float(np.sqrt(np.abs(np.diff(green, axis=1))).mean())

    return max(corners, key=texture)


def _draw_augmentation(rng: np.random.Generator, recipe: Recipe) -> Augmentation:
    flip, turns = bool(rng.integers(2)), int(rng.integers(4))
    if not recipe.colour:
        return Augmentation(flip, turns)
    a, b, c = (int(i) for i in rng.permutation(3))
    saturation = float(rng.uniform(0.5, 1.5))
    return Augmentation(flip, turns, (a, b, c), saturation, recipe.saturation == "hsv")


def augment(images: Tensor, augmentation: Augmentation) -> Tensor:
    """Applies one augmentation to (…, 3, P, P) float pictures in [0, 1]."""
    a = augmentation
    if a.flip:
        images = images.flip(-1)
    images = torch.rot90(images, a.quarter_turns, (-2, -1))[..., list(a.permutation), :, :]
    # In HSV, hue and value stay if each channel's distance to the largest one is scaled.
    kept = images.amax(dim=-3, keepdim=True) if a.hsv else images.mean(dim=-3, keepdim=True)
    return (kept + a.saturation * (images - kept)).clamp(0, 1)


def _to_tensor(pixels: Pixels) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def parse_source(text: str) -> tuple[str, float]:
    """Splits ``FOLDER`` or ``FOLDER=WEIGHT``.

    Raises:
        UsageError: the weight is not above 0.
    """
    folder, separator, weight_text = text.rpartition("=")
    if not separator or Path(text).exists():
        return text, 1.0
    try:
        weight = float(weight_text)
    except ValueError:
        return text, 1.0
    if not 0 < weight < math.inf:
        raise UsageError(f"--data {text}", "the weight is not above 0", "write --data FOLDER=0.5")
    return folder, weight
