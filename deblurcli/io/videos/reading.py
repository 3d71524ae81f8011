"""Decoding a video: its frames in RGB, the packets beside them, and what is damaged."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from deblurcli.errors import DeblurError, UsageError
from deblurcli.io.videos.encoding import rate_of_stream
from deblurcli.io.videos.info import bits_of, fraction_of, seconds_of, start_seconds_of, tick_of
from deblurcli.io.videos.pixels import PixelReader, exceeds_rgb
from deblurcli.io.videos.segments import EncodedPacket
from deblurcli.io.videos.streams import TimeRange, move_packet

# Packets of one time lie at most so far apart in a file, in terms of time.
_STRAGGLE_SECONDS = 5
# Where a file has no index, a jump may end behind the wanted time or between key frames: then
# the next one goes back further, and the last to the beginning (None).
_SECONDS_BACK = (0, 3, 20, 120, None)
_BROADCAST_FORMATS = ("mpegts", "mpeg")
_INTERLACED = "is interlaced: its fields are restored together, deinterlace it first for more"


def choose_time_range(
    container: InputContainer, container_format: str, start: float | None, end: float | None
) -> TimeRange:
    """The part of a video that is wanted, from playing times in seconds.

    Raises:
        UsageError: there is no such part.
    """
    if start is not None and start < 0:
        raise UsageError("--start", "is negative", "give seconds from the beginning")
    if end is not None and end <= (start or 0):
        raise UsageError("--end", "is not after the start", "give a later time in seconds")
    seconds = seconds_of(container)
    if start is not None and seconds is not None and start >= seconds:
        raise UsageError(
            "--start", f"lies behind the end of the video at {seconds:.2f} s", "give less"
        )
    origin = start_seconds_of(container)
    first, last = (
        None if time is None else origin + Fraction(time).limit_denominator(1_000_000)
        for time in (start, end)
    )
    # Broadcast streams begin at any time of day; files for playing begin at 0, and a stream
    # that begins later than the others there does so on purpose.
    is_broadcast = container.format.name in _BROADCAST_FORMATS and container_format != "mpegts"
    shift = first if first is not None else origin if is_broadcast else Fraction(0)
    return TimeRange(first, last, shift)


@dataclass
class Step:
    """One frame, or none at the end, and the copied packets that lay before it in the file; all
    with their times in the output.

    Attributes:
        frame: in RGB.
        original: the frame as it was decoded, where RGB can't hold all of it.
        encoded: a segment of the output that an earlier run has finished, in place of its frames.
    """

    frame: VideoFrame | None
    packets: list[Packet[Stream]] = field(default_factory=list)
    original: VideoFrame | None = None
    encoded: Sequence[EncodedPacket] = ()


class VideoReader:
    """Decodes a video, and remembers what could not be decoded."""

    def __init__(
        self,
        source: str | os.PathLike[str],
        container: InputContainer,
        stream: VideoStream,
        time_range: TimeRange | None = None,
        copied: Collection[int] = (),
    ) -> None:
        """
        Args:
            source: what errors call the file.
            container, stream: the open file, and the stream in it to decode.
            time_range: the part that is wanted; None is all, with its times as they are.
            copied: indices of the streams whose packets are given beside the frames.
        """
        self.notes: list[str] = []
        self._source, self._container, self._stream = source, container, stream
        self._range = time_range or TimeRange(None, None, Fraction(0))
        self._copied = copied
        # AVI says only when a frame is decoded; what FFmpeg guesses from it may go back.
        self._has_dts_only = container.format.name == "avi"
        self._bad: list[tuple[float, float]] = []
        self._cause: BaseException | None = None
        self._seen_packets = 0
        self._end_seconds = 0.0
        self._finished = False

    def steps(self) -> Iterator[Step]:
        """Yields the frames in the order of their times, and a last step without one."""
        # Decoding several frames at once would lose good frames beside a damaged one.
        self._stream.thread_type = "SLICE"
        pixels = PixelReader(bits_of(self._stream))
        tick, wanted = tick_of(self._stream), self._range
        packets: list[Packet[Stream]] = []
        for back in _SECONDS_BACK if wanted.start is not None else (None,):
            self._seek(back)
            packets.clear()
            has_landed = back is None
            for item in self._packets_and_frames():
                if isinstance(item, Packet):
                    if move_packet(item, wanted):
                        packets.append(item)
                    continue
                seconds = (item.pts or 0) * tick
                if not has_landed and wanted.start is not None:
                    if seconds > wanted.start:
                        break
                    has_landed = item.key_frame
                if not (has_landed and wanted.holds(seconds)):
                    continue
                if item.is_corrupt:
                    self._bad.append((float(seconds), float(seconds)))
                if item.interlaced_frame and _INTERLACED not in self.notes:
                    self.notes.append(_INTERLACED)
                item.pts = (item.pts or 0) - wanted.shift_ticks(tick)
                item.time_base = tick
                yield Step(pixels.to_rgb(item), packets, item if exceeds_rgb(item) else None)
                packets = []
            if has_landed:
                break
        yield Step(None, packets)

    def _seek(self, seconds_back: int | None) -> None:
        """Goes to a key frame so long before the wanted part; None is the beginning."""
        self._bad.clear()
        start = self._range.start
        # Which frame comes out first after a jump into AVI with B-frames can't be known.
        counts_frames = self._has_dts_only and self._stream.codec_context.has_b_frames
        if start is None or counts_frames:
            return
        origin = start_seconds_of(self._container)
        if seconds_back is not None:
            origin = max(origin, start - seconds_back)
        elif self._container.format.name in _BROADCAST_FORMATS:
            # FFmpeg searches these for times, and finds none at the very beginning.
            self._container.seek(0, unsupported_byte_offset=True)
            return
        self._container.seek(int(origin * 1_000_000))

    def _packets_and_frames(self) -> Iterator[Packet[Stream] | VideoFrame]:
        """The frames with a time each, and the packets of the copied streams."""
        video = self._stream
        tick = tick_of(video)
        frame_ticks = max(1, round(1 / (rate_of_stream(video) * tick)))
        # As frames leave the decoder in the order of showing, times of decoding are given to
        # them in turn where there are no others.
        unshown: deque[int] = deque()
        last_pts = -frame_ticks
        for packet in self._packets():
            if packet.stream.index != video.index:
                yield packet
                continue
            time = packet.dts if packet.dts is not None else packet.pts
            no_pts = packet.pts is None or self._has_dts_only
            if packet.size and packet.dts is not None and no_pts:
                unshown.append(packet.dts)
            try:
                frames = video.decode(packet if packet.size else None)
            except EOFError:
                continue
            except av.FFmpegError as error:
                self._cause = error
                if not no_pts:
                    time = packet.pts
                elif unshown:
                    unshown.popleft()
                seconds = self._end_seconds if time is None else float(time * tick)
                self._bad.append((seconds, seconds))
                continue
            for frame in frames:
                if frame.pts is None or self._has_dts_only:
                    frame.pts = unshown.popleft() if unshown else last_pts + frame_ticks
                last_pts = frame.pts
                yield frame

    def _packets(self) -> Iterator[Packet[Stream]]:
        """The packets of the wanted part, and at the end one that empties the decoder."""
        wanted = [s for s in self._container.streams if s.index in self._copied]
        running = {self._stream.index, *self._copied}
        demuxed = self._container.demux(self._stream, *wanted)
        while running:
            try:
                packet = next(demuxed, None)
            except av.FFmpegError as error:
                self._cause = error
                self._bad.append((self._end_seconds, float("inf")))
                break
            if packet is None:
                self._finished = True
                return
            # An empty packet's own index is 0, whatever stream it ends.
            index = packet.stream.index
            if packet.has_sidedata("encryption_info"):
                raise DeblurError(
                    self._source, "is encrypted against copying", "give a copy that is not"
                )
            self._seen_packets += index == self._stream.index and packet.size > 0
            time = packet.dts if packet.dts is not None else packet.pts
            tick = fraction_of(packet.time_base)
            if time is not None and tick:
                end_seconds = float((time + (packet.duration or 0)) * tick)
                self._end_seconds = max(self._end_seconds, end_seconds)
                if self._range.is_over(time * tick):
                    running.discard(index)
                if self._range.is_over(time * tick - _STRAGGLE_SECONDS):
                    break
            yield packet
        flush: Packet[Stream] = Packet()
        flush.stream = self._stream
        yield flush

    def failure(self) -> DeblurError:
        """What to say when not a single frame could be decoded."""
        if self._range.start is not None or self._range.end is not None:
            return DeblurError(self._source, "has no frame in that part", "change --start or --end")
        detail = "" if self._cause is None else f" ({type(self._cause).__name__})"
        return DeblurError(
            self._source, f"not one frame of it can be decoded{detail}", "copy it again"
        )

    def damage(self) -> tuple[str, ...]:
        """The damaged parts in words, in playing time; short gaps between them are joined."""
        origin = float(start_seconds_of(self._container))
        spans: list[tuple[float, float]] = []
        for begin, end in sorted(self._bad):
            if spans and begin - spans[-1][1] < 0.5:
                spans[-1] = (spans[-1][0], max(spans[-1][1], end))
            else:
                spans.append((begin, end))
        told = []
        for begin, end in spans:
            until = "" if end - begin < 0.01 else f" to {end - origin:.2f}"
            if end == float("inf"):
                told.append(f"damaged from {begin - origin:.2f} s on")
            else:
                told.append(f"damaged at {begin - origin:.2f}{until} s")
        if self._finished and self._range.end is None and self._is_cut_off():
            seconds = seconds_of(self._container) or 0.0
            told.append(f"ends after {self._end_seconds - origin:.2f} s of {seconds:.2f} s")
        return tuple(told)

    def _is_cut_off(self) -> bool:
        """Whether the file ends before its header says."""
        named = self._stream.frames
        if named and self._range.start is None and "mov" in self._container.format.name:
            return self._seen_packets < named
        seconds = seconds_of(self._container)
        if seconds is None or self._container.format.name in _BROADCAST_FORMATS:
            return False  # there the length is an estimate
        end = self._end_seconds - float(start_seconds_of(self._container))
        return end < seconds - max(0.5, 0.01 * seconds)
