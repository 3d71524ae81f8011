"""What each training step sees: crops of real pairs, and parts of photos to synthesise blur from.

`TrainingDataset` decides in worker processes everything that is random about a step, and cuts
what it needs from the pictures. `BatchRenderer` makes blurred and sharp patches of that on the
training device; where all pictures fit into a GPU's memory, it cuts them there, too, and the
processors only draw numbers.

The contents of step s are a pure function of the seed and s. So a resumed run goes on exactly
where it stopped, and several processes see together what one process would see alone.
"""

import math
import mmap
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from deblurcli.config import Recipe
from deblurcli.data.degradations import Degradation, degrade, draw_degradation
from deblurcli.data.layouts import Pair
from deblurcli.data.pictures import read_picture, read_sizes
from deblurcli.data.synthesis import Exposure, draw_exposure, draw_pattern, margin_px, render
from deblurcli.devices import send
from deblurcli.errors import DeblurError, UsageError

_TEXTURE_CELL_PX = 12
_CACHE_BYTES = 4 * 2**30  # of decoded pictures in each process, where they can't share memory


@dataclass(frozen=True)
class Source:
    """Pictures to train on: real pairs, or sharp photos that blur is synthesised from."""

    pairs: tuple[Pair, ...] = ()
    photos: tuple[Path, ...] = ()
    weight: float = 1.0  # how often they are drawn, relative to the other sources

    @property
    def paths(self) -> list[Path]:
        return [*self.photos, *(p for pair in self.pairs for p in (pair.blurred, pair.sharp))]


class PictureStore:
    """Decoded pictures, each decoded once for all processes where memory allows.

    Args:
        paths: the files; their headers are read now.
        shared: keep them in memory that forked processes share (Linux), as long as all of them
            take at most half of what is free; else each process keeps the latest ones.
    """

    def __init__(self, paths: Iterable[Path], *, shared: bool = False) -> None:
        self.paths = list(dict.fromkeys(paths))
        self.numbers = {path: number for number, path in enumerate(self.paths)}
        self.sizes = list(read_sizes(self.paths))
        self._starts = np.cumsum([0, *(3 * w * h for w, h in self.sizes)])
        self.total_bytes = int(self._starts[-1])
        self._memory: Tensor | None = None  # all pictures, and a byte for each that is there
        if shared and sys.platform == "linux":
            free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
            if self.total_bytes < free / 2:
                # Pages take memory when they are first written to, not before.
                memory = mmap.mmap(-1, self.total_bytes + len(self.paths))
                self._memory = torch.frombuffer(memory, dtype=torch.uint8)
        self._latest: dict[int, Tensor] = {}
        self._textures: dict[int, NDArray[np.float32]] = {}

    def __getitem__(self, number: int) -> Tensor:
        """(H, W, 3) uint8. Raises DeblurError naming a file that can't be read."""
        if self._memory is not None:
            width, height = self.sizes[number]
            start, end = self._starts[number : number + 2]
            picture = self._memory[start:end].view(height, width, 3)
            is_there = self._memory[self.total_bytes + number]
            if not is_there:
                # By NumPy: PyTorch would do it in threads, which a forked process can't use.
                picture.numpy()[...] = read_picture(self.paths[number])
                is_there.fill_(1)
            return picture
        latest = self._latest.get(number)
        if latest is None:
            latest = self._latest[number] = torch.from_numpy(read_picture(self.paths[number]))
            while sum(map(torch.Tensor.numel, self._latest.values())) > _CACHE_BYTES:
                del self._latest[next(iter(self._latest))]  # the first that was read
        return latest

    def texture(self, number: int) -> NDArray[np.float32]:
        """`measure_texture` of a picture, measured once."""
        if number not in self._textures:
            self._textures[number] = measure_texture(self[number])
        return self._textures[number]

    def load_onto(self, device: torch.device) -> list[Tensor]:
        """All pictures, decoded several at a time, on a device; here only textures are kept."""

        def load(number: int) -> Tensor:
            picture = torch.from_numpy(read_picture(self.paths[number]))
            self._textures[number] = measure_texture(picture)
            return picture.to(device)

        with ThreadPoolExecutor(min(32, os.cpu_count() or 1)) as threads:
            return list(threads.map(load, range(len(self.paths))))


