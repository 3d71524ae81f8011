"""Restoring a video frame by frame: decoding, computing and encoding at the same time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from deblurcli.errors import DeblurError
from deblurcli.io.files import atomic_output
from deblurcli.io.videos.encoding import Encoding, choose_encoding, rate_of_stream
from deblurcli.io.videos.info import (
    container_of,
    count_frames,
    fraction_of,
    open_video,
    seconds_of,
    tick_of,
    video_stream,
)
from deblurcli.io.videos.overlap import WriteBehind, read_ahead
from deblurcli.io.videos.pixels import (
    Colour,
    Pixels,
    display_matrix_of,
    matrix_of,
    pixels_of,
    turn_upright,
    with_pixels,
)
from deblurcli.io.videos.reading import Reading, Step, choose_cut
from deblurcli.io.videos.streams import Cut, Passengers, choose_passengers
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

    Raises:
        UsageError: `target` exists, or the options don't fit each other.
        DeblurError: `source` holds no video that can be decoded, or `target` can't be written.
    """
    target = Path(target)
    container_format = container_of(target)
    with closing(open_video(source)) as container:
        stream = video_stream(container, source)
        cut = choose_cut(container, container_format, start, end)
        passengers = choose_passengers(container, stream, container_format, strip=strip)
        encoding = choose_encoding(
            container_format,
            stream.codec_context.name,
            stream.format,
            codec=codec,
            crf=crf,
            preset=preset,
        )
        reading = Reading(source, container, stream, cut, set(passengers.copied))
        with closing(read_ahead(reading.steps(), depth_for(stream.width, stream.height))) as steps:
            first = next(steps, None)
            if first is None or first.frame is None:
                raise reading.failure()
            job = _Writing(stream, container_format, encoding, first.frame, strip)
            with (
                atomic_output(target, overwrite=overwrite) as part,
                refused_by_ffmpeg(target, part),
            ):
                done = job.write(
                    part,
                    _chain(first, steps),
                    restore,
                    copy=(container, stream, passengers, cut),
                    progress=progress,
                    total=count_within(container, stream, start, end),
                )
        notes = (
            *passengers.notes,
            *encoding.notes,
            *reading.notes,
            *job.notes(container, passengers),
        )
        return VideoResult(done, notes, reading.damage())


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


def _chain(first: Step, rest: Iterator[Step]) -> Iterator[Step]:
    yield first
    yield from rest


def count_within(
    container: InputContainer, stream: VideoStream, start: float | None, end: float | None
) -> int | None:
    """The number of frames to expect in the part from `start` to `end`; None if unknown."""
    count, seconds = count_frames(container, stream), seconds_of(container)
    if count is None or seconds is None or (start is None and end is None):
        return count
    part = min(end if end is not None else seconds, seconds) - (start or 0)
    return max(1, round(count * part / seconds)) if seconds else count


@dataclass
class _Writing:
    """Writes the frames of one video."""

    stream: VideoStream
    container_format: str
    encoding: Encoding
    first: VideoFrame
    strip: bool = False

    def notes(self, container: InputContainer, passengers: Passengers) -> list[str]:
        """What is written differently."""
        notes = []
        unusual = unusual_tags(self.container_format, container.metadata)
        if unusual and passengers.has_cover and not self.strip:
            told = ", ".join(unusual)
            notes.append(f"tags left out, as {self.container_format} has a cover picture: {told}")
        aspect = fraction_of(self.stream.sample_aspect_ratio) or 1
        in_container = self.container_format in ("mp4", "mov")
        if aspect != 1 and not in_container and self.encoding.encoder not in _ASPECT_HOLDERS:
            what = f"{self.encoding.encoder} in {self.container_format}"
            notes.append(
                f"its pixels are {aspect} as wide as high, which {what} can't say here: .mp4 would"
            )
        return notes

    def write(
        self,
        part: Path,
        steps: Iterator[Step],
        restore: Restore,
        *,
        copy: tuple[InputContainer, VideoStream, Passengers, Cut],
        progress: Progress | None,
        total: int | None,
    ) -> int:
        """Restores and writes all `steps` to the file `part`; gives the number of frames."""
        matrix = display_matrix_of(self.first)
        in_header = self.container_format in _ROTATION_HOLDERS
        turn = None if in_header else matrix
        picture = self._picture(matrix if in_header else None, turn)
        done = 0
        with VideoWriter(
            part,
            self.container_format,
            self.encoding,
            picture,
            time_base=tick_of(self.stream),
            rate=rate_of_stream(self.stream),
            tags=copy[0].metadata,
            strip=self.strip,
            has_cover=copy[2].has_cover,
        ) as writer:
            writer.copy_from(*copy)

            def write(step: Step) -> None:
                for index, packet in step.packets:
                    writer.add_packet(packet, index)
                if step.frame is not None:
                    writer.add_frame(step.frame)
                else:
                    writer.set_last_duration(step.last_duration)

            with WriteBehind(write, depth_for(self.stream.width, self.stream.height)) as behind:
                for step in steps:
                    if step.frame is not None:
                        step.frame = _restored(step.frame, restore, turn)
                        done += 1
                    behind.put(step)
                    if progress is not None and step.frame is not None:
                        progress(done, total)
        return done

    def _picture(self, matrix: tuple[int, ...] | None, turn: tuple[int, ...] | None) -> Picture:
        colour = _colour_of(self.stream, self.first)
        if self.encoding.encoder == "mjpeg":
            colour = replace(colour, range=2, matrix=5)  # what JPEG is by definition
        width, height = self.first.width, self.first.height
        aspect = fraction_of(self.stream.sample_aspect_ratio)
        if turn is not None and not turn[0]:
            width, height = height, width
            aspect = None if aspect is None else 1 / aspect
        return Picture(width, height, colour, matrix, aspect)


def _restored(frame: VideoFrame, restore: Restore, turn: tuple[int, ...] | None) -> VideoFrame:
    blurred = pixels_of(frame)
    restored = check_restored(restore(blurred), blurred)
    return with_pixels(frame, restored if turn is None else turn_upright(restored, turn))


def check_restored(restored: Pixels, blurred: Pixels) -> Pixels:
    """Gives `restored` back if it has the shape and type of `blurred`."""
    if restored.shape != blurred.shape or restored.dtype != blurred.dtype:
        raise TypeError(
            f"restored is {restored.shape} {restored.dtype}, "
            f"the frame {blurred.shape} {blurred.dtype}"
        )
    return restored


def _colour_of(stream: VideoStream, rgb: VideoFrame) -> Colour:
    context = stream.codec_context
    colour = Colour(
        context.colorspace, context.color_range, context.color_trc, context.color_primaries
    )
    if stream.format.is_rgb or colour.matrix == 0:
        # The output is YUV: its matrix must be named, and limited range plays everywhere.
        return replace(colour, matrix=matrix_of(rgb), range=1)
    return replace(colour, range=2) if "yuvj" in stream.format.name else colour
