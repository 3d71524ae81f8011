"""What is measured: the blurred pictures of data sets, and how results are held against them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deblurcli.data.layouts import find_pairs
from deblurcli.deblurrer import Image
from deblurcli.errors import DeblurError, UsageError, too_small
from deblurcli.evaluation import koehler
from deblurcli.evaluation.metrics import Metric
from deblurcli.io.photos import read, to_uint8

Scorer = Callable[[Image, Iterable[Image], Sequence[Metric]], dict[str, float]]
"""The figures, by name, of a restored picture against its sharp ones. Raises ValueError where they
can't be compared."""


def score_pair(
    restored: Image, sharp: Iterable[Image], metrics: Sequence[Metric]
) -> dict[str, float]:
    """The figures of a picture that has one sharp one, of the same size."""
    (truth,) = sharp
    if truth.shape != restored.shape:
        (height, width), (other_height, other_width) = restored.shape[:2], truth.shape[:2]
        raise ValueError(
            f"{width}x{height} pixels, but its sharp picture {other_width}x{other_height}"
        )
    return {metric.name: metric.measure(restored, truth) for metric in metrics}


@dataclass(frozen=True)
class Case:
    """One blurred picture and what it is compared with.

    Attributes:
        set_name: the data set it belongs to, as tables name it.
        name: unique within the set.
        sharp: the truth: one file, or all frames of Köhler's protocol.
        convention: what is said of its figures beside the metrics' own conventions.
    """

    set_name: str
    name: str
    blurred: Path
    sharp: tuple[Path, ...]
    scorer: Scorer = score_pair
    convention: str = ""

    def read(self, min_px: int = 1) -> Image:
        """The blurred picture.

        Raises:
            DeblurError: it can't be read, or a side is shorter than `min_px`.
        """
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
    """The pictures of data sets: Köhler's, or any layout that `find_pairs` knows.

    Args:
        roots: the sets' folders. Where two hold the same kind, their sets are named after the
            folders as well.
        split: the part to take where a set has parts; None takes all.
        blur: which of GOPRO's kinds to take: linear, gamma or both.

    Raises:
        DeblurError, NothingToDoError, UsageError: see `find_pairs`.
    """
    found: dict[Path, list[Case]] = {}
    left_out = {"linear": "GOPRO gamma", "gamma": "GOPRO linear"}.get(blur)
    for root in map(Path, roots):
        shots = koehler.find_shots(root) if root.is_dir() else {}
        cases = [
            Case("Köhler", shot.stem[6:], shot, frames, koehler.score, koehler.CONVENTION)
            for shot, frames in shots.items()
        ]
        if not shots:
            pairs = [pair for pair in find_pairs(root, split) if pair.kind != left_out]
            cases = [Case(pair.kind, pair.name, pair.blurred, (pair.sharp,)) for pair in pairs]
            if not cases:
                raise UsageError(root, f"has no GOPRO pairs of blur {blur}", "leave out --blur")
        found[root] = cases
    kinds = [kind for cases in found.values() for kind in {case.set_name for case in cases}]
    return [
        replace(case, set_name=f"{case.set_name} ({root})")
        if kinds.count(case.set_name) > 1
        else case
        for root, cases in found.items()
        for case in cases
    ]


def read_image(path: Path) -> Image:
    """A picture as ``(H, W, 3) uint8`` sRGB, upright; 16 bit are rounded to 8."""
    return to_uint8(read(path).pixels)
