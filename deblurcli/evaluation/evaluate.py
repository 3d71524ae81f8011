"""How good a method is: pictures restored and held against their sharp ones.

    for score in score_cases([BLURRED, method_of(deblurrer)], find_cases([Path("GOPRO")])): …

`evaluate` is the short way for one method, as training uses it. Anything with a method
``restore`` can be measured.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from deblurcli import __version__
from deblurcli.data.layouts import Pair, find_pairs
from deblurcli.deblurrer import Deblurrer
from deblurcli.errors import DeblurError, DeviceError, UsageError, WeightsError
from deblurcli.evaluation import koehler, metrics
from deblurcli.evaluation.peak_memory import PeakMemory
from deblurcli.evaluation.scores import Score, ScoreFile, Summary, summarise
from deblurcli.io.photos import read
from deblurcli.models.generator import MultiScaleGenerator

Image = NDArray[np.uint8]


class Restorer(Protocol):
    """Anything that restores ``(H, W, 3) uint8`` images, as `Deblurrer` does."""

    def restore(self, image: NDArray[Any], /) -> NDArray[Any]: ...


@dataclass(frozen=True)
class Method:
    """A restorer under its name, with what tables say of it.

    Attributes:
        name: in tables.
        restorer: None leaves pictures as they are.
        identity: all that determines its results (hash of the weights, settings).
        device: where it computes, for measuring memory.
        parameters: their number.
        gmacs: multiply-accumulates for a 256x256 image, in thousands of millions.
    """

    name: str
    restorer: Restorer | None
    identity: str
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    parameters: int | None = None
    gmacs: float | None = None


BLURRED = Method("blurred input", None, "blurred")
"""The first row of every table: what came in."""


def method_of(deblurrer: Deblurrer, name: str | None = None) -> Method:
    """The method that a `Deblurrer` is; named after its weights by default."""
    path = deblurrer.weights_path
    identity = (
        f"{_sha256(path) if path else id(deblurrer)} {__version__} {deblurrer.device} "
        f"{deblurrer.precision.name} tile={deblurrer.tile} strength={deblurrer.strength}"
    )
    return Method(
        name or deblurrer.card.name,
        deblurrer,
        identity,
        deblurrer.device,
        sum(p.numel() for p in deblurrer.network.parameters()),
        count_gmacs(deblurrer.network),
    )


@dataclass(frozen=True)
class Case:
    """One blurred picture and what it is compared with.

    Attributes:
        set_name: the data set it belongs to, as tables name it.
        name: the picture's, unique within the set.
        blurred: the file.
        sharp: one file; with `shaken`, all frames of Köhler's protocol.
        shaken: this is a picture of Köhler's benchmark.
    """

    set_name: str
    name: str
    blurred: Path
    sharp: tuple[Path, ...]
    shaken: bool = False


@dataclass(frozen=True)
class Failure:
    """A picture that could not be measured by one method."""

    case: Case
    method: str
    error: DeblurError


def find_cases(roots: Sequence[str | os.PathLike[str]], split: str | None = "test") -> list[Case]:
    """The pictures of data sets: GOPRO, REDS, Köhler's, or folders ``blur`` and ``sharp``.

    Args:
        roots: the sets' folders. Where two hold the same kind, their sets are named after the
            folders as well.
        split: the part to take where a set has parts; None takes all.

    Raises:
        DeblurError, NothingToDoError: see `find_pairs`.
    """
    found: list[tuple[Path, list[Case]]] = []
    for root in map(Path, roots):
        shots = koehler.find_shots(root) if root.is_dir() else []
        cases = [Case("Köhler", s.name, s.blurred, s.frames, shaken=True) for s in shots]
        found.append((root, cases or cases_of(find_pairs(root, split))))
    kinds = [kind for _, cases in found for kind in {case.set_name for case in cases}]
    return [
        replace(case, set_name=f"{case.set_name} ({root})")
        if kinds.count(case.set_name) > 1
        else case
        for root, cases in found
        for case in cases
    ]


def cases_of(pairs: Iterable[Pair]) -> list[Case]:
    """Pairs as cases; each kind of pair is a set."""
    return [Case(pair.kind, pair.name, pair.blurred, (pair.sharp,)) for pair in pairs]


def evaluate(
    restorer: Restorer,
    pairs: Iterable[Pair],
    *,
    on_score: Callable[[Score], None] | None = None,
) -> Summary:
    """The mean figures of one restorer over pairs of any kind.

    Raises:
        DeblurError: a picture can't be read, or the two of a pair differ in size.
        ValueError: no pairs.
    """
    method = Method("restored", restorer, f"{id(restorer)}")
    scores: list[Score] = []
    for result in score_cases([method], cases_of(pairs)):
        if isinstance(result, Failure):
            raise result.error
        scores.append(replace(result, set_name="all"))
        if on_score is not None:
            on_score(result)
    if not scores:
        raise ValueError("at least one pair wanted")
    return summarise(scores)[0]


def score_cases(
    methods: Sequence[Method],
    cases: Iterable[Case],
    *,
    file: ScoreFile | None = None,
    do_no_harm: bool = False,
    on_restored: Callable[[Method, Case, Image], None] | None = None,
) -> Iterator[Score | Failure]:
    """Measures every method on every case, picture by picture.

    Args:
        methods: they take turns on each picture, so that a stopped run compares like with like.
        cases: the pictures.
        file: what it holds is not measured again; new scores are added to it.
        do_no_harm: also restores the sharp picture and measures how far it moves.
        on_restored: gets every picture that was restored, ``(H, W, 3) uint8``.

    Yields:
        One result per case and method.

    Raises:
        DeviceError, WeightsError, UsageError: they would fail on every picture.
    """
    warm: set[int] = set()
    for case in cases:
        fingerprint = _fingerprint(case)
        pictures: tuple[Image, Image | None] | None = None
        for method in methods:
            key = _key(fingerprint, method)
            harm_wanted = do_no_harm and method.restorer is not None and not case.shaken
            known = file.known.get(key) if file is not None else None
            if known is not None and not (harm_wanted and known.harm_psnr_db is None):
                yield replace(known, set_name=case.set_name, image=case.name, method=method.name)
                continue
            try:
                pictures = pictures or _read_case(case)
                if method.restorer is not None and id(method) not in warm:
                    # The first picture through a network takes longer than the others.
                    method.restorer.restore(np.ascontiguousarray(pictures[0][:128, :128]))
                    warm.add(id(method))
                restored, seconds, peak_mib = _restore(method, pictures[0])
                score = _score(case, method, restored, pictures[1])
                score = replace(score, seconds=seconds, peak_mib=peak_mib, key=key)
                if harm_wanted and pictures[1] is not None:
                    harm_psnr_db = metrics.psnr(_restore(method, pictures[1])[0], pictures[1])
                    score = replace(score, harm_psnr_db=harm_psnr_db)
                if on_restored is not None and method.restorer is not None:
                    on_restored(method, case, restored)
            except (DeviceError, WeightsError, UsageError):
                raise
            except DeblurError as error:
                yield Failure(case, method.name, error)
                continue
            if file is not None:
                file.append(score)
            yield score


def read_image(path: Path) -> Image:
    """A picture as ``(H, W, 3) uint8``; 16 bit are rounded to 8."""
    pixels = read(path).pixels
    if pixels.dtype == np.uint16:
        return np.asarray((pixels.astype(np.uint32) + 128) // 257, dtype=np.uint8)
    return np.asarray(pixels, dtype=np.uint8)


def count_gmacs(network: MultiScaleGenerator) -> float:
    """Multiply-accumulates for one 256x256 image, in thousands of millions, as tables give them."""
    parameter = next(network.parameters())
    # A sixteenth of the area takes a sixteenth of the work.
    image = torch.zeros(1, 3, 64, 64, dtype=parameter.dtype, device=parameter.device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    return float(counter.get_total_flops() / 2 * 16 / 1e9)


def _restore(method: Method, blurred: Image) -> tuple[Image, float | None, float | None]:
    """The restored picture, seconds, and peak memory in MiB."""
    if method.restorer is None:
        return blurred, None, None
    memory = PeakMemory(method.device)
    memory.reset()
    start = time.perf_counter()
    restored = method.restorer.restore(blurred)
    seconds = time.perf_counter() - start
    return np.asarray(restored, dtype=np.uint8), seconds, memory.read_mib()


def _read_case(case: Case) -> tuple[Image, Image | None]:
    """The blurred and the sharp picture; Köhler's frames are read later, one by one."""
    blurred = read_image(case.blurred)
    height, width = blurred.shape[:2]
    if min(height, width) < metrics.LEAST_PX:
        reason = f"smaller than {metrics.LEAST_PX} pixels"
        raise DeblurError(case.blurred, reason, "give larger pictures")
    if case.shaken:
        return blurred, None
    sharp = read_image(case.sharp[0])
    if sharp.shape != blurred.shape:
        raise DeblurError(
            case.blurred,
            f"{width}x{height} pixels, but its sharp picture {sharp.shape[1]}x{sharp.shape[0]}",
            "give pairs of one size",
        )
    return blurred, sharp


