"""Decoding a video: its frames in RGB, the packets beside them, and what is damaged."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from deblurcli.errors import DeblurError, UsageError
from deblurcli.io.videos.encoding import rate_of_stream
from deblurcli.io.videos.info import bits_of, seconds_of, start_seconds_of, tick_of
from deblurcli.io.videos.pixels import PixelReader
from deblurcli.io.videos.streams import Cut, move_packet

# Packets of one time lie at most so far apart in a file, in terms of time.
_STRAGGLE_SECONDS = 5


def choose_cut(
    container: InputContainer, container_format: str, start: float | None, end: float | None
) -> Cut:
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
    first = None if start is None else origin + _exact(start)
    last = None if end is None else origin + _exact(end)
    # Broadcast streams begin at any time of day; files for playing begin at 0, and a stream
    # that begins later than the others there does so on purpose.
    from_broadcast = container.format.name in ("mpegts", "mpeg") and container_format != "mpegts"
    shift = first if first is not None else origin if from_broadcast else Fraction(0)
    return Cut(first, last, shift)


def _exact(seconds: float) -> Fraction:
    return Fraction(seconds).limit_denominator(1_000_000)


@dataclass
class Step:
    """One frame, or none at the end, and the copied packets that lay before it in the file.

    Attributes:
        frame: in RGB, with its time in the output.
        packets: with the index of their stream, with their times in the output.
        last_duration: at the end, how long the last frame is shown, in ticks of the video.
    """

    frame: VideoFrame | None
    packets: list[tuple[int, Packet[Any]]]
    last_duration: int = 0


@dataclass
class Reading:
    """Decodes a video, and remembers what could not be decoded."""

    source: str | os.PathLike[str]
    container: InputContainer
    stream: VideoStream
    cut: Cut
    copied: set[int]
    notes: list[str] = field(default_factory=list)
    _bad: list[tuple[float, float]] = field(default_factory=list)
    _cause: BaseException | None = None
    _seen_packets: int = 0
    _end_seconds: float = 0.0
    _finished: bool = False
    _unshown: deque[int] = field(default_factory=deque)
    _last_pts: int = 0
    _last_duration: int = 0

    def steps(self) -> Iterator[Step]:
        """Yields the frames in RGB, in the order of their times."""
        # Decoding several frames at once would lose good frames beside a damaged one.
        self.stream.thread_type = "SLICE"
        pixels = PixelReader(bits_of(self.stream))
        packets: list[tuple[int, Packet[Any]]] = []
        for frame in self._frames(packets):
            yield Step(pixels.to_rgb(frame), packets.copy())
            packets.clear()
        yield Step(None, packets, self._last_duration)

    def _frames(self, packets: list[tuple[int, Packet[Any]]]) -> Iterator[VideoFrame]:
        tick = tick_of(self.stream)
        if self.cut.first is not None:
            self.container.seek(int(self.cut.first * 1_000_000))
        for packet in self._packets():
            index = packet.stream_index
            if index in self.copied:
                if move_packet(packet, self.cut):
                    packets.append((index, packet))
                continue
            for frame in self._decode(packet):
                self._note_interlaced(frame)
                frame.pts = self._pts_of(frame)
                seconds = frame.pts * tick
                if frame.is_corrupt and self.cut.holds(seconds):
                    self._bad.append((float(seconds), float(seconds)))
                if self.cut.holds(seconds):
                    frame.pts -= self.cut.shift_ticks(tick)
                    frame.time_base = tick
                    yield frame

    def _packets(self) -> Iterator[Packet[Any]]:
        wanted = [s for s in self.container.streams if s.index in self.copied]
        running = {self.stream.index, *self.copied}
        demuxed = self.container.demux(self.stream, *wanted)
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
            if packet.stream_index == self.stream.index and packet.size:
                self._seen_packets += 1
                self._last_duration = packet.duration or 0
                if packet.dts is not None and (packet.pts is None or self._has_dts_only()):
                    self._unshown.append(packet.dts)
            time = packet.dts if packet.dts is not None else packet.pts
            if time is not None and packet.time_base:
                seconds = time * packet.time_base
                self._end_seconds = max(
                    self._end_seconds,
                    float(seconds + (packet.duration or 0) * packet.time_base),
                )
                if self.cut.is_over(seconds):
                    running.discard(packet.stream_index)
                if self.cut.is_over(seconds - _STRAGGLE_SECONDS):
                    break
            yield packet
        empty: Packet[Any] = Packet()
        empty.stream = self.stream
        yield empty  # makes the decoder give what it still holds

    def _decode(self, packet: Packet[Any]) -> list[VideoFrame]:
        try:
            return self.stream.decode(packet if packet.size else None)
        except EOFError:
            return []
        except av.FFmpegError as error:
            self._cause = error
            time = packet.pts if packet.pts is not None else packet.dts
            seconds = self._end_seconds if time is None else float(time * packet.time_base)
            if self._unshown:
                self._unshown.popleft()
            self._bad.append((seconds, seconds))
            return []

    def _pts_of(self, frame: VideoFrame) -> int:
        """The frame's time.

        AVI says only when a frame is to be decoded (what FFmpeg guesses from it may go back).
        As frames leave the decoder in the order of showing, the times of decoding are given to
        them in turn.
        """
        pts = None if self._has_dts_only() else frame.pts
        if pts is None and self._unshown:
            pts = self._unshown.popleft()
        if pts is None:
            tick = tick_of(self.stream)
            pts = self._last_pts + max(1, round(1 / (rate_of_stream(self.stream) * tick)))
        self._last_pts = pts
        return pts

    def _has_dts_only(self) -> bool:
        return self.container.format.name == "avi"

    def _note_interlaced(self, frame: VideoFrame) -> None:
        note = "is interlaced: its fields are restored together, deinterlace it first for more"
        if frame.interlaced_frame and note not in self.notes:
            self.notes.append(note)

    def failure(self) -> DeblurError:
        """What to say when not a single frame could be decoded."""
        if self.cut.first is not None or self.cut.end is not None:
            return DeblurError(self.source, "has no frame in that part", "change --start or --end")
        detail = "" if self._cause is None else f" ({type(self._cause).__name__})"
        return DeblurError(
            self.source, f"not one frame of it can be decoded{detail}", "copy it again"
        )

    def damage(self) -> tuple[str, ...]:
        """The damaged parts in words, in playing time; short gaps between them are joined."""
        origin = float(start_seconds_of(self.container))
        spans: list[tuple[float, float]] = []
        for begin, end in sorted(self._bad):
            if spans and begin - spans[-1][1] < 0.5:
                spans[-1] = (spans[-1][0], max(spans[-1][1], end))
            else:
                spans.append((begin, end))
        told = [_words(begin - origin, end - origin) for begin, end in spans]
        if self._finished and self.cut.end is None and self._is_cut_off():
            seconds = seconds_of(self.container) or 0.0
            told.append(f"ends after {self._end_seconds - origin:.2f} s of {seconds:.2f} s")
        return tuple(told)

    def _is_cut_off(self) -> bool:
        """Whether the file ends before its header says."""
        named = self.stream.frames
        if named and self.cut.first is None and "mov" in self.container.format.name:
            return self._seen_packets < named
        seconds = seconds_of(self.container)
        if seconds is None or self.container.format.name in ("mpegts", "mpeg"):
            return False  # there the length is an estimate
        end = self._end_seconds - float(start_seconds_of(self.container))
        return end < seconds - max(0.5, 0.01 * seconds)


def _words(begin: float, end: float) -> str:
    if end == float("inf"):
        return f"damaged from {begin:.2f} s on"
    if end - begin < 0.01:
        return f"damaged at {begin:.2f} s"
    return f"damaged at {begin:.2f} to {end:.2f} s"
