"""Numbered pictures as a video: a folder of frames as input, or as output."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import numpy as np
from av.codec.context import CodecContext
from av.video.codeccontext import VideoCodecContext
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from PIL import Image

from deblurcli.errors import DeblurError, UsageError, already_exists, cannot_write
from deblurcli.io.files import atomic_output
from deblurcli.io.videos.encoding import choose_encoding
from deblurcli.io.videos.info import container_of, open_video, video_stream
from deblurcli.io.videos.overlap import read_ahead, write_behind
from deblurcli.io.videos.pixels import (
    RGB16,
    Colour,
    Pixels,
    pixels_of,
    turn_upright,
)
from deblurcli.io.videos.reading import Step, VideoReader, choose_time_range
from deblurcli.io.videos.restoring import (
    Progress,
    Restore,
    VideoResult,
    check_restored,
    count_within,
    depth_for,
    refused_by_ffmpeg,
)
from deblurcli.io.videos.side_data import display_matrix_of
from deblurcli.io.videos.writing import Picture, VideoWriter

_WIDE_GAMUTS, _HDR = (9, 11, 12), (16, 18)
"""FFmpeg's numbers of BT.2020 and the P3 gamuts, and of the curves PQ and HLG."""
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
            write_behind(writer.write, depth_for(width, height)) as write,
        ):
            for number, blurred in enumerate(itertools.chain([first], pictures)):
                _require_size(blurred, first, sources[number])
                restored = check_restored(restore(blurred), blurred)
                kind = RGB16 if restored.dtype == np.uint16 else "rgb24"
                frame = VideoFrame.from_ndarray(np.ascontiguousarray(restored), kind)
                frame.pts, frame.time_base, frame.duration = number, 1 / rate, 1
                write(Step(frame))
                if progress is not None:
                    progress(number + 1, len(sources))
    return VideoResult(len(sources), encoding.notes)


def exact_rate(fps: float) -> Fraction:
    """The rate that is meant by a rounded one: 29.97 is 30000/1001."""
    broadcast = Fraction(round(fps * 1.001) * 1000, 1001)
    meant = fps >= 20 and fps != round(fps) and abs(broadcast - fps) < 0.005
    return broadcast if meant else Fraction(fps).limit_denominator(1000)


def _require_size(pixels: Pixels, first: Pixels, source: Path) -> None:
    if pixels.shape != first.shape or pixels.dtype != first.dtype:
        size, wanted = ("{1}x{0}".format(*a.shape) for a in (pixels, first))
        depth = "" if pixels.dtype == first.dtype else " or another depth"
        raise DeblurError(
            source,
            f"is {size}, the frames before it {wanted}{depth}",
            "leave it out: the frames of a video have one size",
        )


def restore_to_frames(
    source: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    restore: Restore,
    *,
    suffix: str = ".png",
    start: float | None = None,
    end: float | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> VideoResult:
    """Restores a video and writes its frames, upright, as pictures into `folder`.

    They are called ``frame-000001.png`` and so on. 8 bits stay 8, more become 16 in PNG. The
    folder gets its name when all frames are in it.

    Args:
        source: a video file.
        folder: is made; with `overwrite` replaced if it holds only such frames.
        suffix: ``".png"``, or ``".jpg"`` (of high quality).
        restore, start, end, overwrite, progress: as in `restore_video`.

    Raises:
        UsageError: `folder` exists, the format is another, or there is no such part.
        DeblurError: `source` holds no video that can be decoded, or `folder` can't be written.
    """
    folder = Path(folder)
    if suffix not in (".png", ".jpg", ".jpeg"):
        raise UsageError("--format", "frames are written as png or jpg", "give one of them")
    if os.path.lexists(folder):
        if not overwrite:
            raise already_exists(folder)
        if not folder.is_dir() or any(not p.match("frame-*.*") for p in folder.iterdir()):
            raise UsageError(folder, "holds other things than frames", "give another -o")
    with closing(open_video(source)) as container:
        stream = video_stream(container, source)
        part = choose_time_range(container, "png", start, end)
        reader = VideoReader(source, container, stream, part)
        total = count_within(container, stream, start, end)
        depth = depth_for(stream.width, stream.height)
        colour = Colour.of(stream.codec_context)
        unfinished = folder.with_name(f"{folder.name}.{os.getpid()}.part")
        done = 0
        try:
            unfinished.mkdir()

            def write_png(item: tuple[int, Pixels]) -> None:
                number, pixels = item
                file = unfinished / f"frame-{number:06}{suffix}"
                if suffix == ".png":
                    file.write_bytes(encode_png(pixels, colour))
                else:
                    shown = np.rint(pixels / 257) if pixels.dtype == np.uint16 else pixels
                    Image.fromarray(shown.astype(np.uint8)).save(file, quality=95, subsampling=0)

            with (
                closing(read_ahead(reader.steps(), depth)) as steps,
                write_behind(write_png, depth) as write,
            ):
                for step in steps:
                    if step.frame is None:
                        continue
                    matrix = display_matrix_of(step.frame)
                    blurred = pixels_of(step.frame)
                    restored = check_restored(restore(blurred), blurred)
                    done += 1
                    write((done, turn_upright(restored, matrix) if matrix else restored))
                    if progress is not None:
                        progress(done, total)
            if not done:
                raise reader.failure()
            if folder.exists():
                shutil.rmtree(folder)
            unfinished.rename(folder)
        except OSError as error:
            raise cannot_write(folder, error) from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        return VideoResult(done, tuple(reader.notes), reader.damage())


def encode_png(pixels: Pixels, colour: Colour | None = None) -> bytes:
    """`pixels` (H, W, 3) uint8 or uint16 as a PNG file of as many bits.

    With `colour` of a wide gamut or high dynamic range the file says so; other video colours
    are what viewers take for granted.
    """
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
    if colour is not None and (colour.primaries in _WIDE_GAMUTS or colour.transfer in _HDR):
        frame.color_primaries, frame.color_trc = colour.primaries, colour.transfer
    frame.pts = 0
    packets = [*context.encode(frame), *context.encode(None)]
    return b"".join(bytes(packet) for packet in packets)
