"""Does the jobs of a plan. While the calling thread restores a photo, other threads read the next
and write the last ones: as many as their pixels allow, so that memory does not grow with the jobs.
"""

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby, pairwise
from pathlib import Path
from typing import Literal

from deblurcli import __version__
from deblurcli.batch.estimate import estimate_blur
from deblurcli.batch.plan import Job
from deblurcli.batch.selection import Selection
from deblurcli.deblurrer import Deblurrer
from deblurcli.errors import (
    DeblurError,
    DeviceError,
    DiskFullError,
    UsageError,
    WeightsError,
    cannot_write,
    logger,
)
from deblurcli.io import media, photos
from deblurcli.io.files import is_empty, make_folder_of
from deblurcli.io.image import Image
from deblurcli.io.options import ClipOptions, Progress

_THREADS = min(4, os.cpu_count() or 1)
MAX_AHEAD = 2 * _THREADS
PIXELS_ON_THE_WAY = 32_000_000


@dataclass(frozen=True)
class Outcome:
    """What became of one job, or will; `seconds` are those in the network."""

    job: Job
    status: Literal["planned", "done", "skipped", "failed"]
    error: DeblurError | None = None
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    """What the user should know, though it worked, or why it was skipped."""


@dataclass(frozen=True)
class RunOptions:
    """What is read and how results are written."""

    overwrite: bool = False
    strip: bool = False  # leave private metadata out
    format: str | None = None
    """As `photos.write` takes it, for targets whose names don't say it; None is the input's own."""
    clips: ClipOptions = ClipOptions()  # noqa: RUF009  (frozen)
    reading: photos.ReadOptions = photos.ReadOptions()  # noqa: RUF009  (frozen)
    selection: Selection | None = None  # the part of each photo that is restored; None is all of it
    skip_sharp: bool = False
    skip_existing: bool = False
    """Skip what another run wrote in the meantime; empty files are replaced."""


def run(
    jobs: Sequence[Job],
    deblurrer: Deblurrer,
    options: RunOptions,
    progress: Callable[[Job, int, int | None], None] | None = None,
) -> Generator[Outcome, None, None]:
    """Does `jobs` in order and yields what became of each; one that fails does not stop the others.

    Closing the iterator early, or an exception, stops the threads; what was being written is
    finished or removed, never left in halves.

    Raises WeightsError, DeviceError and DiskFullError, as every job would fail.

    Args:
        progress: told after each frame of a clip and each tile of a photo: the job, how many
            are done, and how many there are if that is known.
    """
    for is_photo, alike in groupby(jobs, key=lambda job: job.kind == "photo"):
        if is_photo:
            yield from _run_photos(alike, deblurrer, options, progress)
            continue
        for job in alike:
            yield _run_clip(job, deblurrer, options, progress and partial(progress, job))


