"""Writing a restored video: encoding its frames, and everything else of the input beside them."""

import math
import os
import re
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
from av import CodecContext, Packet, VideoCodecContext, VideoStream
from av.container import OutputContainer
from av.stream import Stream

from deblurcli.errors import DeblurError, UsageError, logger
from deblurcli.io.files import atomic_output
from deblurcli.io.options import ClipOptions
from deblurcli.io.videos import info, streams
from deblurcli.io.videos.encoding import Encoding
from deblurcli.io.videos.pixels import Colour, DisplayMatrix, PixelWriter
from deblurcli.io.videos.reading import Step, VideoReader
from deblurcli.io.videos.segments import EncodedPacket, SegmentStore, open_segments

# Encoders for frames on a grid, a step of which is the frame.
_GRID_ENCODERS = ("mpeg4", "mpeg1video", "mpeg2video")


@dataclass(frozen=True)
class FrameFormat:
    """What the frames are like that a writer gets."""

    width: int
    height: int
    colour: Colour
    time_base: Fraction  # seconds of one tick of their times
    rate: Fraction  # how many a second, in the mean
    display_matrix: DisplayMatrix | None = None  # how players shall turn them
    aspect: Fraction | None = None  # width of a pixel over its height; None where it is not said


@contextmanager
def open_writer(
    sources: Sequence[Path],
    target: Path,
    encoding: Encoding,
    picture: FrameFormat,
    options: ClipOptions,
    part: streams.TimeRange | None = None,
) -> "Iterator[VideoWriter]":
    """Gives the writer of `target`, a video that is made of `sources` or `part` of one; what an
    earlier run of the same description has finished is taken over. Raises UsageError where `target`
    exists and may not be overwritten, its container can't hold the codec, or the encoder can't be
    used, DeblurError where `target` can't be written."""
    output = [repr(encoding), repr(picture), *([] if part is None else [repr(part)])]
    with atomic_output(target, overwrite=options.overwrite) as path:
        try:
            with (
                open_segments(sources, target, options.restored_by, output) as segments,
                closing(VideoWriter(path, encoding, picture, segments)) as writer,
            ):
                yield writer
                writer.finish()
        except av.FFmpegError as error:
            if isinstance(error, OSError) and error.filename in (None, os.fspath(path.absolute())):
                raise  # what the disk objects to
            reason = f"FFmpeg can't write that ({error.strerror or error})"
            remedy = "give another ending, such as .mkv, or another --codec"
            raise DeblurError(target, reason, remedy) from error


