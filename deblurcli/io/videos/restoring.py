"""Restoring the frames of a clip: a video, or numbered pictures, into a video or into pictures.

Decoding, computing and encoding go on at the same time, while no more than a few frames are held.
"""

import itertools
import os
import shutil
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar, cast

import imagecodecs
import numpy as np
from av.video.format import VideoFormat

from deblurcli.errors import AnyPath, UsageError, already_exists, cannot_write, sizes_differ
from deblurcli.io.image import Image, chunk_bytes, to_uint8
from deblurcli.io.options import ClipOptions
from deblurcli.io.videos.encoding import choose_encoding
from deblurcli.io.videos.info import container_of
from deblurcli.io.videos.neighbours import Restore, RestoredFrame, Steadier, average
from deblurcli.io.videos.pixels import RGB16, Colour, frame_like, frame_of, pixels_of
from deblurcli.io.videos.reading import Step, VideoReader
from deblurcli.io.videos.segments import SegmentStore, open_segments
from deblurcli.io.videos.streams import choose_copied_streams
from deblurcli.io.videos.writing import FrameFormat, open_writer

# The others have no place for a rotation: there the frames themselves are turned.
_ROTATION_HOLDERS = ("mp4", "mov", "matroska")
# FFmpeg's numbers of BT.2020 and the P3 gamuts, and of the curves PQ and HLG.
_WIDE_GAMUTS, _HDR = (9, 11, 12), (16, 18)
_BT709 = Colour(matrix=1, range=1, transfer=1, primaries=1)

T = TypeVar("T")


@dataclass(frozen=True)
class VideoResult:
    """What became of a video."""

    frame_count: int  # of frames written
    notes: tuple[str, ...] = ()  # what was left out or is written differently
    damage: tuple[str, ...] = ()  # what of the input could not be decoded, with its time


def restore_video(
    source: AnyPath,
    target: AnyPath,
    restore: Restore,
    options: ClipOptions | None = None,
    **changes: Any,
) -> VideoResult:
    """Restores the frames of `source` and writes them, with all else it holds, to `target`.

    Frames keep their times, size, rotation, aspect and colour tags; audio and subtitles are
    copied. Where the video stands still, the change that is made to it is steadied (`Steadier`);
    where it moves, successive frames are averaged (`neighbours`).
    `restore` is called in the calling thread, in the order of the frames, while other threads
    decode and encode; memory does not grow with the length of the video.

    Args:
        target: the file to write; its ending says which container.
        restore: restores one frame; must not change what it is given.
        options: `ClipOptions`, which can also be given one by one, as ``crf=18``: `changes`.

    Raises UsageError where `target` exists, or the options don't fit each other, DeblurError where
    `source` holds no video that can be decoded, or `target` can't be written.
    """
    source, target = Path(source), Path(target)
    options = replace(options or ClipOptions(), **changes)
    container = container_of(target)
    upright = options.side_by_side or container not in _ROTATION_HOLDERS
    part, keep_origin = (options.start, options.end), container == "mpegts"
    with closing(VideoReader(source, *part, keep_origin=keep_origin, upright=upright)) as reader:
        stream = reader.stream
        copied = choose_copied_streams(reader.container, stream, container, strip=options.strip)
        encoding = choose_encoding(container, stream.codec_context.name, stream.format, options)
        steps = reader.steps(copied.streams)
        first = next(steps)
        assert first.frame is not None
        encoding = encoding.with_traits_of(reader, copied.any_tag)
        size = (first.frame.width * (2 if options.side_by_side else 1), first.frame.height)
        colour, times = Colour.of(stream, encoding.encoder), (reader.tick, reader.rate)
        picture = FrameFormat(*size, colour, *times, reader.display_matrix, reader.aspect)
        with open_writer([source], target, encoding, picture, options, reader.part) as writer:
            writer.copy_from(reader, copied, strip=options.strip)
            steps, total = itertools.chain([first], steps), reader.frame_count
            write, segments = writer.write, writer.segments
            count = restore_steps(steps, write, restore, segments, options, size, total)
        notes = (*copied.notes, *encoding.notes, *reader.notes)
        return VideoResult(count, notes, reader.damage())