def _run_photos(
    jobs: Iterator[Job],
    deblurrer: Deblurrer,
    options: RunOptions,
    progress: Callable[[Job, int, int | None], None] | None,
) -> Iterator[Outcome]:
    readers = ThreadPoolExecutor(_THREADS, "deblur-read")
    writers = ThreadPoolExecutor(_THREADS, "deblur-write")
    reading: deque[tuple[Job, Future[photos.Photo] | None]] = deque()
    writing: deque[Future[Outcome]] = deque()
    ahead = 1
    try:
        while True:
            while len(reading) + len(writing) <= ahead and (job := next(jobs, None)):
                # A pipe may keep us waiting for ever, and Ctrl-C only reaches the thread that
                # calls: that is where pipes are read.
                is_file = job.source is not None and job.source.is_file()
                coming = readers.submit(read_photo, job, options) if is_file else None
                reading.append((job, coming))
            if not reading:
                break
            job, coming = reading.popleft()
            try:
                photo = coming.result() if coming else read_photo(job, options)
            except Exception as error:
                yield Outcome(job, "failed", failure_of(job.source_name, error))
                continue
            if options.skip_sharp and (estimate := estimate_blur(deblurrer, photo.pixels)).is_sharp:
                note = f"left alone, as it is sharp already (change {estimate.change:.2f})"
                yield Outcome(job, "skipped", notes=(note,))
                continue
            # Photos of one folder are mostly alike: the next ones will be as large as this one.
            ahead = min(MAX_AHEAD, PIXELS_ON_THE_WAY // photo.pixels[..., 0].size)
            together = [(job, photo)]
            # On a CPU one at a time is as fast.
            if str(deblurrer.device) != "cpu" and not options.skip_sharp:
                while (
                    reading
                    and (coming := reading[0][1]) is not None
                    and coming.done()
                    and coming.exception() is None
                    and coming.result().pixels.shape == photo.pixels.shape
                    and coming.result().pixels.dtype == photo.pixels.dtype
                ):
                    together.append((reading.popleft()[0], coming.result()))
            start = time.perf_counter()
            blurred = [photo.pixels for _, photo in together]
            restored = (
                deblurrer.restore_batch(
                    blurred, in_place=True, on_tile=progress and partial(progress, job)
                )
                if options.selection is None
                else [options.selection.restore(deblurrer, pixels) for pixels in blurred]
            )
            seconds = (time.perf_counter() - start) / len(together)
            for (job, photo), pixels in zip(together, restored, strict=True):
                writing.append(writers.submit(_finish, job, photo, pixels, seconds, options))
            del coming, photo, together, blurred, restored, pixels  # before the next ones come
            while writing and (len(writing) > ahead // 2 or writing[0].done()):
                yield writing.popleft().result()
        while writing:
            yield writing.popleft().result()
    finally:
        for executor in (readers, writers):
            executor.shutdown(wait=True, cancel_futures=True)


def _finish(
    job: Job, photo: photos.Photo, restored: Image, seconds: float, options: RunOptions
) -> Outcome:
    try:
        write_photo(job, photo, restored, options)
    except DiskFullError:
        raise  # the next photo would meet the same
    except DeblurError as error:
        if options.skip_existing and job.target is not None and os.path.lexists(job.target):
            return Outcome(job, "skipped")  # another run was faster
        return Outcome(job, "failed", error, seconds)
    return Outcome(job, "done", None, seconds, photo.notes)


def failure_of(name: str, error: Exception) -> DeblurError:
    """What to tell of any failure of one input; a bug's traceback goes to the log, as the other
    inputs must not suffer from it."""
    if isinstance(error, DeblurError):
        if not error.subject.startswith("--"):
            return error
        return DeblurError(name, f"{error.subject}: {error.reason}", error.remedy)
    what = " ".join(f"{type(error).__name__}: {error}".split())
    logger.error("%s: a bug in deblur or in a library that it uses", name, exc_info=error)
    return DeblurError(name, f"failed unexpectedly ({what})", "please report it")


def read_photo(job: Job, options: RunOptions) -> photos.Photo:
    source = sys.stdin.buffer if job.source is None else job.source
    photo = photos.read(source, name=job.source_name, options=options.reading)
    if options.selection is not None:
        options.selection.check(job.source_name, photo.pixels)
    return photo


def write_photo(job: Job, photo: photos.Photo, restored: Image, options: RunOptions) -> None:
    """Writes the result of a job to its file or to standard output."""
    out = job.target or sys.stdout.buffer
    write = partial(photos.write, photo, restored, out, strip=options.strip, use_up=True)
    if job.target is None:
        try:
            write(format=options.format)
        except BrokenPipeError:
            raise  # who read it went away, and knows
        except OSError as error:
            raise cannot_write("standard output", error) from error
        return
    make_folder_of(job.target)
    # A name with an ending decides; `plan` has refused one that contradicts the format.
    format = None if job.target.suffix else options.format  # noqa: A001
    overwrite = options.overwrite or (options.skip_existing and is_empty(job.target))
    write(format=format, overwrite=overwrite)


def _run_clip(
    job: Job, deblurrer: Deblurrer, options: RunOptions, show: Progress | None
) -> Outcome:
    """Restores a video, an animated picture, or a folder of numbered frames."""
    from deblurcli.io import videos  # takes its time, and most runs hold none

    assert job.source is not None and job.target is not None  # `plan` puts photos through pipes
    seconds = 0.0

    def restore(pixels: Image) -> Image:
        nonlocal seconds
        start = time.perf_counter()
        restored = deblurrer.restore(pixels)
        seconds += time.perf_counter() - start
        return restored

    try:
        make_folder_of(job.target)
        restored_by = None
        if deblurrer.weights_path is not None:
            # Not precision and tiles: `auto` may choose others the next time, and half a level
            # of difference is no reason to restore hours of frames again.
            path = Path(deblurrer.weights_path)
            weights = f"{path.name} of {path.stat().st_size} bytes, {path.stat().st_mtime_ns}"
            how = f"strength {deblurrer.strength:g}, ensemble {deblurrer.ensemble}"
            restored_by = f"deblurcli {__version__}, {weights}, {how}"
        clips = replace(options.clips, strip=options.strip, overwrite=options.overwrite)
        clips = replace(clips, progress=show, restored_by=restored_by)
        if job.kind == "animation":
            result = videos.restore_animation(job.source, job.target, restore, clips)
        elif job.kind == "frames":
            frames = media.find_clip(job.source)

            def read(path: Path) -> Image:
                return photos.read(path, options=options.reading).pixels

            result = videos.restore_frames(frames, job.target, restore, read, clips)
            steps = [after - before for before, after in pairwise(media.frame_numbers(frames))]
            gaps = [place for place, step in enumerate(steps) if step != min(steps)]
            if gaps:
                first = frames[gaps[0]].name
                note = f"numbers are missing in {len(gaps)} place(s), the first after {first}"
                result = replace(result, notes=(*result.notes, note))
        elif clips.to_frames:
            result = videos.restore_to_frames(job.source, job.target, restore, clips)
        else:
            result = videos.restore_video(job.source, job.target, restore, clips)
    except (DeviceError, DiskFullError, WeightsError):
        raise  # the next job would fail the same way
    except Exception as error:
        if isinstance(error, UsageError) and error.subject.startswith("--"):
            raise  # no file can be done so
        return Outcome(job, "failed", failure_of(job.source_name, error), seconds)
    if not result.damage:
        return Outcome(job, "done", None, seconds, result.notes)
    damage = DeblurError(
        job.source_name,
        "; ".join(result.damage),
        f"what could be decoded ({result.frame_count} frames) is in {job.target_name}",
    )
    return Outcome(job, "failed", damage, seconds, result.notes)
