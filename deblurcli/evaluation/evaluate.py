"""How good a method is: pictures restored and held against their sharp ones.

    for score in score_cases([BLURRED, method_of(deblurrer)], find_cases([Path("GOPRO")])): …

Anything with a method ``restore`` can be measured, and so can pictures that something else made
(`results_of`).
"""

from __future__ import annotations

import hashlib
import itertools
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from operator import eq
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from deblurcli import __version__
from deblurcli.data.layouts import find_pictures
from deblurcli.deblurrer import Deblurrer
from deblurcli.errors import (
    DeblurError,
    DeviceError,
    NothingToDoError,
    UsageError,
    WeightsError,
    sizes_differ,
)
from deblurcli.evaluation.cases import Case, read_image
from deblurcli.evaluation.metrics import Image, Metric, find_metrics, psnr
from deblurcli.evaluation.peak_memory import read_peak_mib, reset_peak
from deblurcli.evaluation.scores import Score, ScoreFile
from deblurcli.models.network import count_gmacs


class Restorer(Protocol):
    """Anything that restores ``(H, W, 3) uint8`` images, as `Deblurrer` does."""

    def restore(self, image: Image, /) -> Image: ...


@dataclass(frozen=True)
class Method:
    """A way to restore pictures under its name, with what tables say of it.

    Attributes:
        name: in tables.
        restorer: None leaves pictures as they are, or takes them from `results`.
        identity: all that determines its results (hash of the weights, settings).
        results: pictures that are restored already, by their case's set and name.
        device: where it computes, for measuring memory.
        parameters: their number.
        gmacs: for a 256x256 image.
    """

    name: str
    restorer: Restorer | None
    identity: str
    results: Mapping[tuple[str, str], Path] | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    parameters: int | None = None
    gmacs: float | None = None

    def restore(self, case: Case, image: Image) -> Image:
        """The picture of `case` as this method restores it.

        Args:
            image: the blurred one; or, for doing no harm, the sharp one.

        Raises:
            DeblurError: there is no result for it, or one of another size.
        """
        if self.restorer is not None:
            return np.asarray(self.restorer.restore(image), np.uint8)
        if self.results is None:
            return image
        path = self.results.get((case.set_name, case.name))
        if path is None:
            raise DeblurError(case.blurred, f"has no result in {self.name}", "add it")
        result = read_image(path)
        if result.shape != image.shape:
            raise sizes_differ(path, result.shape[1::-1], case.blurred, image.shape[1::-1])
        return result

    def measure(self, case: Case, image: Image, figures: dict[str, float]) -> Image:
        """As `restore`; a restorer's seconds and memory are added to `figures`."""
        reset_peak(self.device)
        start = time.perf_counter()
        restored = self.restore(case, image)
        if self.restorer is not None:
            figures["seconds"] = time.perf_counter() - start
            if (peak_mib := read_peak_mib(self.device)) is not None:
                figures["peak_mib"] = peak_mib
        return restored

    def covers(self, case: Case) -> bool:
        """Whether this method has something to say of the case's set."""
        return self.results is None or any(name == case.set_name for name, _ in self.results)

    def key(self, case: Case, fingerprint: str) -> str:
        """The same where the figures must be the same."""
        text = f"{fingerprint} {self.identity}"
        if self.results is not None and (path := self.results.get((case.set_name, case.name))):
            text += f" {path.stat().st_size} {path.stat().st_mtime_ns}"
        return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:24]


BLURRED = Method("blurred input", None, "blurred")
"""The first row of every table: what came in."""


def method_of(deblurrer: Deblurrer, name: str | None = None) -> Method:
    """The method that a `Deblurrer` is; named after its weights by default."""
    path, network = deblurrer.weights_path, deblurrer.network
    weights = hashlib.sha256(Path(path).read_bytes()).hexdigest() if path else id(deblurrer)
    return Method(
        name or deblurrer.card.name,
        deblurrer,
        f"{weights} {__version__} {deblurrer.device} {deblurrer.precision.name} "
        f"tile={deblurrer.tile} strength={deblurrer.strength} ensemble={deblurrer.ensemble}",
        device=torch.device(deblurrer.device),
        parameters=None if network is None else sum(p.numel() for p in network.parameters()),
        gmacs=None if network is None else count_gmacs(network),
    )