def restore_frames(
    sources: Sequence[Path],
    target: AnyPath,
    restore: Restore,
    read: Callable[[Path], Image],
    options: ClipOptions | None = None,
    **changes: Any,
) -> VideoResult:
    """Restores numbered pictures, in order and all of one size, and writes them as one video.
    `read` gives the pixels of one of them. All else is as in `restore_video`; a picture that can't
    be read or has another size raises DeblurError."""
    target, options = Path(target), replace(options or ClipOptions(), **changes)
    container = container_of(target)
    fps = 30.0 if options.fps is None else options.fps
    if not 0 < fps <= 1000:
        raise UsageError("--fps", f"{fps:g} is no frame rate", "give frames per second, as 30")
    rate = exact_rate(fps)

    def read_steps() -> Iterator[Step]:
        size = None
        for number, path in enumerate(sources):
            frame = frame_of(read(path))
            frame.pts, frame.time_base, frame.duration = number, 1 / rate, 1
            size = size or (frame.width, frame.height)
            if (frame.width, frame.height) != size:
                remedy = "leave it out: a video has one size"
                raise sizes_differ(path, (frame.width, frame.height), sources[0], size, remedy)
            yield Step(frame)

    steps, total = read_steps(), len(sources)
    first = next(steps)
    assert first.frame is not None
    size = (first.frame.width, first.frame.height)
    kind = "yuv420p10le" if first.frame.format.name == RGB16 else "yuv420p"
    encoding = choose_encoding(container, "png", VideoFormat(kind, *size), options)
    picture = FrameFormat(*size, _BT709, 1 / rate, rate)
    with open_writer(sources, target, encoding, picture, options) as writer:
        steps, write, segments = itertools.chain([first], steps), writer.write, writer.segments
        restore_steps(steps, write, restore, segments, options, size, total)
    return VideoResult(total, encoding.notes)


def exact_rate(fps: float) -> Fraction:
    """The rate that is meant by a rounded one: 29.97 is 30000/1001."""
    broadcast = Fraction(round(fps * 1.001) * 1000, 1001)
    meant = fps >= 20 and fps != round(fps) and abs(broadcast - fps) < 0.005
    return broadcast if meant else Fraction(fps).limit_denominator(1000)


