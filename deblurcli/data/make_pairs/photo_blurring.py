"""Blurred and sharp pairs from sharp photos, written to files: `synthesis` for other programs
than our own training, or to look at what it sees."""

from __future__ import annotations

import os
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deblurcli.config import Recipe
from deblurcli.data.dataset import crop_picture, draw_crop, measure_texture
from deblurcli.data.degradations import degrade, draw_degradation
from deblurcli.data.make_pairs.pair_folder import PairFolder, Pixels
from deblurcli.data.synthesis import draw_exposure, draw_pattern, margin_px, render
from deblurcli.errors import DeblurError, NothingToDoError, UsageError, cannot_read, too_small
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
    """The photos that the user named, and those at any depth of folders, in natural order.

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
            raise cannot_read(source, error) from error
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
    """Makes pairs from photos: objects that move in one show parts of another.

    Every pair is drawn from a generator of its own and rendered on its own, so that it is the
    same byte for byte whichever others are made in the same run. On another device the last
    bits may differ.
    """

    def __init__(self, photos: Sequence[Photo], blurring: Blurring, device: torch.device) -> None:
        self._photos, self._blurring, self._device = photos, blurring, device
        # Each photo serves several pairs in turn, and as the filling of others.
        self._read = lru_cache(maxsize=16)(partial(read_photo, blurring=blurring))

    def make(self, photo: Photo, name: str) -> dict[str, Pixels]:
        """The pair `name` of a photo: ``"blur"`` and ``"sharp"``, (size, size, 3) uint8.

        Raises:
            DeblurError: the photo can't be read or is too small.
        """
        blurring, recipe = self._blurring, self._blurring.recipe
        side = blurring.region_px
        rng = np.random.default_rng((blurring.seed, zlib.crc32(name.encode())))
        picture, texture = self._read(photo)
        parts = []
        for is_filling in (False, True):
            if is_filling:
                other = self._photos[int(rng.integers(len(self._photos)))]
                with suppress(DeblurError):  # which is told of when the other's turn comes
                    picture, texture = self._read(other)
            height, width = picture.shape[:2]
            crop = draw_crop(rng, (width, height), side, texture, scaled_down=True)
            part = crop_picture(picture, crop, side)
            if rng.random() < recipe.motion.patterns:
                part = draw_pattern(rng, side)
            parts.append(part[None].to(self._device).float() / 255)
        exposure = draw_exposure(rng, recipe.motion, side)
        degradation = draw_degradation(rng, recipe.noise, recipe.jpeg, recipe.noise_kind)
        with torch.inference_mode():
            blurred, sharp = render(parts[0], parts[1], [exposure], blurring.size_px)
            both = torch.cat((degrade(blurred, [degradation]), sharp)).permute(0, 2, 3, 1)
            levels = (both * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
        return dict(zip(KINDS, levels, strict=True))


def read_photo(photo: Photo, blurring: Blurring) -> tuple[Tensor, NDArray[np.float32]]:
    """(H, W, 3) uint8, sRGB, upright; and `measure_texture` of it.

    Raises:
        DeblurError: the photo can't be read or is too small.
    """
    pixels = photos.to_uint8(photos.read(photo.path).pixels)
    height, width = pixels.shape[:2]
    if min(height, width) < blurring.region_px:
        raise too_small(
            photo.path,
            (width, height),
            blurring.region_px,
            f"give a smaller --size than {blurring.size_px}, or larger photos",
        )
    picture = torch.from_numpy(np.array(pixels))
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
            done: str | DeblurError | None = None
            if not failed and not folder.holds(name):
                try:
                    pictures = blurrer.make(photo, name)
                except DeblurError as error:
                    failed, done = True, error
                else:
                    folder.write(name, pictures)
                    done = name
            yield done
