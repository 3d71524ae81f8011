"""What is measured: the blurred pictures of data sets, and how results are held against them."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deblurcli.data.layouts import find_pairs, keep_blur
from deblurcli.errors import DeblurError, too_small
from deblurcli.evaluation import koehler
from deblurcli.evaluation.metrics import Metric
from deblurcli.io.image import Image, to_uint8
from deblurcli.io.photos import read

Scorer = Callable[[Image, Iterable[Image], Sequence[Metric]], dict[str, float]]
"""The figures, by name, of a restored picture against its sharp ones; or raises ValueError."""


def score_pair(
    restored: Image, sharp: Iterable[Image], metrics: Sequence[Metric]
) -> dict[str, float]:
    """The figures of a picture that has one sharp one, of the same size."""
    (truth,) = sharp
    if truth.shape != restored.shape:
        sizes = (*restored.shape[1::-1], *truth.shape[1::-1])
        raise ValueError("{}x{} pixels, but its sharp picture {}x{}".format(*sizes))
    return {metric.name: metric.measure(restored, truth) for metric in metrics}


@dataclass(frozen=True)
class Case:
    """One blurred picture and what it is compared with."""

    set_name: str  # the data set it belongs to, as tables name it
    name: str  # unique within the set
    blurred: Path
    sharp: tuple[Path, ...]  # the truth: one file, or all frames of Köhler's protocol
    scorer: Scorer = score_pair
    convention: str = ""  # what is said of its figures beside the metrics' own conventions

    def read(self, min_px: int = 1) -> Image:
        """The blurred picture. Raises DeblurError if it is no picture, or smaller than `min_px`."""
        blurred = read_image(self.blurred)
        if min(blurred.shape[:2]) < min_px:
            raise too_small(self.blurred, blurred.shape[1::-1], min_px, "give larger pictures")
        return blurred

    def read_sharp(self) -> Iterator[Image]:
        """The sharp pictures, each read when it is asked for."""
        return map(read_image, self.sharp)

    def score(self, restored: Image, metrics: Sequence[Metric]) -> dict[str, float]:
        """The figures of a restored picture. Raises DeblurError where a sharp one can't be read,
        or is no match for it."""
        try:
            return self.scorer(restored, self.read_sharp(), metrics)
        except ValueError as complaint:
            raise DeblurError(self.blurred, str(complaint), "check the data set") from complaint

    def fingerprint(self) -> str:
        """Of the blurred file's bytes and the sharp files' sizes and ages."""
        digest = hashlib.sha256()
        try:
            digest.update(self.blurred.read_bytes())
            for path in self.sharp:
                status = path.stat()
                line = f"{path.name} {status.st_size} {status.st_mtime_ns}\n"
                digest.update(line.encode(errors="surrogateescape"))
        except OSError:
            digest.update(f"unreadable {self.blurred}".encode(errors="surrogateescape"))
        return digest.hexdigest()


def find_cases(
    roots: Sequence[str | os.PathLike[str]], split: str | None = "test", blur: str = "both"
) -> list[Case]:
    """The pictures of data sets, of Köhler's or any layout that `find_pairs` knows; takes and
    raises what that and `keep_blur` do.

    Where two `roots` hold the same kind, their sets are named after the folders as well.
    """
    found: dict[Path, list[Case]] = {}
    for root in map(Path, roots):
        shots = koehler.find_shots(root) if root.is_dir() else {}
        found[root] = [
            Case("Köhler", shot.stem[6:], shot, frames, koehler.score, koehler.CONVENTION)
            for shot, frames in shots.items()
        ] or [
            Case(pair.kind, pair.name, pair.blurred, (pair.sharp,))
            for pair in keep_blur(find_pairs(root, split), blur, root)
        ]
    kinds = [kind for cases in found.values() for kind in {case.set_name for case in cases}]
    named = []
    for root, cases in found.items():
        for case in cases:
            is_shared = kinds.count(case.set_name) > 1
            named.append(replace(case, set_name=f"{case.set_name} ({root})") if is_shared else case)
    return named


def read_image(path: Path) -> Image:
    """A picture as ``(H, W, 3) uint8`` sRGB, upright; 16 bit are rounded to 8."""
    return to_uint8(read(path).pixels)
