"""How good a method is: pictures, restored here or by something else, against their sharp ones.

for score in score_cases([BLURRED, method_of(deblurrer)], find_cases([Path("GOPRO")])): …
"""

import hashlib
import re
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from operator import eq
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from deblurcli import __version__
from deblurcli.data.layouts import find_pictures
from deblurcli.deblurrer import Deblurrer
from deblurcli.errors import DeblurError, NothingToDoError, UsageError, sizes_differ
from deblurcli.evaluation.cases import Case, read_image
from deblurcli.evaluation.metrics import find_metrics, psnr
from deblurcli.evaluation.scores import Score, ScoreFile
from deblurcli.io.image import Image
from deblurcli.models.network import count_gmacs


class Restorer(Protocol):
    """What restores ``(H, W, 3) uint8`` images, as `Deblurrer` does."""

    def restore(self, image: Image, /) -> Image: ...


@dataclass(frozen=True)
class Method:
    """A way to restore pictures, with what tables say of it."""

    name: str
    restorer: Restorer | None  # None leaves pictures as they are, or takes them from `results`
    identity: str  # all that determines its results (hash of the weights, settings)
    # Pictures that are restored already, by their case's set and name.
    results: Mapping[tuple[str, str], Path] | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    parameters: int | None = None  # their number
    gmacs: float | None = None  # for a 256x256 image

    def restore(self, case: Case, image: Image) -> Image:
        """`image`, the blurred or sharp one of `case`, as this method restores it. Raises
        DeblurError where it has no result, or one of another size."""
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
        """As `restore`; adds a restorer's seconds to `figures`, and the most memory in use: of a
        GPU what PyTorch allocated there, else what the process held, where Linux tells."""
        if self.restorer is None:
            return self.restore(case, image)
        process, on_gpu = Path("/proc/self"), self.device.type == "cuda"
        with suppress(OSError):
            if on_gpu:
                torch.cuda.reset_peak_memory_stats(self.device)
            else:
                (process / "clear_refs").write_text("5", encoding="ascii")
        start = time.perf_counter()
        restored = self.restore(case, image)
        figures["seconds"] = time.perf_counter() - start
        with suppress(OSError):
            if on_gpu:
                figures["peak_mib"] = torch.cuda.max_memory_allocated(self.device) / 2**20
            elif found := re.search(r"VmHWM:\s*(\d+)", (process / "status").read_text("utf-8")):
                figures["peak_mib"] = int(found[1]) / 1024
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


@dataclass(frozen=True)
class Failure:
    """A picture that could not be measured by one method."""

    set_name: str
    image: str
    method: str
    error: DeblurError


BLURRED = Method("blurred input", None, "blurred")  # the first row of every table: what came in


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
    """The pictures that something else restored, each under the name of its blurred one, in the
    same folders or in more or fewer of them. Sets without any result are left out.

    Raises DeblurError or NothingToDoError where there is no folder, or nothing in it belongs to a
    case, UsageError where several files fit one case, or one file fits several.
    """
    found = defaultdict(list)
    for path in find_pictures(folder):
        found[path.stem].append(path)
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
        if not fitting:
            continue
        path, *others = fitting
        if others:
            raise UsageError(path, f"and {others[0]} both fit {case.name}", "give one's folder")
        if path in users:
            both = f"fits {users[path].blurred} and {case.blurred}"
            raise UsageError(path, both, "keep the data set's folders, or give --blur")
        users[path] = case
        results[case.set_name, case.name] = path
    if not results:
        reason = "nothing in it has the name of a blurred picture"
        raise NothingToDoError(folder, reason, "name results as the blurred pictures are")
    return Method(folder.name or str(folder), None, f"results {folder.absolute()}", results)


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
    other: both want all cores, and the times would not be those of restoring. Errors of the device,
    the weights and the usage are raised, as they would come with every picture.

    Args:
        methods: they take turns on each picture, so that a stopped run compares like with like.
        metrics: as `find_metrics` takes them; PSNR is always measured.
        file: what it holds is not measured again; new scores are added to it.
        identity: also restores the sharp picture and measures how far it moves.
        on_restored: gets every picture that was restored, ``(H, W, 3) uint8``.
    """
    chosen = find_metrics(metrics)
    names = {metric.name for metric in chosen}
    min_px = max(metric.min_px for metric in chosen)
    warm: set[str] = set()

    def restore(case: Case, method: Method, key: str) -> Callable[[], Score | Failure]:
        """Restores a picture, if need be; what is left to do can be done in any thread."""
        known = file.known.get(key) if file is not None else None
        figures = dict(known.figures) if known is not None else {}
        score = Score(case.set_name, case.name, method.name, figures, key)
        with_identity = identity and method.restorer is not None and len(case.sharp) == 1
        if names | ({"identity_psnr_db"} if with_identity else set()) <= figures.keys():
            return lambda: score
        try:
            blurred = case.read(min_px)
            if method.restorer is not None and method.name not in warm:
                # The first picture through a network takes longer than the others.
                method.restorer.restore(np.ascontiguousarray(blurred[:128, :128]))
                warm.add(method.name)
            restored = method.measure(case, blurred, figures)
            if with_identity:
                (sharp,) = case.read_sharp()
                figures["identity_psnr_db"] = psnr(method.restore(case, sharp), sharp)
            if on_restored is not None and method is not BLURRED:
                on_restored(method, case, restored)
        except DeblurError as error:
            if error.exit_code != DeblurError.exit_code:
                raise
            failure = Failure(case.set_name, case.name, method.name, error)
            return lambda: failure
        return partial(compare, case, score, restored)

    def compare(case: Case, score: Score, restored: Image) -> Score | Failure:
        try:
            figures = {**score.figures, **case.score(restored, chosen)}
        except DeblurError as error:
            return Failure(case.set_name, case.name, score.method, error)
        return replace(score, figures=figures)

    max_waiting = 8 if any(method.device.type != "cpu" for method in methods) else 0
    waiting: deque[Future[Score | Failure]] = deque()

    def results(max_waiting: int) -> Iterator[Score | Failure]:
        """Those that are there; where more are on the way, waits for them."""
        while waiting and (len(waiting) > max_waiting or waiting[0].done()):
            result = waiting.popleft().result()
            if file is not None and isinstance(result, Score):
                file.append(result)
            yield result

    with ThreadPoolExecutor(4) as threads:
        for case in cases:
            fingerprint = case.fingerprint()
            for method in methods:
                if method.covers(case):
                    key = method.key(case, fingerprint)
                    waiting.append(threads.submit(restore(case, method, key)))
                    yield from results(max_waiting)
        yield from results(0)