class VideoWriter:
    """Writes one video file, for one thread at a time; `open_writer` makes it. Packets of copied
    streams wait until the encoder has reached their time, so that the file is well interleaved
    however far the encoder is behind. `segments` keeps what is finished, and has what an earlier
    run finished."""

    def __init__(
        self, path: Path, encoding: Encoding, picture: FrameFormat, segments: SegmentStore
    ) -> None:
        name, options, rate = os.fspath(path.absolute()), encoding.container_options, picture.rate
        self._output: OutputContainer = av.open(
            name, "w", encoding.container, container_options=options
        )
        try:
            stream = self._output.add_stream(encoding.encoder, rate, options=encoding.options)
        except ValueError as error:
            reason = f"{encoding.container} can't hold {encoding.encoder}"
            remedy = "give another --codec or another ending to -o"
            raise UsageError("--codec", reason, remedy) from error
        self._stream = cast(VideoStream, stream)
        self._encoding, self._picture, self._time_base = encoding, picture, picture.time_base
        if encoding.container == "avi" or encoding.encoder in _GRID_ENCODERS:
            # Frames lie on a grid there: its step is the frame, as fine as 16 bits count.
            self._time_base = Fraction(1) / rate.limit_denominator(65_535)
        context = self._stream.codec_context
        self._set_up(context)
        self._stream.time_base = self._time_base
        if encoding.tag is not None:
            context.codec_tag = encoding.tag
        if picture.display_matrix is not None:
            self._stream.set_display_matrix(picture.display_matrix)
        try:
            # Now, not with the first frame: some need hardware that is not here, or other frames.
            context.open()
        except (av.FFmpegError, ValueError) as error:
            self._output.close()
            detail = getattr(error, "strerror", error)
            reason = f"{encoding.encoder} can't encode this here ({detail})"
            raise UsageError("--codec", reason, "give another --codec, such as h264") from error
        size = (picture.width, picture.height)
        self._pixels = PixelWriter(*size, encoding.pixel_format, picture.colour)
        self._copies: dict[int, streams.Copy] = {}
        self._waiting: deque[Packet[Stream]] = deque()
        self._durations: dict[int, int] = {}
        self._last_pts = self._last_dts = -sys.maxsize  # any time comes after that
        self.segments, self._frame_count = segments, 0
        self._loaded: deque[EncodedPacket] = deque()
        # Of the segment at hand: its encoder, its packets so far, its first time.
        self._encoder: VideoCodecContext | None = None
        self._finished: list[EncodedPacket] = []
        self._first_pts = 0

    def _set_up(self, context: VideoCodecContext) -> None:
        picture, colour = self._picture, self._picture.colour
        context.width, context.height = picture.width, picture.height
        context.pix_fmt, context.time_base = self._encoding.pixel_format, self._time_base
        context.color_range, context.colorspace = colour.range, colour.matrix
        context.color_trc, context.color_primaries = colour.transfer, colour.primaries
        if picture.aspect is not None:
            context.sample_aspect_ratio = picture.aspect

    def copy_from(self, reader: VideoReader, copied: streams.CopiedStreams, *, strip: bool) -> None:
        """Takes over tags, chapters and the streams to copy, before the first frame; with `strip`
        no tags but languages."""
        source, video, start = reader.container, reader.stream, reader.part.start
        tags = streams.clean_tags(video.metadata, strip=strip)
        self._output.metadata.update(streams.clean_tags(source.metadata, strip=strip))
        if "timecode" in tags and isinstance(start, Fraction):
            seconds = start - reader.origin
            tags["timecode"] = advance_timecode(tags["timecode"], seconds, reader.rate)
            self._output.metadata.pop("timecode", None)
        self._stream.metadata.update(tags)
        with suppress(AttributeError):
            self._stream.disposition = video.disposition
        self._copies = streams.add_streams(self._output, copied, strip=strip)
        streams.copy_chapters(source, self._output, reader.part)

    def write(self, step: Step) -> None:
        """Takes packets of copied streams, and an RGB frame with its time, if there is one; a
        time that does not come after the last frame's is moved on."""
        for packet in step.packets:
            self._waiting.extend(self._copies[packet.stream.index](packet))
        if step.frame is None:
            return
        segment, place = divmod(self._frame_count, self.segments.segment_frames)
        self._frame_count += 1
        if segment < self.segments.count:
            if place == 0:
                self._loaded.extend(self.segments.load(segment))
            # A packet a frame, so that the copied ones come between them as in a whole run.
            while self._loaded:
                self._mux(self._loaded[0])
                self._last_pts = max(self._loaded.popleft().pts, self._last_pts)
                if place < self.segments.segment_frames - 1:
                    break
            return
        if self._encoder is not None and place == 0:
            self._take(self._encoder.encode(None))
            self.segments.save(segment - 1, self._finished)
            self._encoder, self._finished = None, []
        frame = self._pixels.from_rgb(step.frame, step.original)
        per_tick = (info.fraction_of(step.frame.time_base) or self._time_base) / self._time_base
        pts = max(round((step.frame.pts or 0) * per_tick), self._last_pts + 1)
        self._durations[self._last_pts] = pts - self._last_pts
        self._durations[pts] = round((step.frame.duration or 0) * per_tick)
        self._last_pts = pts
        if self._encoder is None:
            template, name = self._stream.codec_context, self._encoding.encoder
            self._encoder = cast(VideoCodecContext, CodecContext.create(name, "w"))
            self._set_up(self._encoder)
            self._encoder.framerate = template.framerate
            self._encoder.flags = template.flags  # a header of its own, or one for the file
            self._encoder.options = dict(self._encoding.options)
            self._first_pts = pts
        # Each segment begins at 0 for its encoder, which then does the same whatever was before.
        frame.pts, frame.time_base = pts - self._first_pts, self._time_base
        self._take(self._encoder.encode(frame))

    def _take(self, packets: "Sequence[Packet[VideoStream]]") -> None:
        """Writes what the encoder gives, and remembers it for the segment."""
        for packet in packets:
            pts = self._first_pts + (packet.pts or 0)
            dts = pts if packet.dts is None else self._first_pts + packet.dts
            # libx265 leaves it at some random number where it gets fewer frames than it reorders.
            earliest = 2 * self._first_pts - self._last_pts - 1 / self._time_base
            if not earliest <= dts <= pts:
                dts = pts
            duration = self._durations.pop(pts, 0) or packet.duration or 0
            encoded = EncodedPacket(pts, dts, duration, packet.is_keyframe, bytes(packet))
            self._finished.append(encoded)
            self._mux(encoded)

    def _mux(self, encoded: EncodedPacket) -> None:
        packet = Packet(encoded.data)
        # Where the frame rate varies, a segment's first times of decoding may reach back.
        self._last_dts = max(encoded.dts, self._last_dts + 1)
        packet.pts, packet.dts, packet.duration = encoded.pts, self._last_dts, encoded.duration
        packet.time_base, packet.is_keyframe = self._time_base, encoded.is_keyframe
        packet.stream = self._stream
        self._mux_waiting(float(self._last_dts * self._time_base))
        self._output.mux(packet)

    def _mux_waiting(self, until_seconds: float) -> None:
        while self._waiting:
            packet = self._waiting[0]
            time = packet.dts if packet.dts is not None else packet.pts
            if time is not None and time * packet.time_base > until_seconds:
                return
            self._waiting.popleft()
            try:
                self._output.mux(packet)
            except OSError:
                raise
            except (av.FFmpegError, ValueError) as error:
                logger.debug("a packet of a damaged stream is left out: %s", error)

    def finish(self) -> None:
        """Writes what waits, and the end of the file."""
        for copy in self._copies.values():
            self._waiting.extend(copy(None))
        if self._encoder is not None:
            self._take(self._encoder.encode(None))
        self._mux_waiting(math.inf)
        self._output.close()

    def close(self) -> None:
        """Closes a file that was not finished: what fails in ending it is of no interest."""
        with suppress(av.FFmpegError, OSError, ValueError):
            self._output.close()


def advance_timecode(timecode: str, seconds: Fraction, fps: Fraction) -> str:
    """The time code `seconds` later: ``01:00:00:00``, or ``01:00:00;00`` where frame numbers are
    dropped to keep pace with 29.97; as it is where it is no such code."""
    digits = re.fullmatch(r"(\d+):(\d\d):(\d\d)([:;.])(\d\d)", timecode)
    if digits is None:
        return timecode
    hours, minutes, whole, frame = (int(digits[n]) for n in (1, 2, 3, 5))
    counted = round(fps)  # of a second of time code
    # Two numbers (of 60: four) at the beginning of each minute but every tenth.
    dropped = counted // 15 if digits[4] != ":" else 0
    minutes += 60 * hours
    number = (60 * minutes + whole) * counted + frame - dropped * (minutes - minutes // 10)
    number += math.ceil(seconds * fps)
    if dropped:
        tens, rest = divmod(number, 600 * counted - 9 * dropped)
        number += dropped * (9 * tens + max(0, (rest - dropped) // (60 * counted - dropped)))
    rest, frame = divmod(number, counted)
    time = f"{rest // 3600 % 24:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{time}{digits[4]}{frame:02}"
