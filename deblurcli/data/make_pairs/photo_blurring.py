"""Blurred and sharp pairs from sharp photos, written to files: `synthesis` for other programs
than our own training, or to look at what it sees."""

from __future__ import annotations

import os
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deblurcli.config import Recipe
from deblurcli.data.dataset import cut_picture, draw_region, measure_texture
from deblurcli.data.degradations import degrade, draw_degradation
from deblurcli.data.make_pairs.pair_folder import PairFolder
from deblurcli.data.synthesis import draw_exposure, draw_pattern, margin_px, render
from deblurcli.errors import DeblurError, NothingToDoError, UsageError
from deblurcli.io import media, photos

KINDS = ("blur", "sharp")


@dataclass(frozen=True)
class Photo:
    """A sharp photo and the name of its pairs, without their number."""

    path: Path
    name: str


@dataclass(frozen=True)
class Blurring:
    """How pairs are made from photos.

    Attributes:
        count: pairs of each photo.
        size_px: side of the pictures.
        seed: decides everything random.
        recipe: its motion, noise and jpeg are used.
    """

    count: int = 1
    size_px: int = 512
    seed: int = 0
    recipe: Recipe = field(default_factory=Recipe)

    @property
    def region_px(self) -> int:
        """Side of what is cut from a photo: motion brings in what lies beyond the picture."""
        return self.size_px + 2 * margin_px(self.recipe.motion)


def find_photos(sources: Sequence[Path], leave_out: Sequence[Path] = ()) -> list[Photo]:
    """The photos that the user named, in natural order.

    Args:
        sources: photos, and folders that hold such at any depth.
        leave_out: folders not to look into.

    Raises:
        DeblurError: a folder can't be read.
        NothingToDoError: there are none.
        UsageError: the pairs of two photos would have the same names.
    """
    found: dict[Path, Path] = {}
    for source in sources:
        if not source.is_dir():
            found[source] = Path(source.name)
            continue
        try:
            paths = media.find(source, recursive=True, leave_out=leave_out)
        except OSError as error:
            raise DeblurError(source, f"can't be read ({error.strerror})", "check it") from error
        found.update({path: path.relative_to(source) for path in paths})
    if not found:
        raise NothingToDoError(
            ", ".join(map(str, sources)), "no photos there", "give sharp photos, or a folder"
        )
    stems = Counter(os.path.normcase(relative.with_suffix("")) for relative in found.values())
    named: dict[str, Photo] = {}
    for path, relative in found.items():
        # IMG_1.HEIC and IMG_1.JPG may lie beside each other.
        alone = stems[os.path.normcase(relative.with_suffix(""))] == 1
        name = (relative.with_suffix("") if alone else relative).as_posix()
        key = os.path.normcase(name)
        if key in named:
            raise UsageError(
                path,
                f"its pairs would have the names of those of {named[key].path}",
                "give them in two runs with different -o",
            )
        named[key] = Photo(path, name)
    return list(named.values())


def pair_names(photo: Photo, blurring: Blurring) -> list[str]:
    """``NAME-1``, ``NAME-2``, …, with as many digits as are needed."""
    digits = len(str(blurring.count))
    return [f"{photo.name}-{number:0{digits}d}" for number in range(1, blurring.count + 1)]


class PhotoBlurrer:
    """Makes pairs from photos.

    Every pair is drawn from a generator of its own and rendered on its own, so that it is the
    same byte for byte whichever others are made in the same run. On another device the last
    bits may differ.

    Args:
        photos: all of the run: objects that move in one photo show parts of another.
        blurring: how.
        device: where to compute.
    """

    def __init__(self, photos: Sequence[Photo], blurring: Blurring, device: torch.device) -> None:
        self._photos, self._blurring, self._device = photos, blurring, device
        # Each photo serves several pairs in turn, and as the filling of others.
        self._read = lru_cache(maxsize=16)(self._read_photo)

    def make(self, photo: Photo, name: str) -> dict[str, NDArray[np.uint8]]:
        """The pair `name` of a photo: ``"blur"`` and ``"sharp"``, (size, size, 3) uint8.

        Raises:
            DeblurError: the photo can't be read or is too small.
        """
        blurring, recipe = self._blurring, self._blurring.recipe
        side = blurring.region_px
        rng = np.random.default_rng((blurring.seed, zlib.crc32(name.encode())))
        parts = []
        for filling in (False, True):
            chosen = self._photos[int(rng.integers(len(self._photos)))] if filling else photo
            try:
                picture, texture = self._read(chosen)
            except DeblurError:
                if not filling:
                    raise
                picture, texture = self._read(photo)  # the other is told of when its turn comes
            height, width = picture.shape[:2]
            part = cut_picture(picture, draw_region(rng, (width, height), side, texture), side)
            if rng.random() < recipe.motion.patterns:
                part = torch.from_numpy(draw_pattern(rng, side).transpose(2, 0, 1))
            parts.append(part[None].to(self._device).float() / 255)
        exposure = draw_exposure(rng, recipe.motion, side)
        degradation = draw_degradation(rng, recipe.noise, recipe.jpeg, recipe.noise_kind)
        with torch.inference_mode():
            blurred, sharp = render(parts[0], parts[1], [exposure], blurring.size_px)
            blurred = degrade(blurred, [degradation])
        return {"blur": _to_pixels(blurred), "sharp": _to_pixels(sharp)}

    def _read_photo(self, photo: Photo) -> tuple[Tensor, NDArray[np.float32]]:
        pixels = photos.read(photo.path).pixels  # sRGB, upright
        if pixels.dtype == np.uint16:
            pixels = np.rint(pixels / 257)
        picture = torch.from_numpy(np.array(pixels, dtype=np.uint8))
        height, width = picture.shape[:2]
        if min(height, width) < self._blurring.region_px:
            raise DeblurError(
                photo.path,
                f"is {width}x{height} pixels, smaller than the {self._blurring.region_px} that "
                f"pictures of {self._blurring.size_px} are made from",
                "give a smaller --size, or larger photos",
            )
        return picture, measure_texture(picture)


def write_pairs(
    photos: Sequence[Photo], blurring: Blurring, device: torch.device, folder: PairFolder
) -> Iterator[str | DeblurError | None]:
    """Makes and writes the pairs of photos.

    Yields:
        for each pair its name when it is written, None where the folder holds it already, or
        why its photo can't be used (once; then the rest of the photo's are None).

    Raises:
        DeblurError: nothing can be written.
    """
    folder.begin()
    blurrer = PhotoBlurrer(photos, blurring, device)
    for photo in photos:
        failed = False
        for name in pair_names(photo, blurring):
            if failed or folder.holds(name):
                yield None
                continue
            try:
                pictures = blurrer.make(photo, name)
            except DeblurError as error:
                failed = True
                yield error
                continue
            folder.write(name, pictures)
            yield name


def _to_pixels(picture: Tensor) -> NDArray[np.uint8]:
    scaled = (picture[0] * 255).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(scaled.cpu().numpy().transpose(1, 2, 0))
