"""Blurred and sharp pairs from video of a high frame rate, as the paper made its data set.

Nah et al. (CVPR 2017), section 2: 7 to 13 successive frames of a GOPRO4 at 240 fps are averaged;
the one in the middle is the sharp picture. The data set as published holds the plain mean of the
encoded frames (``blur``) and their mean as light, through a gamma curve of 2.2 (``blur_gamma``).
"""

import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from deblurcli.data.make_pairs.clips import Clip, Frame
from deblurcli.data.make_pairs.pair_folder import PairFolder
from deblurcli.errors import DeblurError, UsageError
from deblurcli.io.image import Image, to_uint8

LINEAR, GAMMA, SHARP = "blur", "blur_gamma", "sharp"

MIN_FPS = 120
"""Below, successive frames lie so far apart that their mean shows copies instead of blur."""

_WRITERS = 2


@dataclass(frozen=True)
class Averaging:
    """How pairs are made from frames. Raises UsageError for a range without an odd number."""

    # How many are averaged: an odd number from this range, so that there is one in the middle.
    min_frames: int = 7
    max_frames: int = 13
    kinds: tuple[str, ...] = (LINEAR, GAMMA)  # as they are encoded; through the gamma curve
    gamma: float = 2.2
    every: int | None = None  # frames between beginnings; None: each begins where the last ends
    seed: int = 0

    def __post_init__(self) -> None:
        if self.min_frames < 1 or not self.counts:
            reason = f"no odd number in {self.min_frames}..{self.max_frames}"
            remedy = "give a range such as 7..13: there has to be a frame in the middle"
            raise UsageError("--frames", reason, remedy)

    @property
    def counts(self) -> range:
        """How many frames a pair may be made from."""
        return range(self.min_frames | 1, self.max_frames + 1, 2)

    def draw_count(self, clip_name: str, number: int) -> int:
        """How many frames the pair `number` of a clip is made from. Depends on nothing else, so
        that a run that was cut off goes on with the same pairs."""
        rng = np.random.default_rng((self.seed, zlib.crc32(clip_name.encode()), number))
        return self.counts[int(rng.integers(len(self.counts)))]


@dataclass(eq=False)
class Average:
    """One pair."""

    name: str  # six digits, as in GOPRO: the number of the pair in its sequence, from 1
    first_frame: int  # of the clip, from 0
    frame_count: int  # how many are averaged
    sums: dict[str, NDArray[np.float32]]  # of light so far, by kind: in [0, frame_count]
    pictures: dict[str, Image] = field(default_factory=dict)  # by kind, and "sharp"


def average_frames(
    frames: Iterable[Frame],
    averaging: Averaging,
    clip_name: str,
    *,
    is_wanted: Callable[[str], bool] = lambda name: True,
) -> Iterator[Average]:
    """Makes pairs, those whose names are wanted, from the frames of a clip. Where one does not
    follow the one before, what was begun is dropped. Sums are float32, rounded once at the end."""
    windows: list[Average] = []
    number, next_first = 0, 0
    tables: dict[str, NDArray[np.float32]] = {}  # what each value adds to the sum, by kind
    for index, frame in enumerate(frames):
        pixels = frame.pixels
        if not tables or not frame.follows:  # frames may have other depths from here on
            values = np.linspace(0, 1, np.iinfo(pixels.dtype).max + 1)
            curves = {LINEAR: values, GAMMA: values**averaging.gamma}
            tables = {kind: curves[kind].astype(np.float32) for kind in averaging.kinds}
        if not frame.follows:
            windows.clear()
            next_first = index
        if index >= next_first:
            number += 1
            name, count = f"{number:06d}", averaging.draw_count(clip_name, number)
            if is_wanted(name):
                sums = {kind: np.zeros(pixels.shape, np.float32) for kind in tables}
                windows.append(Average(name, index, count, sums))
            next_first = index + (averaging.every or count)
        for kind, table in tables.items() if windows else ():
            light = table[pixels]
            for window in windows:
                window.sums[kind] += light
        for window in windows.copy():
            if index == window.first_frame + window.frame_count // 2:
                window.pictures[SHARP] = to_uint8(pixels)
            if index == window.first_frame + window.frame_count - 1:
                windows.remove(window)
                for kind in averaging.kinds:
                    mean = window.sums.pop(kind) / np.float32(window.frame_count)
                    if kind == GAMMA:
                        mean **= np.float32(1 / averaging.gamma)
                    window.pictures[kind] = np.rint(mean * 255).clip(0, 255).astype(np.uint8)
                yield window


def write_pairs(
    clip: Clip, averaging: Averaging, folder: PairFolder, on_frame: Callable[[], object]
) -> Iterator[Average | DeblurError]:
    """Makes and writes the pairs of one clip that `folder` doesn't hold; files are encoded while
    the next are computed. `on_frame` is called once for every frame read. Gives each pair when it
    is written and, at the end, an error if the clip could not be read to its end. Raises
    DeblurError where nothing can be written."""
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
    writing: deque[tuple[Average, Future[None]]] = deque()
    with ThreadPoolExecutor(_WRITERS) as writers:
        for average in chain(averages, [None]):
            if average is not None:
                written = writers.submit(folder.write, average.name, average.pictures)
                writing.append((average, written))
            # No more than this many pairs wait in memory, and at the end none.
            while len(writing) > (_WRITERS if average else 0):
                done, written = writing.popleft()
                written.result()
                yield done
    yield from failures
