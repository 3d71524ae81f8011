"""Numbered pictures as a video: a folder of frames as input, or as output."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import numpy as np
from av.codec.context import CodecContext
from av.video.codeccontext import VideoCodecContext
from av.video.format import VideoFormat
from av.video.frame import VideoFrame

from deblurcli.errors import DeblurError, UsageError
from deblurcli.io.files import atomic_output, output_error
from deblurcli.io.videos.encoding import choose_encoding
from deblurcli.io.videos.info import container_of, open_video, video_stream
from deblurcli.io.videos.overlap import WriteBehind, read_ahead
from deblurcli.io.videos.pixels import (
    RGB16,
    Colour,
    Pixels,
    display_matrix_of,
    pixels_of,
    turn_upright,
)
from deblurcli.io.videos.reading import Reading, choose_cut
from deblurcli.io.videos.restoring import (
    Progress,
    Restore,
    VideoResult,
    check_restored,
    count_within,
    depth_for,
    refused_by_ffmpeg,
)
from deblurcli.io.videos.writing import Picture, VideoWriter

_BT709_COLOUR = Colour(matrix=1, range=1, transfer=1, primaries=1)


def restore_frames(
    sources: Sequence[Path],
    target: str | os.PathLike[str],
    restore: Restore,
    read: Callable[[Path], Pixels],
    *,
    fps: float = 30.0,
    codec: str | None = None,
    crf: int | None = None,
    preset: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> VideoResult:
    """Restores numbered pictures and writes them as one video.

    Args:
        sources: the pictures, in order; all of one size.
        target: the file to write; its ending says which container.
        restore: restores one frame.
        read: reads one picture: (H, W, 3) uint8 or uint16 sRGB.
        fps: frames per second of the video.
        codec, crf, preset: of the encoder; see `choose_encoding`.
        overwrite: `target` may be replaced.
        progress: is told about each frame.

    Raises:
        UsageError: `target` exists, or the options don't fit each other.
        DeblurError: a picture can't be read or has another size, or `target` can't be written.
    """
    target = Path(target)
    container_format = container_of(target)
    if not 0 < fps <= 1000:
        raise UsageError("--fps", f"{fps:g} is no frame rate", "give frames per second, as 30")
    rate = exact_rate(fps)
    with closing(read_ahead(map(read, sources), 2)) as pictures:
        first = next(pictures)
        height, width = first.shape[:2]
        kind = "yuv420p10le" if first.dtype == np.uint16 else "yuv420p"
        encoding = choose_encoding(
            container_format,
            "png",
            VideoFormat(kind, width, height),
            codec=codec,
            crf=crf,
            preset=preset,
        )
        picture = Picture(width, height, _BT709_COLOUR)
        with (
            atomic_output(target, overwrite=overwrite) as part,
            refused_by_ffmpeg(target, part),
            VideoWriter(
                part, container_format, encoding, picture, time_base=1 / rate, rate=rate, tags={}
            ) as writer,
            WriteBehind(writer.add_frame, depth_for(width, height)) as behind,
        ):
            for number, blurred in enumerate(_chain(first, pictures)):
                _require_size(blurred, first, sources[number])
                restored = check_restored(restore(blurred), blurred)
                behind.put(_frame(restored, number, 1 / rate))
                if progress is not None:
                    progress(number + 1, len(sources))
    return VideoResult(len(sources), encoding.notes)


def exact_rate(fps: float) -> Fraction:
    """The rate that is meant by a rounded one: 29.97 is 30000/1001."""
    broadcast = Fraction(round(fps * 1.001) * 1000, 1001)
    meant = fps >= 20 and fps != round(fps) and abs(broadcast - fps) < 0.005
    return broadcast if meant else Fraction(fps).limit_denominator(1000)


def _chain(first: Pixels, rest: Iterator[Pixels]) -> Iterator[Pixels]:
    yield first
    yield from rest


def _require_size(pixels: Pixels, first: Pixels, source: Path) -> None:
    if pixels.shape != first.shape or pixels.dtype != first.dtype:
        size, wanted = ("{1}x{0}".format(*a.shape) for a in (pixels, first))
        depth = "" if pixels.dtype == first.dtype else " or another depth"
        raise DeblurError(
            source,
            f"is {size}, the frames before it {wanted}{depth}",
            "leave it out: the frames of a video have one size",
        )


def _frame(pixels: Pixels, number: int, tick: Fraction) -> VideoFrame:
    kind = RGB16 if pixels.dtype == np.uint16 else "rgb24"
    frame = VideoFrame.from_ndarray(np.ascontiguousarray(pixels), kind)
    frame.pts, frame.time_base, frame.duration = number, tick, 1
    return frame


def restore_to_frames(
    source: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    restore: Restore,
    *,
    start: float | None = None,
    end: float | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> VideoResult:
    """Restores a video and writes its frames, upright, as PNG files into `folder`.

    They are called ``frame-000001.png`` and so on. 8 bits stay 8, more become 16. The folder
    gets its name when all frames are in it.

    Args:
        source: a video file.
        folder: is made; with `overwrite` replaced if it holds only such frames.
        restore, start, end, overwrite, progress: as in `restore_video`.

    Raises:
        UsageError: `folder` exists, or there is no such part.
        DeblurError: `source` holds no video that can be decoded, or `folder` can't be written.
    """
    folder = Path(folder)
    _require_replaceable(folder, overwrite)
    with closing(open_video(source)) as container:
        stream = video_stream(container, source)
        cut = choose_cut(container, "png", start, end)
        reading = Reading(source, container, stream, cut, set())
        total = count_within(container, stream, start, end)
        depth = depth_for(stream.width, stream.height)
        part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
        done = 0
        try:
            part.mkdir()

            def write(item: tuple[int, Pixels]) -> None:
                number, pixels = item
                (part / f"frame-{number:06}.png").write_bytes(encode_png(pixels))

            with (
                closing(read_ahead(reading.steps(), depth)) as steps,
                WriteBehind(write, depth) as behind,
            ):
                for step in steps:
                    if step.frame is None:
                        continue
                    matrix = display_matrix_of(step.frame)
                    blurred = pixels_of(step.frame)
                    restored = check_restored(restore(blurred), blurred)
                    done += 1
                    behind.put((done, turn_upright(restored, matrix) if matrix else restored))
                    if progress is not None:
                        progress(done, total)
            if not done:
                raise reading.failure()
            if folder.exists():
                shutil.rmtree(folder)
            part.rename(folder)
        except OSError as error:
            raise output_error(folder, error) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return VideoResult(done, tuple(reading.notes), reading.damage())


def _require_replaceable(folder: Path, overwrite: bool) -> None:
    if not os.path.lexists(folder):
        return
    if not overwrite:
        raise UsageError(folder, "exists already", "give another -o, or --overwrite")
    if not folder.is_dir() or any(not p.match("frame-*.png") for p in folder.iterdir()):
        raise UsageError(folder, "holds other things than frames", "give another -o")


def encode_png(pixels: Pixels) -> bytes:
    """`pixels` (H, W, 3) uint8 or uint16 as a PNG file of as many bits."""
    deep = pixels.dtype == np.uint16
    context = CodecContext.create("png", "w")
    if not isinstance(context, VideoCodecContext):
        raise TypeError("FFmpeg's PNG encoder is missing")
    context.height, context.width = pixels.shape[:2]
    context.pix_fmt = "rgb48be" if deep else "rgb24"
    context.time_base = Fraction(1)
    context.thread_count = 1  # else it would hold frames back
    context.options = {"pred": "mixed"}
    frame = VideoFrame.from_ndarray(np.ascontiguousarray(pixels), RGB16 if deep else "rgb24")
    if deep:
        frame = frame.reformat(format="rgb48be")
    frame.pts = 0
    packets = [*context.encode(frame), *context.encode(None)]
    return b"".join(bytes(packet) for packet in packets)
