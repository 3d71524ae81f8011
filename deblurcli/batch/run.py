"""Does the jobs of a plan: reading, computing and writing at the same time.

A photo's way: `photos.read` in a reading thread, `Deblurrer.restore` in the calling thread,
`photos.write` in a writing thread. How many photos are on the way at once is bounded by their
pixels, so that memory does not grow with the number of jobs.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from numpy.typing import NDArray

from deblurcli.batch.job import ClipOptions, Job
from deblurcli.errors import DeblurError, DeviceError, WeightsError, cannot_write
from deblurcli.io import photos
from deblurcli.io.media import Kind

log = logging.getLogger("deblurcli")

Status = Literal["done", "skipped", "failed"]

_THREADS = min(4, os.cpu_count() or 1)
_MOST_AHEAD = 2 * _THREADS
_PIXELS_ON_THE_WAY = 32_000_000


class Restorer(Protocol):
    """The part of a `Deblurrer` that is needed here."""

    @property
    def device(self) -> Any: ...

    def restore_batch(self, images: Sequence[NDArray[Any]]) -> list[NDArray[Any]]: ...


@dataclass(frozen=True)
class Outcome:
    """What became of one job.

    Attributes:
        error: why it failed; None unless `status` is ``"failed"``.
        seconds: time spent in the network.
        notes: what the user should know, though it worked.
    """

    job: Job
    status: Status
    error: DeblurError | None = None
    seconds: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Settings:
    """How results are written.

    Attributes:
        load: gives the network; called once, when the first input could be read.
        overwrite: outputs may replace existing files.
        strip: leave private metadata out of the outputs.
        format: of what goes to standard output, as `photos.write` takes it; None keeps the
            input's own. A file's name says its format.
        clips: the user's wishes for videos.
        on_frame: told after each frame of a clip the job, how many frames are done, and how
            many there are if that is known.
    """

    load: Callable[[], Restorer]
    overwrite: bool = False
    strip: bool = False
    format: str | None = None
    clips: ClipOptions = ClipOptions()  # noqa: RUF009  (frozen)
    on_frame: Callable[[Job, int, int | None], None] | None = None


def run(jobs: Sequence[Job], settings: Settings) -> Generator[Outcome, None, None]:
    """Does `jobs` in order and yields what became of each.

    An input that fails does not stop the others. Closing the iterator early, or an exception,
    stops the threads; what was being written is finished or removed, never left in halves.

    Raises:
        WeightsError: the weights are unusable, so every job would fail.
        DeviceError: the device is unusable or its memory does not even hold the smallest tile.
    """
    settings = replace(settings, load=cache(settings.load))
    for kind, same_kind in groupby(jobs, key=lambda job: job.kind):
        yield from _RUNNERS[kind](list(same_kind), settings)


def _run_photos(jobs: Sequence[Job], settings: Settings) -> Iterator[Outcome]:
    readers = ThreadPoolExecutor(_THREADS, "deblur-read")
    writers = ThreadPoolExecutor(_THREADS, "deblur-write")
    reading: deque[tuple[Job, Future[photos.Photo]]] = deque()
    writing: deque[tuple[Outcome, Future[None]]] = deque()
    waiting = iter(jobs)
    ahead = 1
    restorer: Restorer | None = None
    try:
        while True:
            while len(reading) + len(writing) <= ahead and (job := next(waiting, None)):
                reading.append((job, _start_reading(job, readers)))
            if not reading:
                break
            batch = [reading.popleft()]
            try:
                photo = batch[0][1].result()
            except Exception as error:
                yield Outcome(batch[0][0], "failed", failure_of(batch[0][0], error))
                continue
            restorer = restorer or settings.load()
            # Photos of one folder are mostly alike: the next ones will be as large as this one.
            ahead = min(_MOST_AHEAD, _PIXELS_ON_THE_WAY // photo.pixels[..., 0].size)
            if restorer.device.type != "cpu":  # there, one at a time is as fast
                while reading and _is_ready_and_alike(reading[0][1], photo):
                    batch.append(reading.popleft())
            together = [future.result() for _, future in batch]
            start = time.perf_counter()
            restored = restorer.restore_batch([photo.pixels for photo in together])
            seconds = (time.perf_counter() - start) / len(batch)
            for (job, _), photo, pixels in zip(batch, together, restored, strict=True):
                outcome = Outcome(job, "done", None, seconds, photo.notes)
                writing.append((outcome, writers.submit(_write, job, photo, pixels, settings)))
            del batch, photo, together, restored, pixels
            while writing and (len(writing) > ahead // 2 or writing[0][1].done()):
                yield _written(*writing.popleft())
        while writing:
            yield _written(*writing.popleft())
    finally:
        for executor in (readers, writers):
            executor.shutdown(wait=True, cancel_futures=True)


def failure_of(job: Job, error: Exception) -> DeblurError:
    """What to tell of any failure of one input; a bug's traceback goes to the log, as the other
    inputs must not suffer from it."""
    if isinstance(error, DeblurError):
        return error
    log.error("%s: a bug in deblur or in a library that it uses", job.source_name, exc_info=error)
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return DeblurError(job.source_name, f"failed unexpectedly ({what})", "please report it")


def _is_ready_and_alike(future: Future[photos.Photo], photo: photos.Photo) -> bool:
    if not future.done() or future.exception() is not None:
        return False
    other = future.result().pixels
    return other.shape == photo.pixels.shape and other.dtype == photo.pixels.dtype


def _written(outcome: Outcome, future: Future[None]) -> Outcome:
    try:
        future.result()
    except DeblurError as error:
        return Outcome(outcome.job, "failed", error, outcome.seconds)
    return outcome


def _start_reading(job: Job, readers: ThreadPoolExecutor) -> Future[photos.Photo]:
    if job.source is not None and job.source.is_file():
        return readers.submit(_read, job)
    # A pipe may keep us waiting for ever, and Ctrl-C only reaches the thread that calls.
    future: Future[photos.Photo] = Future()
    try:
        future.set_result(_read(job))
    except DeblurError as error:
        future.set_exception(error)
    return future


def _read(job: Job) -> photos.Photo:
    if job.source is None:
        # Piece by piece: one long read would not hear of a Ctrl-C that came in between.
        stdin = cast(io.BufferedReader, sys.stdin.buffer)
        pieces = iter(lambda: stdin.read1(2**16), b"")
        return photos.read(io.BytesIO(b"".join(pieces)), name=job.source_name)
    return photos.read(job.source)


def _write(job: Job, photo: photos.Photo, restored: NDArray[Any], settings: Settings) -> None:
    if job.target is None:
        _write_to_pipe(photo, restored, settings)
        return
    try:
        job.target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(job.target, error) from error
    photos.write(
        photo,
        restored,
        job.target,
        # A name with an ending decides; `plan` has refused one that contradicts the format.
        format=None if job.target.suffix else settings.format,
        strip=settings.strip,
        overwrite=settings.overwrite,
    )


def _write_to_pipe(photo: photos.Photo, restored: NDArray[Any], settings: Settings) -> None:
    out = sys.stdout.buffer
    try:
        photos.write(photo, restored, out, format=settings.format, strip=settings.strip)
    except BrokenPipeError:
        raise  # who read it went away, and knows
    except OSError as error:
        raise cannot_write(Path("standard output"), error) from error


def _run_clips(jobs: Sequence[Job], settings: Settings) -> Iterator[Outcome]:
    for job in jobs:
        yield _run_clip(job, settings)


def _run_clip(job: Job, settings: Settings) -> Outcome:
    from deblurcli.batch.clips import damage_error, restore_clip  # takes its time

    seconds = 0.0

    def restore(pixels: NDArray[Any]) -> NDArray[Any]:
        nonlocal seconds
        restorer = settings.load()
        start = time.perf_counter()
        (restored,) = restorer.restore_batch([pixels])
        seconds += time.perf_counter() - start
        return restored

    def tell(done: int, total: int | None) -> None:
        if settings.on_frame is not None:
            settings.on_frame(job, done, total)

    try:
        result = restore_clip(
            job,
            restore,
            settings.clips,
            strip=settings.strip,
            overwrite=settings.overwrite,
            progress=tell,
        )
    except (DeviceError, WeightsError):
        raise  # the next job would fail the same way
    except DeblurError as error:
        if error.subject.startswith("--"):
            raise
        return Outcome(job, "failed", error, seconds)
    except Exception as error:
        return Outcome(job, "failed", failure_of(job, error), seconds)
    if result.damage:
        return Outcome(job, "failed", damage_error(job, result), seconds, result.notes)
    return Outcome(job, "done", None, seconds, result.notes)


_RUNNERS: dict[Kind, Callable[[Sequence[Job], Settings], Iterator[Outcome]]] = {
    "photo": _run_photos,
    "video": _run_clips,
    "animation": _run_clips,
    "frames": _run_clips,
}
