"""Opening a video and saying what is in it."""

import io
import math
import os
from contextlib import closing, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av import VideoStream
from av.container import InputContainer
from av.stream import Disposition, Stream
from PIL import Image, ImageSequence

from deblurcli.errors import AnyPath, DeblurError, cannot_read

CONTAINERS = {
    **dict.fromkeys((".mp4", ".m4v"), "mp4"),
    **{".mov": "mov", ".mkv": "matroska", ".webm": "webm", ".avi": "avi"},
    **dict.fromkeys((".ts", ".mts", ".m2ts"), "mpegts"),
}
"""Containers that are written, by the ending of the output."""

ENCRYPTED = ("is encrypted against copying", "give a copy that is not")
_MICROSECONDS = 1_000_000


@dataclass(frozen=True)
class VideoInfo:
    """What a video is, by its header; None is what that does not say."""

    width: int  # in pixels as they are stored, before any rotation
    height: int
    fps: Fraction | None  # frames per second in the mean
    seconds: float | None  # length of the whole file
    frame_count: int | None  # where the container doesn't know it, estimated from length and rate
    codec: str  # FFmpeg's name, such as "h264"


def probe(source: AnyPath) -> VideoInfo:
    """Reads what the header of a video says. Raises DeblurError where the file is missing, no
    video, or damaged in its header."""
    with closing(open_video(source)) as container:
        return describe(container, video_stream(container, source))


def describe(container: InputContainer, stream: VideoStream) -> VideoInfo:
    """What the header of an open video says of the stream that is restored."""
    fps = fraction_of(stream.average_rate) or fraction_of(stream.guessed_rate)
    seconds = None if container.duration is None else container.duration / _MICROSECONDS
    length = seconds if stream.duration is None else float(stream.duration * tick_of(stream))
    estimate = None if fps is None or length is None else math.ceil(length * fps)
    count, codec = stream.frames or estimate, stream.codec_context.name
    return VideoInfo(stream.width, stream.height, fps, seconds, count, codec)


def open_video(source: AnyPath) -> InputContainer:
    """Opens `source` for reading; the caller closes it. Raises DeblurError where it is missing, not
    readable, no video, or damaged in its header."""
    path = Path(source)
    # The full path keeps a name such as "a:b.mp4" from being taken for a network address.
    name = os.fspath(path.absolute())
    try:
        with path.open("rb") as file:
            head = file.read(12)
        if not head:
            raise DeblurError(path, "is empty", "copy or record it again")
        if head[8:12] == b"WEBP":  # FFmpeg knows only those that stand still
            with Image.open(path, formats=["WEBP"]) as image:
                times = [f.load() and f.info["duration"] for f in ImageSequence.Iterator(image)]
                image.save(memory := io.BytesIO(), "PNG", save_all=True, duration=times)
            return av.open(io.BytesIO(memory.getvalue()), "r", format="apng")
        if int(av.__version__.split(".")[0]) >= 19:
            return av.open(name, "r")
        # Older ones have to be told not to fail at tags that are no UTF-8.
        return av.open(name, "r", metadata_errors="replace")
    except av.FFmpegError as error:
        reason, remedy = "is not a video, or is damaged in its header", "check the file"
        if head[4:8] in (b"ftyp", b"wide", b"mdat", b"moov", b"free", b"skip"):
            reason = "is cut off: the table of its frames is missing, so that nothing can be read"
            remedy = "copy it again, or repair it with a tool such as untrunc"
        raise DeblurError(path, reason, remedy) from error
    except OSError as error:
        raise cannot_read(path, error) from error


def video_stream(container: InputContainer, source: AnyPath) -> VideoStream:
    """The stream to restore: the first video that is not merely a cover picture. Raises DeblurError
    where there is none, or its codec is unknown."""
    streams = [s for s in container.streams.video if not is_cover(s)]
    if not streams:
        kinds = sorted({s.type for s in container.streams if s.type != "video"})
        held = f", only {' and '.join(kinds)}" if kinds else ""
        raise DeblurError(source, f"holds no video{held}", "give a file with a video")
    stream = max(streams, key=lambda s: s.frames > 1)  # in AVIF the first is the still picture
    if stream.codec_context is None:
        raise DeblurError(source, "its video codec is not known here", "convert it with ffmpeg")
    if not stream.width or not stream.height or stream.format is None:
        with suppress(av.FFmpegError, StopIteration):
            if next(container.demux(stream)).has_sidedata("encryption_info"):
                raise DeblurError(source, *ENCRYPTED)
        reason = "its video can't be decoded: no picture size in it"
        raise DeblurError(source, reason, "copy it again")
    return stream


def is_cover(stream: Stream) -> bool:
    """Whether a stream is the cover picture of the file."""
    return bool(stream.type == "video" and stream.disposition & Disposition.attached_pic)


def fraction_of(value: Fraction | None) -> Fraction | None:
    """A rate, time base or aspect of PyAV's (a type of its own from 19 on); None if not said."""
    return Fraction(value.numerator, value.denominator) if value else None


def tick_of(stream: Stream) -> Fraction:
    """Seconds of one tick of the times in a stream."""
    return fraction_of(stream.time_base) or Fraction(1, _MICROSECONDS)


def container_of(target: Path) -> str:
    """FFmpeg's name of the container that `target` asks for; DeblurError where we write none."""
    known = CONTAINERS.get(target.suffix.lower())
    if known is None:
        remedy = f"give one of {' '.join(CONTAINERS)}"
        raise DeblurError(target, "no video is written with this ending", remedy)
    return known