def _score(case: Case, method: Method, restored: Image, sharp: Image | None) -> Score:
    frame, psnr_db = None, None
    if sharp is None:
        try:
            match = koehler.match_frames(restored, map(read_image, case.sharp))
        except ValueError as error:
            raise DeblurError(case.blurred, str(error), "unpack the data set again") from error
        frame, psnr_db = match.frame + 1, match.psnr_db
        restored, sharp = match.restored, match.sharp
    return Score(
        set_name=case.set_name,
        image=case.name,
        method=method.name,
        psnr_db=metrics.psnr(restored, sharp) if psnr_db is None else psnr_db,
        ssim=metrics.ssim(restored, sharp),
        ssim_matlab_rgb=metrics.ssim_matlab_rgb(restored, sharp),
        sharpness=metrics.sharpness(restored),
        frame=frame,
    )


def _fingerprint(case: Case) -> str:
    """Changes when a picture does: the blurred file's bytes, the sharp files' sizes and ages."""
    digest = hashlib.sha256()
    try:
        digest.update(case.blurred.read_bytes())
        for path in case.sharp:
            status = path.stat()
            line = f"{path.name} {status.st_size} {status.st_mtime_ns}\n"
            digest.update(line.encode(errors="surrogateescape"))
    except OSError:
        digest.update(f"unreadable {case.blurred}".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _key(fingerprint: str, method: Method) -> str:
    return hashlib.sha256(f"{fingerprint} {method.identity}".encode()).hexdigest()[:24]


def _sha256(path: str | os.PathLike[str]) -> str:
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()
