"""The results of an evaluation: one `Score` per picture and method, kept in a CSV file, and
their means."""

from __future__ import annotations

import csv
import errno
import io
import math
import os
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from deblurcli.errors import DeblurError
from deblurcli.io.files import atomic_output, output_error


@dataclass(frozen=True)
class Score:
    """One picture, restored by one method, against its sharp one.

    Attributes:
        set_name: the data set, ``"GOPRO gamma"``.
        image: the picture's name within it.
        method: the weights' name, or ``"blurred input"``.
        psnr_db, ssim, ssim_matlab_rgb, sharpness: see `deblurcli.evaluation.metrics`.
        seconds: wall-clock time of restoring it, without reading and writing; None where
            nothing was restored.
        peak_mib: the most memory that was in use meanwhile; None where unknown.
        harm_psnr_db: the sharp picture, restored, against itself; None where not asked for.
        frame: Köhler's protocol: the number of the sharp frame that fits best; else None.
        key: identifies picture, method and settings; equal keys mean equal figures.
    """

    set_name: str
    image: str
    method: str
    psnr_db: float
    ssim: float
    ssim_matlab_rgb: float
    sharpness: float
    seconds: float | None = None
    peak_mib: float | None = None
    harm_psnr_db: float | None = None
    frame: int | None = None
    key: str = ""


@dataclass(frozen=True)
class Summary:
    """The means of one method over one set; PSNR is the mean of per-image PSNR.

    A figure is None where no picture has it. `seconds` is the median and `peak_mib` the largest.
    """

    set_name: str
    method: str
    pictures: int
    psnr_db: float
    ssim: float
    ssim_matlab_rgb: float
    sharpness: float
    seconds: float | None
    peak_mib: float | None
    harm_psnr_db: float | None

    def to_json(self) -> dict[str, Any]:
        """As JSON can hold it: figures that are infinite (equal pictures) become None."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(self).items()
        }


def summarise(scores: Iterable[Score]) -> list[Summary]:
    """One `Summary` for each set and method, in order of first appearance."""
    groups: dict[tuple[str, str], list[Score]] = {}
    for score in scores:
        groups.setdefault((score.set_name, score.method), []).append(score)
    return [_summarise_group(group) for group in groups.values()]


def _summarise_group(scores: Sequence[Score]) -> Summary:
    def mean(name: str) -> float | None:
        values = [v for s in scores if (v := getattr(s, name)) is not None]
        return math.fsum(values) / len(values) if values else None

    seconds = [s.seconds for s in scores if s.seconds is not None]
    peaks = [s.peak_mib for s in scores if s.peak_mib is not None]
    always = ("psnr_db", "ssim", "ssim_matlab_rgb", "sharpness")
    return Summary(
        set_name=scores[0].set_name,
        method=scores[0].method,
        pictures=len(scores),
        **{name: mean(name) or 0.0 for name in always},
        seconds=statistics.median(seconds) if seconds else None,
        peak_mib=max(peaks, default=None),
        harm_psnr_db=mean("harm_psnr_db"),
    )


class ScoreFile:
    """Scores in a CSV file that grows by a line with every picture.

    A run that was stopped goes on where it was: what the file already holds is in `known`.

    Args:
        path: the file; made if it is missing. One that an interrupted run left with half a
            line at its end is mended.

    Raises:
        DeblurError: the file is something else, or can't be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, Score] = {}
        if path.exists():
            self.known = {score.key: score for score in _read(path)}
        with atomic_output(path, overwrite=True) as part:
            part.write_text(
                "".join([_line(_COLUMNS), *(_score_line(s) for s in self.known.values())]),
                encoding="utf-8",
                errors=_NAMES,
            )
        try:
            # Without a buffer: a line that a full disk refused must not be tried again at the end.
            self._file: IO[bytes] = path.open("ab", buffering=0)
        except OSError as error:
            raise DeblurError(path, error.strerror or str(error), "give another --csv") from error

    def append(self, score: Score) -> None:
        """Adds a score; it is on disk when this returns.

        Raises:
            DeblurError: it can't be written; what was added before is kept.
        """
        line = _score_line(score).encode(errors=_NAMES)
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            reason = output_error(self.path, error).reason
            raise DeblurError(
                self.path, reason, "mend that and run again: it goes on where it stopped"
            ) from error
        self.known[score.key] = score

    def __enter__(self) -> ScoreFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()


# Names of pictures are names of files, which need not be text.
_NAMES = "surrogateescape"
_COLUMNS = tuple(field.name for field in fields(Score))
_TEXTS = ("set_name", "image", "method", "key")


def _line(values: Iterable[object]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(["" if v is None else v for v in values])
    return buffer.getvalue()


def _score_line(score: Score) -> str:
    return _line(getattr(score, name) for name in _COLUMNS)


def _read(path: Path) -> list[Score]:
    try:
        with path.open(encoding="utf-8", errors=_NAMES) as file:
            lines = list(file)
    except (OSError, UnicodeDecodeError) as error:
        raise _not_ours(path) from error
    if not lines:
        return []
    if lines[0].strip() != _line(_COLUMNS).strip():
        raise _not_ours(path)
    whole = [line for line in lines if line.endswith("\n")]
    scores = []
    for row in csv.DictReader(whole):
        try:
            scores.append(_score(row))
        except (KeyError, TypeError, ValueError):
            continue  # a damaged line is measured again
    return scores


def _score(row: dict[str, str]) -> Score:
    values: dict[str, Any] = {}
    for name in _COLUMNS:
        text = row[name]
        if name in _TEXTS:
            values[name] = text
        elif name == "frame":
            values[name] = int(text) if text else None
        else:
            values[name] = float(text) if text else None
    if None in (values["psnr_db"], values["ssim"]) or not values["key"]:
        raise ValueError("incomplete")
    return Score(**values)


def _not_ours(path: str | os.PathLike[str]) -> DeblurError:
    return DeblurError(path, "exists and is not a table of 'deblur eval'", "give another --csv")