def results_of(folder: Path, cases: Sequence[Case]) -> Method:
    """The pictures that something else restored, each under the name of its blurred one.

    Those of a data set in folders lie in the same folders, or in more or fewer of them:
    ``GOPR0384_11_00/000001.png`` belongs to ``test/GOPR0384_11_00/blur/000001.png``, and so does
    what ``deblur eval --save-images`` wrote. Sets without any result are left out.

    Raises:
        DeblurError, NothingToDoError: no folder, or nothing in it belongs to a case.
        UsageError: several files fit one case, or one file fits several.
    """
    found: dict[str, list[Path]] = {}
    for path in find_pictures(folder):
        found.setdefault(path.stem, []).append(path)
    results: dict[tuple[str, str], Path] = {}
    users: dict[Path, Case] = {}
    for case in cases:
        # By the path of the blurred picture, with or without its folder (blur, blur_gamma), or by
        # the name in our tables, which Köhler's benchmark wants to follow the method's: Name1_2.
        own, ours = case.blurred.with_suffix("").parts, tuple(case.name.split("/"))
        wanted = [own, (*own[:-2], own[-1]), ours]
        if not {own[-1], ours[-1]} & found.keys():
            named = re.compile(r"\D*" + re.escape(ours[-1]))
            wanted += [(*ours[:-1], name) for name in found if named.fullmatch(name)]
        fitting = []
        for path in (p for name in {names[-1] for names in wanted} for p in found.get(name, [])):
            parts = path.relative_to(folder).with_suffix("").parts[::-1]
            if any(all(map(eq, parts, names[::-1])) for names in wanted):
                fitting.append(path)
        if len(fitting) > 1:
            one, other = fitting[:2]
            raise UsageError(one, f"and {other} both fit {case.name}", "give the folder of one")
        for path in fitting:
            if path in users:
                both = f"fits {users[path].blurred} and {case.blurred}"
                raise UsageError(path, both, "keep the data set's folders, or give --blur")
            users[path] = case
            results[case.set_name, case.name] = path
    if not results:
        reason = "nothing in it has the name of a blurred picture"
        raise NothingToDoError(folder, reason, "name results as the blurred pictures are")
    return Method(folder.name or str(folder), None, f"results {folder.absolute()}", results)


@dataclass(frozen=True)
class Failure:
    """A picture that could not be measured by one method."""

    case: Case
    method: str
    error: DeblurError


@dataclass(frozen=True)
class _Job:
    """One picture to be scored: restored, or known already (`restored` is None), or failed."""

    case: Case
    score: Score
    restored: Image | None = None
    error: DeblurError | None = None

    def finish(self, metrics: Sequence[Metric]) -> Score | Failure:
        try:
            if self.error is not None:
                raise self.error
            if self.restored is None:
                return self.score
            found = self.case.scorer(self.restored, self.case.read_sharp(), metrics)
            return replace(self.score, figures={**self.score.figures, **found})
        except ValueError as complaint:
            error = DeblurError(self.case.blurred, str(complaint), "check the data set")
            return Failure(self.case, self.score.method, error)
        except DeblurError as error:
            return Failure(self.case, self.score.method, error)


def score_cases(
    methods: Sequence[Method],
    cases: Iterable[Case],
    metrics: Sequence[str] | None = None,
    *,
    file: ScoreFile | None = None,
    identity: bool = False,
    on_restored: Callable[[Method, Case, Image], None] | None = None,
) -> Iterator[Score | Failure]:
    """Measures every method on every case, picture by picture.

    While a GPU restores, threads score what it has restored before. On a CPU one follows the
    other: both want all cores, and the times would not be those of restoring.

    Args:
        methods: they take turns on each picture, so that a stopped run compares like with like.
        cases: the pictures.
        metrics: as `find_metrics` takes them; PSNR is always measured.
        file: what it holds is not measured again; new scores are added to it.
        identity: also restores the sharp picture and measures how far it moves.
        on_restored: gets every picture that was restored, ``(H, W, 3) uint8``.

    Yields:
        One result per case and method, in order.

    Raises:
        DeviceError, WeightsError, UsageError: they would fail on every picture.
    """
    chosen = find_metrics(metrics)
    needed = {metric.name for metric in chosen}
    min_px = max(metric.min_px for metric in chosen)
    warm: set[str] = set()

    def restore_all() -> Iterator[_Job]:
        for case in cases:
            fingerprint = case.fingerprint()
            for method in methods:
                if not method.covers(case):
                    continue
                key = method.key(case, fingerprint)
                known = file.known.get(key) if file is not None else None
                figures = dict(known.figures) if known is not None else {}
                score = Score(case.set_name, case.name, method.name, figures, key)
                harm_wanted = identity and method.restorer is not None and len(case.sharp) == 1
                wanted = needed | ({"identity_psnr_db"} if harm_wanted else set())
                if wanted <= figures.keys():
                    yield _Job(case, score)
                    continue
                try:
                    blurred = case.read(min_px)
                    if method.restorer is not None and method.name not in warm:
                        # The first picture through a network takes longer than the others.
                        method.restorer.restore(np.ascontiguousarray(blurred[:128, :128]))
                        warm.add(method.name)
                    restored = method.measure(case, blurred, figures)
                    if harm_wanted:
                        (sharp,) = case.read_sharp()
                        figures["identity_psnr_db"] = psnr(method.restore(case, sharp), sharp)
                    if on_restored is not None and method is not BLURRED:
                        on_restored(method, case, restored)
                except (DeviceError, WeightsError, UsageError):
                    raise
                except DeblurError as error:
                    yield _Job(case, score, error=error)
                else:
                    yield _Job(case, score, restored)

    max_waiting = 8 if any(method.device.type != "cpu" for method in methods) else 0
    waiting: deque[tuple[_Job, Future[Score | Failure]]] = deque()
    with ThreadPoolExecutor(4) as threads:
        for job in itertools.chain(restore_all(), [None]):
            if job is not None:
                waiting.append((job, threads.submit(job.finish, chosen)))
            while waiting and (job is None or len(waiting) > max_waiting or waiting[0][1].done()):
                first, future = waiting.popleft()
                result = future.result()
                if file is not None and first.restored is not None and isinstance(result, Score):
                    file.append(result)
                yield result
