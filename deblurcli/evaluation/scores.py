"""An evaluation's results: a `Score` per picture and method, in a CSV file, and their means."""

import csv
import errno
import io
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import fmean, median

from deblurcli.errors import DeblurError, cannot_write
from deblurcli.io.files import atomic_output


@dataclass(frozen=True)
class Score:
    """One picture, restored by one method, against its sharp one.

    Its figures are those of the metrics, and, where they are known, ``seconds`` (wall-clock time of
    restoring, without reading and writing), ``peak_mib`` (the most memory in use meanwhile),
    ``identity_psnr_db`` (the sharp picture, restored, against itself) and what a scorer adds.
    """

    set_name: str
    image: str
    method: str
    figures: Mapping[str, float]
    key: str = ""  # of picture, method and settings; equal keys mean equal figures

    @property
    def psnr_db(self) -> float:
        return self.figures["psnr_db"]


@dataclass(frozen=True)
class Summary:
    """The figures of one method over one set: means (PSNR is the mean of per-image PSNR), but for
    ``seconds``, the median, and ``peak_mib``, the largest."""

    set_name: str
    method: str
    pictures: int
    figures: Mapping[str, float]

    @property
    def psnr_db(self) -> float:
        return self.figures["psnr_db"]


def summarise(scores: Iterable[Score]) -> list[Summary]:
    """One `Summary` for each set and method, in order of first appearance."""
    groups = defaultdict(list)
    for score in scores:
        groups[score.set_name, score.method].append(score.figures)
    means: dict[str, Callable[[list[float]], float]] = {"seconds": median, "peak_mib": max}
    summaries = []
    for (set_name, method), group in groups.items():
        columns = defaultdict(list)
        for name, value in chain.from_iterable(figures.items() for figures in group):
            columns[name].append(value)
        columns.pop("frame", None)  # a mean of numbers of frames says nothing
        figures = {name: means.get(name, fmean)(values) for name, values in columns.items()}
        summaries.append(Summary(set_name, method, len(group), figures))
    return summaries


class ScoreFile:
    """Scores in a CSV file that grows by a line with every picture; several processes may add.

    A run that was stopped goes on where it was: what the file holds already is in `known`, by key;
    half a line that was left is taken away. `figures` are names that will be added, beside the
    usual ones. Raises DeblurError where the file is something else, or can't be written.
    """

    def __init__(self, path: Path, figures: Sequence[str] = ()) -> None:
        self.path = path
        self.known: dict[str, Score] = {}
        try:
            before = path.read_bytes() if path.exists() else b""
            # The last line of a run that was killed may be half a line.
            whole = before[: before.rfind(b"\n") + 1].decode(errors=_NAMES)
            table = csv.DictReader(io.StringIO(whole, newline=""))
            if whole and not {*_TEXTS, "psnr_db"} <= set(table.fieldnames or ()):
                raise ValueError("other columns")
        except (OSError, ValueError) as error:
            reason = "exists and is not a table of 'deblur eval'"
            raise DeblurError(path, reason, "give another --csv") from error
        for row in table:
            try:
                found = {k: float(v) for k, v in row.items() if k not in _TEXTS and v}
                score = Score(row["set_name"], row["image"], row["method"], found, row["key"])
            except (TypeError, ValueError):
                continue  # a damaged line is measured again
            if score.key and "psnr_db" in found:
                self.known[score.key] = score
        there = chain.from_iterable(score.figures for score in self.known.values())
        self._figures = list(dict.fromkeys([*_FIGURES, *figures, *there]))
        after = _row([*_TEXTS, *self._figures])
        after += b"".join(map(self._line, self.known.values()))
        if not path.exists() or before != after:
            with atomic_output(path, overwrite=True) as part:
                part.write_bytes(after)

    def append(self, score: Score) -> None:
        """Adds a score that is not known; it is on disk when this returns. Where DeblurError is
        raised, what was added before is kept."""
        known = self.known.get(score.key)
        if known is not None and known.figures == score.figures:
            return
        line = self._line(score)
        try:
            # Without a buffer, at once and to the end: several processes may write here.
            with self.path.open("ab", buffering=0) as file:
                if file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            remedy = "mend that and run again: it goes on where it stopped"
            raise cannot_write(self.path, error, remedy) from error
        self.known[score.key] = score

    def _line(self, score: Score) -> bytes:
        figures = (score.figures.get(name, "") for name in self._figures)
        return _row([score.set_name, score.image, score.method, score.key, *figures])


_NAMES = "surrogateescape"  # names of pictures are names of files, which need not be text
_TEXTS = ("set_name", "image", "method", "key")
_FIGURES = [
    *("psnr_db", "ssim", "ssim_matlab_rgb", "sharpness", "mssim", "frame"),
    *("seconds", "peak_mib", "identity_psnr_db"),
]


def _row(values: Iterable[object]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(values)
    return buffer.getvalue().encode(errors=_NAMES)