def measure_texture(picture: Tensor) -> NDArray[np.float32]:
    """How rough an (H, W, 3) uint8 picture is: sums over all cells above and left of each corner
    of a grid, (rows + 1, columns + 1), for cells of `_TEXTURE_CELL_PX` px."""
    green = picture[::3, :, 1].numpy().astype(np.int16)
    roughness = np.sqrt(np.abs(np.diff(green, axis=1, append=green[:, -1:])))
    image = torch.from_numpy(roughness.astype(np.float32))[None]
    (cells,) = F.avg_pool2d(image, (_TEXTURE_CELL_PX // 3, _TEXTURE_CELL_PX), ceil_mode=True)
    return np.pad(cells.numpy(), ((1, 0), (1, 0))).cumsum(0).cumsum(1)


@dataclass(frozen=True)
class Crop:
    """A square to be cut from the picture of this number."""

    picture: int
    row: int
    column: int
    side_px: int


def draw_crop(
    rng: np.random.Generator,
    size: tuple[int, int],
    side_px: int,
    texture: NDArray[np.float32] | None = None,
    picture: int = 0,
    *,
    scaled_down: bool = False,
) -> Crop:
    """Draws a random square of `side_px` in a picture of this (width, height) and number.

    Args:
        texture: `measure_texture` of the picture: the square with most of it among three random
            ones is taken. Many crops of any photo are flat: blur doesn't show there and nothing
            is to be learned.
        scaled_down: draw a square of up to 2.4 times the side, to be scaled to `side_px`: photos
            become crisp and free of noise so.
    """
    if scaled_down:
        largest = min(size) / side_px
        side_px = int(side_px * min(float(np.exp(rng.uniform(0.0, np.log(2.4)))), largest))
    width, height = size

    def draw() -> Crop:
        row, column = rng.integers(height - side_px + 1), rng.integers(width - side_px + 1)
        return Crop(picture, int(row), int(column), side_px)

    if texture is None:
        return draw()

    def roughness(crop: Crop) -> float:
        top, left = crop.row // _TEXTURE_CELL_PX, crop.column // _TEXTURE_CELL_PX
        bottom = -(-(crop.row + side_px) // _TEXTURE_CELL_PX)
        right = -(-(crop.column + side_px) // _TEXTURE_CELL_PX)
        corners = texture[bottom, right] - texture[top, right]
        corners -= texture[bottom, left] - texture[top, left]
        return float(corners) / ((bottom - top) * (right - left))

    return max((draw() for _ in range(3)), key=roughness)


def crop_picture(picture: Tensor, crop: Crop, size_px: int) -> Tensor:
    """A part of an (H, W, 3) uint8 picture, scaled to (3, size_px, size_px) uint8 on its device."""
    row, column, side_px = crop.row, crop.column, crop.side_px
    part = picture[row : row + side_px, column : column + side_px].permute(2, 0, 1)
    if side_px == size_px:
        return part.contiguous()
    # Only CPUs scale whole numbers, and five times as fast.
    part = part[None] if part.device.type == "cpu" else part[None].float()
    scaled = F.interpolate(part, (size_px, size_px), mode="bicubic", antialias=True)
    return scaled[0].float().round().clamp(0, 255).to(torch.uint8)


@dataclass
class Augmentation:
    """One of the eight flips and turns, a permutation of R, G, B and a saturation factor."""

    flip: bool = False  # left to right, before the turns
    quarter_turns: int = 0  # against the clock
    permutation: tuple[int, ...] = (0, 1, 2)  # which of R, G and B each of them becomes
    saturation: float = 1.0  # factor of what the recipe says


@dataclass
class Sample:
    """All that is random about one patch of a step. Its parts are blurred and sharp of a real pair;
    or scene, and filling of moving objects, to blur; or none, where the last pair serves again."""

    slot: int  # its number in the whole batch
    parts: tuple[Crop | int, ...]  # yet to be cut, or lying in `StepData.pixels` from here on
    side_px: int  # of the parts
    exposure: Exposure | None  # of a synthesised pair
    augmentation: Augmentation
    degradation: Degradation


@dataclass
class StepData:
    """One process's share of a step, on the CPU; `pixels` is flat uint8."""

    patch_px: int
    samples: list[Sample]
    pixels: Tensor

    def pin_memory(self) -> "StepData":
        """Called by DataLoader, so that the copy to a GPU needn't be waited for."""
        if len(self.pixels):
            self.pixels = self.pixels.pin_memory()
        return self


@dataclass(eq=False)
class TrainingDataset(Dataset["StepData | DeblurError"]):
    """Maps the number of a training step to its data."""

    sources: Sequence[Source]
    store: PictureStore  # holds their pictures
    recipe: Recipe
    seed: int  # decides everything random
    stage: int = -1  # of the recipe's stages
    first_step: int = 0  # where this run begins; all synthetic pictures are new there
    rank: int = 0  # this process's number
    processes: int = 1  # how many share each step
    crop_here: bool = True  # else `BatchRenderer` cuts the pictures

    def __post_init__(self) -> None:
        batch, self.patch_px = self.recipe.stages[self.stage]
        self.region_px = self.patch_px + 2 * margin_px(self.recipe.motion)
        # Neighbours stay together: they may share a picture.
        first, end = (batch * rank // self.processes for rank in (self.rank, self.rank + 1))
        self.slots = range(first, end)
        weights = np.array([source.weight for source in self.sources])
        self._shares = weights / weights.sum()

    def draw(self, step: int) -> StepData:
        """This process's share of a step. Raises DeblurError where a picture can't be read."""
        recipe, samples, pixels, length = self.recipe, [], [], 0

        def crop_of(
            path: Path, rng: np.random.Generator, side_px: int, *, scaled_down: bool = False
        ) -> Crop:
            number = self.store.numbers[path]
            texture = self.store.texture(number) if recipe.crops == "textured" else None
            size = self.store.sizes[number]
            return draw_crop(rng, size, side_px, texture, number, scaled_down=scaled_down)

        for slot in self.slots:
            fresh = np.random.default_rng((self.seed, 1, step, slot))
            # Slots renew their pictures in turn, not all in the same step.
            group = slot // recipe.patches_per_picture
            version, age = divmod(step + group, recipe.reuse)
            rng = np.random.default_rng((self.seed, 2, version, slot, self.patch_px))
            which = np.random.default_rng((self.seed, 3, version, group, self.patch_px))
            source = self.sources[int(which.choice(len(self.sources), p=self._shares))]
            exposure: Exposure | None = None
            parts: list[Crop | Tensor] = []
            side_px = self.patch_px
            if source.pairs:
                pair = source.pairs[int(which.integers(len(source.pairs)))]
                crop = crop_of(pair.sharp, fresh, side_px)
                parts = [replace(crop, picture=self.store.numbers[pair.blurred]), crop]
            elif age == 0 or step == self.first_step:
                side_px = self.region_px
                exposure = draw_exposure(rng, recipe.motion, side_px)
                for chooses in (which, rng):  # of the scene, and of what fills moving objects
                    if rng.random() < recipe.motion.patterns:
                        parts.append(draw_pattern(rng, side_px))
                    else:
                        photo = source.photos[int(chooses.integers(len(source.photos)))]
                        parts.append(crop_of(photo, rng, side_px, scaled_down=True))
            placed: list[Crop | int] = []
            for part in parts:
                if isinstance(part, Tensor):
                    piece = part
                elif self.crop_here:
                    piece = crop_picture(self.store[part.picture], part, side_px)
                else:
                    placed.append(part)
                    continue
                pixels.append(piece.flatten())
                placed.append(length)
                length += piece.numel()
            augmentation = Augmentation(bool(fresh.integers(2)), int(fresh.integers(4)))
            if recipe.colour:
                augmentation.permutation = tuple(fresh.permutation(3).tolist())
                augmentation.saturation = float(fresh.uniform(0.5, 1.5))
            degradation = draw_degradation(fresh, recipe.noise, recipe.jpeg, recipe.noise_kind)
            drawn = (exposure, augmentation, degradation)
            samples.append(Sample(slot, tuple(placed), side_px, *drawn))
        nothing = torch.empty(0, dtype=torch.uint8)
        return StepData(self.patch_px, samples, torch.cat(pixels or [nothing]))

    def __getitem__(self, step: int) -> StepData | DeblurError:
        """For DataLoader: `draw`, with an error as data, because of what a worker process raises
        only the text arrives."""
        try:
            return self.draw(step)
        except DeblurError as error:
            return error

    def steps(self, workers: int, *, pin_memory: bool = False) -> Iterator[StepData]:
        """The data of the steps from `first_step` on, without end, prepared by `workers`
        processes, or by this one between the steps. Raises DeblurError as `draw` does."""
        loader: DataLoader[StepData | DeblurError] = DataLoader(
            self,
            batch_size=None,
            sampler=count(self.first_step),
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            pin_memory=pin_memory,
            worker_init_fn=_leave_signals,
            # Elsewhere than on Linux, forking is not safe; there the store isn't shared either.
            multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
        )
        for data in loader:
            if isinstance(data, DeblurError):
                raise data
            yield data


def _leave_signals(worker: int) -> None:
    """Ctrl-C and SIGTERM go to all processes of a run: the main one decides when to end."""
    del worker
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


class BatchRenderer:
    """Makes what `TrainingDataset` drew into batches on the training device; with a `store`, all
    of its pictures are kept there and cut there."""

    def __init__(
        self, recipe: Recipe, device: torch.device, store: PictureStore | None = None
    ) -> None:
        self.recipe, self.device = recipe, device
        self.pictures = store.load_onto(device) if store is not None else []
        self._pairs: dict[int, Tensor] = {}  # those that are used again, by slot

    @torch.no_grad()
    def render(self, data: StepData) -> tuple[Tensor, Tensor]:
        """Blurred and sharp, each (N, 3, P, P) float32 in [0, 1] on the device. Pairs that are
        reused come from the steps before, so steps are to be rendered in turn."""
        pixels = data.pixels.to(self.device, non_blocking=True)

        def fetch(part: Crop | int, side_px: int) -> Tensor:
            if isinstance(part, Crop):
                return crop_picture(self.pictures[part.picture], part, side_px)
            return pixels[part : part + 3 * side_px**2].view(3, side_px, side_px)

        scenes, exposures = {}, []
        for sample in data.samples:
            if sample.parts:
                parts = torch.stack([fetch(part, sample.side_px) for part in sample.parts])
                if sample.exposure is None:
                    self._pairs[sample.slot] = parts.float() / 255
                else:
                    scenes[sample.slot] = parts
                    exposures.append(sample.exposure)
        if scenes:
            regions, fillings = (torch.stack(list(scenes.values())).float() / 255).unbind(1)
            pairs = torch.stack(render(regions, fillings, exposures, data.patch_px), dim=1)
            self._pairs.update(zip(scenes, pairs, strict=True))
        batch = torch.stack([self._pairs[sample.slot] for sample in data.samples])
        augmentations = [sample.augmentation for sample in data.samples]
        batch = augment(batch, augmentations, hsv=self.recipe.saturation == "hsv")
        degradations = [sample.degradation for sample in data.samples]
        blurred = degrade(batch[:, 0], degradations, rounded=self.recipe.rounded)
        return blurred.contiguous(memory_format=torch.channels_last), batch[:, 1].contiguous()


def augment(images: Tensor, augmentations: Sequence[Augmentation], *, hsv: bool = False) -> Tensor:
    """Applies one augmentation to each of (N, …, 3, P, P) float pictures in [0, 1], or groups of
    them. With `hsv`, saturation leaves the largest of R, G and B as it is, else their mean."""
    n, device = len(images), images.device
    drawn = [(*a.permutation, a.flip, a.quarter_turns, a.saturation) for a in augmentations]
    numbers = send(np.array(drawn, dtype=np.float32), device)
    one = [1] * (images.ndim - 1)  # broadcasts over a picture
    flips, turns, saturations = (column.view(n, *one) for column in numbers[:, 3:].unbind(1))
    images = torch.where(flips > 0, images.flip(-1), images)
    images = torch.where(turns >= 2, images.flip(-1, -2), images)
    images = torch.where(turns % 2 > 0, images.rot90(1, (-2, -1)), images)
    channels = numbers[:, :3].long().view(n, *one[:-3], 3, 1, 1).expand(images.shape)
    images = images.gather(-3, channels)
    # In HSV, hue and value stay if each channel's distance to the largest one is scaled.
    kept = images.amax(dim=-3, keepdim=True) if hsv else images.mean(dim=-3, keepdim=True)
    return (kept + saturations * (images - kept)).clamp(0, 1)


def parse_source(text: str) -> tuple[str, float]:
    """Splits ``FOLDER`` or ``FOLDER=WEIGHT``. Raises UsageError for a weight not above 0."""
    folder, separator, number = text.rpartition("=")
    if not separator or Path(text).exists():
        return text, 1.0
    try:
        weight = float(number)
    except ValueError:
        return text, 1.0
    if not 0 < weight < math.inf:
        raise UsageError(f"--data {text}", "the weight is not above 0", "write --data FOLDER=0.5")
    return folder, weight
