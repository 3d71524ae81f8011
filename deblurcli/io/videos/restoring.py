"""Restoring a video frame by frame: decoding, computing and encoding at the same time."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from deblurcli.errors import DeblurError
from deblurcli.io.files import atomic_output
from deblurcli.io.videos.encoding import (
    Encoding,
    choose_encoding,
    rate_of_stream,
    with_source_traits,
)
from deblurcli.io.videos.info import (
    container_of,
    count_frames,
    fraction_of,
    open_video,
    seconds_of,
    tick_of,
    video_stream,
)
from deblurcli.io.videos.overlap import read_ahead, write_behind
from deblurcli.io.videos.pixels import (
    Colour,
    Pixels,
    matrix_of,
    pixels_of,
    turn_upright,
    with_pixels,
)
from deblurcli.io.videos.reading import Step, VideoReader, choose_time_range
from deblurcli.io.videos.segments import SEGMENT_FRAMES, open_segments
from deblurcli.io.videos.side_data import (
    DisplayMatrix,
    display_matrix_of,
    hdr_metadata_of,
    left_out_of,
)
from deblurcli.io.videos.streams import CopiedStreams, choose_copied_streams
from deblurcli.io.videos.writing import Picture, VideoWriter, unusual_tags

Restore = Callable[[Pixels], Pixels]
"""Restores one frame, (H, W, 3) uint8 or uint16 sRGB, and gives the same shape and type."""

Progress = Callable[[int, int | None], None]
"""Told after each frame how many are done, and how many there are if that is known."""

_PIXELS_ON_THE_WAY = 32_000_000
# The others have no place for a rotation: there the frames themselves are turned.
_ROTATION_HOLDERS = ("mp4", "mov", "matroska")
# These write the shape of pixels into their own data; MP4 and MOV have a place for it beside
# them, Matroska too, but PyAV can't fill that one.
_ASPECT_HOLDERS = ("libx264", "libx265", "mpeg4", "mjpeg", "mpeg2video")


@dataclass(frozen=True)
class VideoResult:
    """What became of a video.

    Attributes:
        frame_count: number of frames written.
        notes: what the user should know: what was left out or is written differently.
        damage: what of the input could not be decoded, with its time; empty if all could.
    """

    frame_count: int
    notes: tuple[str, ...] = ()
    damage: tuple[str, ...] = ()


def restore_video(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    restore: Restore,
    *,
    codec: str | None = None,
    crf: int | None = None,
    preset: str | None = None,
    start: float | None = None,
    end: float | None = None,
    strip: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    restored_by: str | None = None,
) -> VideoResult:
    """Restores the frames of `source` and writes them, with all else it holds, to `target`.

    Frames keep their times, size, rotation, aspect and colour tags; audio and subtitles are
    copied. `restore` is called in the calling thread, in the order of the frames, while other
    threads decode and encode; memory does not grow with the length of the video.

    Args:
        source: a video file.
        target: the file to write; its ending says which container.
        restore: restores one frame; must not change what it is given.
        codec, crf, preset: of the encoder; see `choose_encoding`.
        start, end: the part to restore, in seconds of playing time.
        strip: leave out tags (but languages), telemetry and cover pictures.
        overwrite: `target` may be replaced.
        progress: is told about each frame.
        restored_by: names all that decides what `restore` gives, such as weights and strength.
            Where it is given, a run that ends early keeps what it has done in a folder
            ``TARGET.part``, and the same call goes on from there.

    Raises:
        UsageError: `target` exists, or the options don't fit each other.
        DeblurError: `source` holds no video that can be decoded, or `target` can't be written.
    """
    target = Path(target)
    container_format = container_of(target)
    with closing(open_video(source)) as container:
        stream = video_stream(container, source)
        part = choose_time_range(container, container_format, start, end)
        copied = choose_copied_streams(container, stream, container_format, strip=strip)
        encoding = choose_encoding(
            container_format,
            stream.codec_context.name,
            stream.format,
            codec=codec,
            crf=crf,
            preset=preset,
        )
        reader = VideoReader(source, container, stream, part, copied.streams)
        total = count_within(container, stream, start, end)
        depth = depth_for(stream.width, stream.height)
        with closing(read_ahead(reader.steps(), depth)) as steps:
            first = next(steps)
            if first.frame is None:
                raise reader.failure()
            matrix = display_matrix_of(first.frame)
            hdr = hdr_metadata_of(first.frame)
            # PyAV 17.1 does not know it: there the fields are not marked.
            field_order = getattr(stream.codec_context, "field_order", 0)
            encoding = with_source_traits(encoding, field_order, hdr)
            turn = None if container_format in _ROTATION_HOLDERS else matrix
            picture = _picture_of(stream, first.frame, encoding, turn)
            notes = [*copied.notes, *encoding.notes, *left_out_of(first.frame)]
            if stream.metadata.get("alpha_mode") == "1":
                notes.append("its transparency is left out")
            notes += _lost_in(container_format, encoding, container, picture, copied, strip)
            size, done = (first.frame.width, first.frame.height), 0
            description = {
                "input": os.fspath(Path(source).absolute()),
                "bytes": Path(source).stat().st_size,
                "modified_ns": Path(source).stat().st_mtime_ns,
                "ffmpeg": av.__version__,
                "restored_by": restored_by,
                "output": [container_format, repr(encoding), repr(picture), repr(part)],
            }
            with (
                atomic_output(target, overwrite=overwrite) as file,
                refused_by_ffmpeg(target, file),
                nullcontext()
                if restored_by is None
                else open_segments(target, file, description) as segments,
                VideoWriter(
                    file,
                    container_format,
                    encoding,
                    picture,
                    time_base=tick_of(stream),
                    rate=rate_of_stream(stream),
                    tags=container.metadata,
                    strip=strip,
                    has_cover=copied.has_cover,
                    segments=segments,
                ) as writer,
            ):
                writer.copy_from(container, stream, copied, part)
                with write_behind(writer.write, depth) as write:
                    for step in itertools.chain([first], steps):
                        frame = step.frame
                        segment, place = divmod(done, SEGMENT_FRAMES)
                        is_finished = segments is not None and segment < segments.count
                        if frame is not None and segments is not None and is_finished:
                            encoded = segments.load(segment) if place == 0 else ()
                            step = Step(None, step.packets, encoded=encoded)  # noqa: PLW2901
                            done += 1
                        elif frame is not None:
                            if size != (frame.width, frame.height):
                                size = (frame.width, frame.height)
                                notes.append(
                                    f"its size changes to {size[0]}x{size[1]} at frame {done + 1}: "
                                    f"scaled to {picture.width}x{picture.height}"
                                )
                            blurred = pixels_of(frame)
                            restored = check_restored(restore(blurred), blurred)
                            if turn is not None:
                                restored, step.original = turn_upright(restored, turn), None
                            step.frame = with_pixels(frame, restored)
                            done += 1
                        write(step)
                        if progress is not None and frame is not None:
                            progress(done, total)
        return VideoResult(done, (*notes, *reader.notes), reader.damage())


@contextmanager
def refused_by_ffmpeg(target: Path, part: Path) -> Iterator[None]:
    """Turns what FFmpeg's encoders and muxers object to into one line; what the disk objects to
    is left to `atomic_output`.

    Raises:
        DeblurError: FFmpeg can't write this.
    """
    try:
        yield
    except av.FFmpegError as error:
        if isinstance(error, OSError) and error.filename in (None, os.fspath(part.absolute())):
            raise
        raise DeblurError(
            target,
            f"FFmpeg can't write that ({error.strerror or error})",
            "give another ending, such as .mkv, or another --codec",
        ) from error


def depth_for(width: int, height: int) -> int:
    """How many frames of that size may wait in one queue."""
    return max(1, min(6, _PIXELS_ON_THE_WAY // (width * height)))


def count_within(
    container: InputContainer, stream: VideoStream, start: float | None, end: float | None
) -> int | None:
    """The number of frames to expect in the part from `start` to `end`; None if unknown."""
    count, seconds = count_frames(container, stream), seconds_of(container)
    if count is None or seconds is None or (start is None and end is None):
        return count
    part = min(end if end is not None else seconds, seconds) - (start or 0)
    return max(1, round(count * part / seconds)) if seconds else count


def check_restored(restored: Pixels, blurred: Pixels) -> Pixels:
    """Gives `restored` back if it has the shape and type of `blurred`."""
    if restored.shape != blurred.shape or restored.dtype != blurred.dtype:
        raise TypeError(
            f"restored is {restored.shape} {restored.dtype}, "
            f"the frame {blurred.shape} {blurred.dtype}"
        )
    return restored


def _picture_of(
    stream: VideoStream, first: VideoFrame, encoding: Encoding, turn: DisplayMatrix | None
) -> Picture:
    """What the written frames are like; `turn` is how the pixels themselves are turned."""
    colour = Colour.of(stream.codec_context)
    if stream.format.is_rgb or colour.matrix == 0:
        # The output is YUV: its matrix must be named, and limited range plays everywhere.
        colour = replace(colour, matrix=matrix_of(first), range=1)
    elif "yuvj" in stream.format.name:
        colour = replace(colour, range=2)
    if encoding.encoder == "mjpeg":
        colour = replace(colour, range=2, matrix=5)  # what JPEG is by definition
    aspect = fraction_of(stream.sample_aspect_ratio)
    if turn is None:
        return Picture(first.width, first.height, colour, display_matrix_of(first), aspect)
    if turn[0]:
        return Picture(first.width, first.height, colour, None, aspect)
    return Picture(first.height, first.width, colour, None, aspect and 1 / aspect)


def _lost_in(
    container_format: str,
    encoding: Encoding,
    container: InputContainer,
    picture: Picture,
    copied: CopiedStreams,
    strip: bool,
) -> list[str]:
    """What of a video the output can't say, in words."""
    notes = []
    unusual = unusual_tags(container_format, container.metadata)
    if unusual and copied.has_cover and not strip:
        told = ", ".join(unusual)
        notes.append(f"tags left out, as {container_format} has a cover picture: {told}")
    has_place = container_format in ("mp4", "mov") or encoding.encoder in _ASPECT_HOLDERS
    if picture.aspect not in (None, 1) and not has_place:
        notes.append(
            f"its pixels are {picture.aspect} as wide as high, which {encoding.encoder} in "
            f"{container_format} can't say here: .mp4 would"
        )
    return notes
