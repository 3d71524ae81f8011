"""Blurred and sharp pairs from video of a high frame rate, as the paper made its data set.

S. Nah, T. H. Kim, K. M. Lee: "Deep Multi-scale Convolutional Neural Network for Dynamic Scene
Deblurring" (CVPR 2017), section 2: 7 to 13 successive frames of a GOPRO4 at 240 fps are averaged;
the one in the middle is the sharp picture. A sensor adds up light, and cameras encode it with a
curve g that is near a gamma curve of 2.2:

    blurred = g( 1/M Σ g⁻¹(frame[i]) ),  g(x) = x^(1/2.2)

The data set as published holds both this (``blur_gamma``) and the plain mean of the encoded
frames (``blur``).
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deblurcli.data.make_pairs.clips import Clip, Frame
from deblurcli.data.make_pairs.pair_folder import PairFolder
from deblurcli.errors import DeblurError, UsageError

Pixels = NDArray[Any]
Light = NDArray[np.float32]

LINEAR, GAMMA, SHARP = "blur", "blur_gamma", "sharp"

LEAST_FPS = 120
"""Below, successive frames lie so far apart that their mean shows copies instead of blur."""

_WRITERS = 2


@dataclass(frozen=True)
class Averaging:
    """How pairs are made from frames.

    Attributes:
        least_frames, most_frames: how many are averaged. Each time an odd number from this
            range is drawn, so that there is one in the middle.
        kinds: ``"blur"`` for the mean of the encoded frames, ``"blur_gamma"`` through the
            gamma curve.
        gamma: of that curve.
        every: frames from the beginning of one pair to that of the next; None: each begins
            after the last frame of the one before.
        seed: of the drawn numbers.

    Raises:
        UsageError: there is no odd number in the range.
    """

    least_frames: int = 7
    most_frames: int = 13
    kinds: tuple[str, ...] = (LINEAR, GAMMA)
    gamma: float = 2.2
    every: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.least_frames < 1 or not len(self._counts()):
            raise UsageError(
                "--frames",
                f"no odd number in {self.least_frames}..{self.most_frames}",
                "give a range such as 7..13: there has to be a frame in the middle",
            )

    def _counts(self) -> range:
        return range(self.least_frames | 1, self.most_frames + 1, 2)

    def draw_count(self, clip_name: str, number: int) -> int:
        """How many frames the pair `number` of a clip is made from.

        Depends on nothing else, so that a run that was cut off goes on with the same pairs.
        """
        counts = self._counts()
        rng = np.random.default_rng((self.seed, zlib.crc32(clip_name.encode()), number))
        return counts[int(rng.integers(len(counts)))]


@dataclass(frozen=True)
class Average:
    """One pair.

    Attributes:
        name: six digits, as in GOPRO: the number of the pair in its sequence, from 1.
        first_frame: of the clip, from 0.
        frame_count: how many were averaged.
        pictures: ``"sharp"``, and ``"blur"`` and ``"blur_gamma"`` as wanted; each
            (H, W, 3) uint8.
    """

    name: str
    first_frame: int
    frame_count: int
    pictures: dict[str, Pixels]


@dataclass
class _Window:
    """Frames being added up for one pair."""

    number: int
    first: int
    count: int
    wanted: bool
    sums: dict[str, Light] = field(default_factory=dict)
    sharp: Pixels | None = None


def average_frames(
    frames: Iterable[Frame],
    averaging: Averaging,
    clip_name: str,
    *,
    is_wanted: Callable[[str], bool] = lambda name: True,
) -> Iterator[Average]:
    """Makes pairs from a clip.

    Where a frame does not follow the one before, what was begun is dropped. Sums are held in
    float32 and rounded once, at the end.

    Args:
        frames: of one size.
        averaging: how.
        clip_name: decides, with the seed, how many frames each pair gets.
        is_wanted: whether a pair, by its name, has to be computed.
    """
    open_windows: list[_Window] = []
    number, next_first = 0, 0
    tables: dict[str, Light] = {}
    for index, frame in enumerate(frames):
        tables = tables or _make_tables(frame.pixels.dtype, averaging)
        if not frame.follows:
            open_windows.clear()
            next_first = index
        if index >= next_first:
            number += 1
            count = averaging.draw_count(clip_name, number)
            wanted = is_wanted(_name(number))
            open_windows.append(_Window(number, index, count, wanted))
            next_first = index + (averaging.every or count)
        _add(frame.pixels, index, [w for w in open_windows if w.wanted], tables)
        for window in [w for w in open_windows if index == w.first + w.count - 1]:
            open_windows.remove(window)
            if window.wanted:
                yield _finish(window, averaging)


def _name(number: int) -> str:
    return f"{number:06d}"


def _make_tables(dtype: np.dtype[Any], averaging: Averaging) -> dict[str, Light]:
    """What each value of a frame adds to the sum, for every kind."""
    values = np.linspace(0, 1, np.iinfo(dtype).max + 1)
    curves = {LINEAR: values, GAMMA: values**averaging.gamma}
    return {kind: curves[kind].astype(np.float32) for kind in averaging.kinds}


def _add(pixels: Pixels, index: int, windows: list[_Window], tables: dict[str, Light]) -> None:
    if not windows:
        return
    for window in windows:
        if index == window.first + window.count // 2:
            window.sharp = pixels
    for kind, table in tables.items():
        light = table[pixels]
        for window in windows:
            if kind in window.sums:
                window.sums[kind] += light
            else:
                window.sums[kind] = light.copy()


def _finish(window: _Window, averaging: Averaging) -> Average:
    sharp = window.sharp
    if sharp is None:
        raise AssertionError("a window ends after its middle")
    if sharp.dtype != np.uint8:
        sharp = np.rint(sharp / (np.iinfo(sharp.dtype).max / 255)).astype(np.uint8)
    pictures = {}
    for kind, total in window.sums.items():
        mean = total / np.float32(window.count)
        if kind == GAMMA:
            mean **= np.float32(1 / averaging.gamma)
        pictures[kind] = np.rint(mean * 255).clip(0, 255).astype(np.uint8)
    return Average(_name(window.number), window.first, window.count, {**pictures, SHARP: sharp})


def write_pairs(
    clip: Clip, averaging: Averaging, folder: PairFolder, on_frame: Callable[[], object]
) -> Iterator[Average | DeblurError]:
    """Makes and writes the pairs of one clip; files are encoded while the next are computed.

    Args:
        clip: what to read.
        averaging: how.
        folder: where to; pairs that it holds are left out.
        on_frame: called once for every frame read.

    Yields:
        each pair when it is written; at the end, an error if the clip could not be read to
        its end.

    Raises:
        DeblurError: nothing can be written.
    """
    failures: list[DeblurError] = []

    def read() -> Iterator[Frame]:
        try:
            for frame in clip.frames():
                yield frame
                on_frame()
        except DeblurError as error:
            failures.append(error)

    folder.begin()
    averages = average_frames(
        read(), averaging, clip.name, is_wanted=lambda name: not folder.holds(name)
    )
    with ThreadPoolExecutor(_WRITERS) as writers:
        writing: deque[tuple[Average, Future[None]]] = deque()
        for average in averages:
            writing.append((average, writers.submit(folder.write, average.name, average.pictures)))
            # No more than this many pairs wait in memory.
            while len(writing) > _WRITERS:
                yield _written(*writing.popleft())
        while writing:
            yield _written(*writing.popleft())
    yield from failures


def _written(average: Average, done: Future[None]) -> Average:
    done.result()
    return average
