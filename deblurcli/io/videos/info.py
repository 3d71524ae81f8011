"""Opening a video and saying what is in it."""

from __future__ import annotations

import math
import os
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import av
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from deblurcli.errors import DeblurError

CONTAINERS = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".webm": "webm",
    ".avi": "avi",
    ".ts": "mpegts",
    ".mts": "mpegts",
    ".m2ts": "mpegts",
}
"""Containers that are written, by the ending of the output."""

_MICROSECONDS = 1_000_000
# PyAV before 19 has to be told not to fail at tags that are no UTF-8.
_ANY_TAGS: dict[str, Any] = (
    {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "replace"}
)


class _Rational(Protocol):
    """A fraction as PyAV gives it: a `Fraction`, from version 19 on a type of its own."""

    @property
    def numerator(self) -> int: ...
    @property
    def denominator(self) -> int: ...


@dataclass(frozen=True)
class VideoInfo:
    """What a video is, by its header; nothing of it is decoded.

    Attributes:
        width, height: pixels as they are stored, before any rotation.
        fps: frames per second in the mean, or None where it is not said.
        seconds: length of the whole file, or None where it is not said.
        frame_count: number of frames, counted where the container knows it, else estimated
            from `seconds` and `fps`; None where neither is known.
        codec: FFmpeg's name of the codec, such as ``"h264"``.
        pixel_format: FFmpeg's name, such as ``"yuv420p10le"``.
        bits: per colour sample.
        audio, subtitles, data: number of such streams.
        chapters: number of chapters.
    """

    width: int
    height: int
    fps: Fraction | None
    seconds: float | None
    frame_count: int | None
    codec: str
    pixel_format: str
    bits: int
    audio: int
    subtitles: int
    data: int
    chapters: int


def probe(source: str | os.PathLike[str]) -> VideoInfo:
    """Reads what the header of a video says.

    Raises:
        DeblurError: the file is missing, no video, or damaged in its header.
    """
    with closing(open_video(source)) as container:
        stream = video_stream(container, source)
        kinds = [s.type for s in container.streams]
        return VideoInfo(
            width=stream.width,
            height=stream.height,
            fps=fraction_of(stream.average_rate) or fraction_of(stream.guessed_rate),
            seconds=seconds_of(container),
            frame_count=count_frames(container, stream),
            codec=stream.codec_context.name,
            pixel_format=stream.pix_fmt or "unknown",
            bits=bits_of(stream),
            audio=kinds.count("audio"),
            subtitles=kinds.count("subtitle"),
            data=kinds.count("data"),
            chapters=len(container.chapters()),
        )


def open_video(source: str | os.PathLike[str]) -> InputContainer:
    """Opens `source` for reading; the caller closes it.

    Raises:
        DeblurError: the file is missing, not readable, no video, or damaged in its header.
    """
    path = Path(source)
    if path.is_dir():
        raise DeblurError(path, "is a folder", "give a video file")
    try:
        if path.stat().st_size == 0:
            raise DeblurError(path, "is empty", "copy or record it again")
        # The full path keeps a name such as "a:b.mp4" from being taken for a network address.
        container: InputContainer = av.open(os.fspath(path.absolute()), "r", **_ANY_TAGS)
        return container
    except FileNotFoundError as error:
        raise DeblurError(path, "no such file", "check the name") from error
    except PermissionError as error:
        raise DeblurError(path, "no permission to read it", "check its owner and mode") from error
    except av.FFmpegError as error:
        raise DeblurError(path, *_unreadable(path)) from error
    except OSError as error:
        raise DeblurError(path, f"can't be read ({error.strerror or error})", "check it") from error


def _unreadable(path: Path) -> tuple[str, str]:
    """Reason and remedy for a file that FFmpeg can't open."""
    with path.open("rb") as file:
        head = file.read(64)
    if head[4:8] in (b"ftyp", b"wide", b"mdat", b"moov", b"free", b"skip"):
        return (
            "is cut off: the table of its frames is missing, so that nothing of it can be read",
            "copy it again, or repair it with a tool such as untrunc",
        )
    return "is not a video, or is damaged in its header", "check the file"


def video_stream(container: InputContainer, source: str | os.PathLike[str]) -> VideoStream:
    """The stream to restore: the first video that is not merely a cover picture.

    Raises:
        DeblurError: there is none, or its codec is unknown.
    """
    streams = [s for s in container.streams.video if not is_cover(s)]
    if not streams:
        kinds = sorted({s.type for s in container.streams if s.type != "video"})
        held = f", only {' and '.join(kinds)}" if kinds else ""
        raise DeblurError(source, f"holds no video{held}", "give a file with a video")
    stream = streams[0]
    if stream.codec_context is None:
        raise DeblurError(source, "its video codec is not known here", "convert it with ffmpeg")
    if not stream.width or not stream.height or stream.format is None:
        raise DeblurError(
            source, "its video can't be decoded: no picture size in it", "copy it again"
        )
    return stream


def is_cover(stream: VideoStream) -> bool:
    """Whether a video stream is the cover picture of the file."""
    return bool(stream.disposition & Disposition.attached_pic)


def seconds_of(container: InputContainer) -> float | None:
    return None if container.duration is None else container.duration / _MICROSECONDS


def start_seconds_of(container: InputContainer) -> Fraction:
    """The time stamp at which the file begins."""
    return Fraction(container.start_time or 0, _MICROSECONDS)


def count_frames(container: InputContainer, stream: VideoStream) -> int | None:
    if stream.frames:
        return stream.frames
    rate = fraction_of(stream.average_rate) or fraction_of(stream.guessed_rate)
    if stream.duration is not None:
        seconds: float | None = float(stream.duration * tick_of(stream))
    else:
        seconds = seconds_of(container)
    return None if rate is None or seconds is None else math.ceil(seconds * rate)


def fraction_of(value: _Rational | None) -> Fraction | None:
    """A rate, time base or aspect of PyAV's as a number; None where it is not said."""
    return Fraction(value.numerator, value.denominator) if value else None


def tick_of(stream: Stream) -> Fraction:
    """Seconds of one tick of the times in a stream."""
    return fraction_of(stream.time_base) or Fraction(1, _MICROSECONDS)


def bits_of(stream: VideoStream) -> int:
    """Bits per colour sample."""
    return max((component.bits for component in stream.format.components), default=8)


def container_of(target: Path) -> str:
    """FFmpeg's name of the container that `target` asks for.

    Raises:
        DeblurError: no such container is written.
    """
    try:
        return CONTAINERS[target.suffix.lower()]
    except KeyError:
        known = " ".join(sorted(CONTAINERS))
        raise DeblurError(
            target, "no video is written with this ending", f"give one of {known}"
        ) from None