def restore_to_frames(
    source: AnyPath,
    folder: AnyPath,
    restore: Restore,
    options: ClipOptions | None = None,
    **changes: Any,
) -> VideoResult:
    """Restores a video and writes its frames, upright, as pictures into `folder`. They are called
    ``frame-000001.png`` and so on. 8 bits stay 8, more become 16 in PNG. Until all are there, they
    lie in ``FOLDER.part``. A folder that may be overwritten is replaced if it holds only such
    frames, else UsageError is raised. All else is as in `restore_video`."""
    source, folder = Path(source), Path(folder)
    options = replace(options or ClipOptions(), **changes)
    suffix = options.suffix
    if suffix not in (".png", ".jpg", ".jpeg"):
        raise UsageError("--format", "frames are written as png or jpg", "give one of them")
    if os.path.lexists(folder):
        if not options.overwrite:
            raise already_exists(folder)
        if not folder.is_dir() or any(not p.match("frame-*.*") for p in folder.iterdir()):
            raise UsageError(folder, "holds other things than frames", "give another -o")
    with closing(VideoReader(source, options.start, options.end, upright=True)) as reader:
        size, total = (reader.stream.width, reader.stream.height), reader.frame_count
        colour = Colour.of(reader.stream, "png")
        numbers = itertools.count()

        def write(step: Step) -> None:
            number = next(numbers)
            if step.frame is None or segments.has(number):
                return
            pixels = pixels_of(step.frame)
            with (unfinished / f"frame-{number + 1:06}{suffix}").open("wb") as file:
                if suffix == ".png":
                    file.write(encode_png(pixels, colour))
                else:
                    file.write(imagecodecs.jpeg_encode(to_uint8(pixels), 95, subsampling="444"))
                file.flush()
                os.fsync(file.fileno())
            if (number + 1) % segments.segment_frames == 0:
                segments.save(number // segments.segment_frames, ())

        try:
            real, by = Path(os.path.realpath(folder)), options.restored_by
            output = [suffix, repr(reader.part)]
            with open_segments([source], folder, by, output, needs_folder=True) as segments:
                unfinished = segments.folder / "frames"
                if not segments.count:
                    shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir(exist_ok=True)
                steps = reader.steps()
                count = restore_steps(steps, write, restore, segments, options, size, total)
                if real.exists():
                    shutil.rmtree(real)
                unfinished.rename(real)
        except OSError as error:
            raise cannot_write(folder, error) from error
        return VideoResult(count, tuple(reader.notes), reader.damage())


def encode_png(pixels: Image, colour: Colour | None = None) -> bytes:
    """`pixels` (H, W, 3) uint8 or uint16 as a PNG file of as many bits. With `colour` of a wide
    gamut or high dynamic range the file says so; viewers take other colours for granted."""
    png = bytes(imagecodecs.png_encode(np.ascontiguousarray(pixels)))
    if colour is None or not (colour.primaries in _WIDE_GAMUTS or colour.transfer in _HDR):
        return png
    header_end = 33  # of signature and IHDR
    chunk = chunk_bytes(b"cICP", bytes((colour.primaries, colour.transfer, 0, 1)))
    return png[:header_end] + chunk + png[header_end:]


def restore_steps(
    steps: Iterable[Step],
    write: Callable[[Step], None],
    restore: Restore,
    segments: SegmentStore,
    options: ClipOptions,
    size: tuple[int, int],
    total: int | None,
) -> int:
    """Restores the frames of `steps`, which one thread reads, some average with their neighbours,
    and another hands to `write`; frames of which `segments` has the result stay as they are. Gives
    their number."""
    done, steadier = 0, Steadier(restore)
    # How many frames of that size may wait in one queue, and be averaged at the same time.
    depth = max(1, min(6, 32_000_000 // (size[0] * size[1])))
    at_once = max(1, min(4, depth, (os.cpu_count() or 1) // 2))
    with (
        closing(read_ahead(steps, depth)) as ahead,
        ThreadPoolExecutor(at_once, "deblur-average") as pool,
        write_behind(write, depth) as put,
    ):
        put_averaged = Averager(pool, put, side_by_side=options.side_by_side)
        for step in ahead:
            if step.frame is not None:
                segment, place = divmod(done, segments.segment_frames)
                is_last = place == segments.segment_frames - 1
                if not segments.has(done):
                    step.restored = steadier(pixels_of(step.frame))
                    if is_last:
                        state = {**steadier.save(), "restored": step.restored}
                        segments.save_state(segment, state)
                elif is_last and not segments.has(done + 1):
                    state = segments.load_state(segment)
                    steadier.load(state)
                    step.restored = state.get("restored")
                done += 1
                if options.progress is not None:
                    options.progress(done, total)
            put_averaged(step)
        put_averaged(None)
    return done


class Averager:
    """Takes the steps in their order, None last, and has the threads of `pool` average each frame
    with both neighbours. `put` gets the results to come, in the same order."""

    Put = Callable[[Future[Step]], None]

    def __init__(self, pool: ThreadPoolExecutor, put: Put, *, side_by_side: bool) -> None:
        self._pool, self._put, self._side_by_side = pool, put, side_by_side
        self._held: Step | None = None
        self._before: Future[RestoredFrame] | None = None
        self._middle: Future[RestoredFrame] | None = None

    def __call__(self, step: Step | None) -> None:
        after = None
        if step is not None and step.frame is not None and step.restored is not None:
            after = self._pool.submit(RestoredFrame, pixels_of(step.frame), step.restored)
        if self._held is not None:
            around = (self._middle, self._before, after)
            self._put(self._pool.submit(self._average, self._held, *around))
        self._held, self._before, self._middle = step, self._middle, after

    def _average(self, step: Step, *around: Future[RestoredFrame] | None) -> Step:
        # These were submitted earlier, so that some thread has begun them: nothing waits for ever.
        middle, *neighbours = (None if frame is None else frame.result() for frame in around)
        if middle is not None and step.frame is not None:
            shown = average(middle, *neighbours)
            if self._side_by_side:
                shown = np.hstack((middle.blurred, shown))
            step.frame = frame_like(step.frame, shown)
        return step


def read_ahead(items: Iterable[T], depth: int) -> Generator[T, None, None]:
    """Yields `items`, which a thread produces up to `depth` ahead; closing ends the thread. An
    exception of `items` is raised here, after the items before it."""
    source, end = iter(items), object()
    thread = ThreadPoolExecutor(1, "deblur-decode")
    ahead: deque[Future[T | object]] = deque()
    try:
        while True:
            while len(ahead) <= depth:
                ahead.append(thread.submit(next, source, end))
            item = ahead.popleft().result()
            if item is end:
                return
            yield cast(T, item)
    finally:
        thread.shutdown(cancel_futures=True)


@contextmanager
def write_behind(write: Callable[[T], None], depth: int) -> Iterator[Callable[[Future[T]], None]]:
    """Gives a function that takes results to come, and hands them to `write` in a thread, in order.
    It waits while `depth` of them are waiting, and raises what failed. On leaving, all is written;
    what waits is thrown away if the body raised."""
    thread = ThreadPoolExecutor(1, "deblur-encode")
    waiting: deque[Future[None]] = deque()

    def put(result: Future[T]) -> None:
        while waiting and (len(waiting) > depth or waiting[0].done()):
            waiting.popleft().result()
        waiting.append(thread.submit(lambda: write(result.result())))

    try:
        yield put
        while waiting:
            waiting.popleft().result()
    finally:
        thread.shutdown(cancel_futures=True)
