"""Blurred and sharp pairs from sharp photos, written to files: `synthesis` for other programs
than our own training, or to look at what it sees."""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deblurcli.config import Recipe
from deblurcli.data.dataset import crop_picture, draw_crop, measure_texture
from deblurcli.data.degradations import degrade, draw_degradation
from deblurcli.data.make_pairs.pair_folder import PairFolder
from deblurcli.data.synthesis import draw_exposure, draw_pattern, margin_px, render
from deblurcli.errors import DeblurError, NothingToDoError, UsageError, cannot_read, too_small
from deblurcli.io import media, photos
from deblurcli.io.image import Image, to_uint8

KINDS = ("blur", "sharp")


@dataclass(frozen=True)
class Blurring:
    """How pairs are made from photos."""

    count: int = 1  # pairs of each photo
    size_px: int = 512  # side of the pictures
    seed: int = 0  # decides everything random
    recipe: Recipe = field(default_factory=Recipe)  # its motion, noise and jpeg are used

    @property
    def region_px(self) -> int:
        """Side of what is cut from a photo: motion brings in what lies beyond the picture."""
        return self.size_px + 2 * margin_px(self.recipe.motion)


def find_photos(sources: Sequence[Path], leave_out: Sequence[Path] = ()) -> dict[str, Path]:
    """The photos that the user named, and those at any depth of folders, in natural order, by the
    name of their pairs, without its number. Raises NothingToDoError where there are none, and
    UsageError where the pairs of two photos would have the same names."""
    found: dict[Path, Path] = {}
    for source in sources:
        try:
            is_folder = source.is_dir()
            paths = media.find(source, recursive=True, leave_out=leave_out) if is_folder else ()
        except OSError as error:
            raise cannot_read(source, error) from error
        below = {path: path.relative_to(source) for path in paths}
        found |= below if is_folder else {source: Path(source.name)}
    if not found:
        given = ", ".join(map(str, sources))
        raise NothingToDoError(given, "no photos there", "give sharp photos, or a folder")
    named: dict[str, Path] = {}
    for path, relative in found.items():
        # IMG_1.HEIC and IMG_1.JPG may lie beside each other.
        stem, whole = relative.with_suffix("").as_posix(), relative.as_posix()
        name = whole if stem in named and named[stem].suffix != path.suffix else stem
        if name in named:
            reason = f"its pairs would have the names of those of {named[name]}"
            raise UsageError(path, reason, "give them in two runs with different -o")
        named[name] = path
    return named


def pair_names(name: str, blurring: Blurring) -> list[str]:
    """``NAME-1``, ``NAME-2``, …, with as many digits as are needed."""
    digits = len(str(blurring.count))
    return [f"{name}-{number:0{digits}d}" for number in range(1, blurring.count + 1)]


@torch.inference_mode()
def blur_photo(
    path: Path, name: str, others: Sequence[Path], blurring: Blurring, device: torch.device
) -> dict[str, Image]:
    """The pair `name` of a photo: ``"blur"`` and ``"sharp"``, (size, size, 3) uint8.

    Every pair is drawn from a generator of its own and rendered on its own, so that it is the
    same byte for byte whichever others are made in the same run. On another device the last
    bits may differ. Objects that move show parts of one of the others. Raises DeblurError where
    the photo can't be read or is too small.
    """
    recipe, side = blurring.recipe, blurring.region_px
    rng = np.random.default_rng((blurring.seed, zlib.crc32(name.encode())))
    picture, texture = read_photo(path, blurring)
    parts = []
    for is_filling in (False, True):
        if is_filling:
            other = others[int(rng.integers(len(others)))]
            with suppress(DeblurError):  # which is told of when the other's turn comes
                picture, texture = read_photo(other, blurring)
        height, width = picture.shape[:2]
        crop = draw_crop(rng, (width, height), side, texture, scaled_down=True)
        part = crop_picture(picture, crop, side)
        if rng.random() < recipe.motion.patterns:
            part = draw_pattern(rng, side)
        parts.append(part[None].to(device).float() / 255)
    exposure = draw_exposure(rng, recipe.motion, side)
    degradation = draw_degradation(rng, recipe.noise, recipe.jpeg, recipe.noise_kind)
    blurred, sharp = render(parts[0], parts[1], [exposure], blurring.size_px)
    both = torch.cat((degrade(blurred, [degradation]), sharp)).permute(0, 2, 3, 1)
    levels = (both * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    return dict(zip(KINDS, levels, strict=True))


@lru_cache(maxsize=16)  # each photo serves several pairs in turn, and as the filling of others
def read_photo(path: Path, blurring: Blurring) -> tuple[Tensor, NDArray[np.float32]]:
    """(H, W, 3) uint8, sRGB, upright; and `measure_texture` of it. Raises DeblurError where the
    photo can't be read or is too small."""
    pixels = to_uint8(photos.read(path).pixels)
    if min(pixels.shape[:2]) < blurring.region_px:
        remedy = f"give a smaller --size than {blurring.size_px}, or larger photos"
        raise too_small(path, pixels.shape[1::-1], blurring.region_px, remedy)
    picture = torch.from_numpy(np.array(pixels))
    return picture, measure_texture(picture)


def write_pairs(
    named: Mapping[str, Path], blurring: Blurring, device: torch.device, folder: PairFolder
) -> Iterator[str | DeblurError | None]:
    """Makes and writes the pairs of photos, which `find_photos` gave. Gives for each pair its name
    when it is written, None where the folder holds it already, or why its photo can't be used
    (once; then the rest of the photo's are None). Raises DeblurError if it can't be written."""
    folder.begin()
    paths = list(named.values())
    # Ctrl-C is raised in the main thread only: in another one, a pair is written whole.
    with ThreadPoolExecutor(1) as writer:
        for photo, path in named.items():
            failed = False
            for name in pair_names(photo, blurring):
                done: str | DeblurError | None = None
                if not failed and not folder.holds(name):
                    try:
                        pictures = blur_photo(path, name, paths, blurring, device)
                    except DeblurError as error:
                        failed, done = True, error
                    else:
                        writer.submit(folder.write, name, pictures).result()
                        done = name
                yield done
