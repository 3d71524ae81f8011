"""Decoding a video: its frames in RGB, the packets beside them, and what is damaged."""

from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from math import inf

import av
from av import Packet, VideoFrame
from av.stream import Stream
from av.video.reformatter import VideoReformatter

from deblurcli.errors import AnyPath, DeblurError, UsageError
from deblurcli.io.image import Image
from deblurcli.io.videos import info, pixels
from deblurcli.io.videos.streams import TimeRange, move_packet

# Packets of one time lie at most so far apart in a file, in terms of time.
_STRAGGLE_SECONDS = 5
# Where a file has no index, a jump may end behind the wanted time or between key frames: then
# the next one goes back further, and the last to the beginning (None).
_SECONDS_BACK = (0, 3, 20, 120, None)
_TRANSPARENT = "its transparency is left out"
_INTERLACED = "is interlaced: its fields are restored together, deinterlace it first for more"


@dataclass
class Step:
    """One frame in RGB, or none at the end, and the copied packets that lay before it in the file,
    with their times in the output; and the frame as it was decoded, where RGB can't hold all."""

    frame: VideoFrame | None
    packets: "list[Packet[Stream]]" = field(default_factory=list)
    original: VideoFrame | None = None
    restored: Image | None = None  # what the network made of the frame


@dataclass
class Findings:
    """What one pass over the packets came upon."""

    bad: list[tuple[float, float]] = field(default_factory=list)  # damaged spans, in seconds
    error: BaseException | None = None  # the last one
    packets: int = 0  # of the video
    end_seconds: float = 0.0  # how far the packets reach
    is_finished: bool = False


class VideoReader:
    """Decodes a video, and remembers what could not be decoded; to be closed.

    Attributes:
        container, stream: the open file, and the stream in it that is decoded.
        origin: the time stamp at which the file begins.
        tick, rate: seconds of one tick of the frames' times, and frames per second as meant.
        part: what is wanted of the file.
        frame_count: the number of frames to expect in that part; None if unknown.
        side_data, display_matrix: what lies beside the pixels of the first frame, once it is read,
            and how players shall turn all of them; None for not.
        aspect: width of a pixel of the frames over its height; None where it is not said.
        notes: what the user should know of the frames, after they were read.
    """

    def __init__(
        self,
        source: AnyPath,
        start: float | None = None,
        end: float | None = None,
        *,
        keep_origin: bool = False,
        upright: bool = False,
    ) -> None:
        """Opens `source`, to read what lies from `start` to `end` seconds of playing time.

        Raises UsageError where no file has such a part, DeblurError where `source` holds no video
        that can be decoded, or ends before `start`.

        Args:
            keep_origin: broadcast streams keep the time of day at which they begin.
            upright: turn the frames as players would.
        """
        begin = start or 0.0
        if begin < 0:
            raise UsageError("--start", "is negative", "give seconds from the beginning")
        if end is not None and end <= begin:
            raise UsageError("--end", "is not after the start", "give a later time in seconds")
        self.notes: list[str] = []
        self.side_data: dict[str, bytes] = {}
        self.display_matrix: pixels.DisplayMatrix | None = None
        self._source, self._upright = source, upright
        self.container = info.open_video(source)
        try:
            self.stream = stream = info.video_stream(self.container, source)
            about = info.describe(self.container, stream)
            self._seconds = seconds = about.seconds or 0.0
            if seconds and start is not None and start >= seconds:
                reason = f"ends at {seconds:.2f} s, before --start"
                raise DeblurError(source, reason, "give less")
        except DeblurError:
            self.container.close()
            raise
        self.aspect = info.fraction_of(stream.sample_aspect_ratio)
        self.tick, meant = info.tick_of(stream), info.fraction_of(stream.guessed_rate)
        self.rate = meant or about.fps or Fraction(25)
        self.frame_count = about.frame_count
        if self.frame_count is not None and seconds and (start is not None or end is not None):
            share = (min(seconds if end is None else end, seconds) - begin) / seconds
            self.frame_count = max(1, round(self.frame_count * share))
        self.origin = Fraction(self.container.start_time or 0, 1_000_000)
        # Broadcast streams begin at any time of day; files for playing begin at 0, and a stream
        # that begins later than the others there does so on purpose.
        self._is_broadcast = self.container.format.name in ("mpegts", "mpeg")
        shift = self.origin if self._is_broadcast and not keep_origin else Fraction(0)
        first = self.origin + Fraction(begin).limit_denominator(1_000_000)
        last = inf if end is None else self.origin + Fraction(end).limit_denominator(1_000_000)
        whole = TimeRange(-inf, last, shift)
        self.part = whole if start is None else TimeRange(first, last, first)
        self._found = Findings()

    def close(self) -> None:
        self.container.close()

    def steps(self, copied: Collection[int] = ()) -> Iterator[Step]:
        """Yields the frames in the order of their times, and a last step without one; beside them
        the packets of the streams with the `copied` indices. Raises DeblurError where not one frame
        can be decoded, or the file is encrypted."""
        # Decoding several frames at once would lose good frames beside a damaged one.
        self.stream.thread_type = "SLICE"
        bits = max((component.bits for component in self.stream.format.components), default=8)
        has_alpha = self.stream.metadata.get("alpha_mode") == "1"  # which its decoder does not give
        reformatter, turn = VideoReformatter(), None
        size: tuple[int, int] | None = None
        for number, step in enumerate(self._wanted(copied), 1):
            item = step.frame
            if item is None:
                if number > 1:
                    yield step
                break
            if size is None:
                self.side_data = pixels.side_data_of(item)
                self.display_matrix = pixels.display_matrix_of(item, self.side_data)
                if self._upright and self.display_matrix is not None:
                    turn, self.display_matrix = self.display_matrix, None
                    if not turn[0] and self.aspect:  # a quarter turn
                        self.aspect = 1 / self.aspect
            elif size != (item.width, item.height):
                change = f"its size changes to {item.width}x{item.height} at frame {number}"
                self.notes.append(f"{change}: a video keeps the first")
            size = (item.width, item.height)
            if item.interlaced_frame and _INTERLACED not in self.notes:
                self.notes.append(_INTERLACED)
            if _TRANSPARENT not in self.notes and (has_alpha or pixels.is_transparent(item)):
                self.notes.append(_TRANSPARENT)
            item.pts = (item.pts or 0) - self.part.shift_ticks(self.tick)
            item.time_base = self.tick
            step.frame = frame = pixels.to_rgb(item, bits, reformatter)
            if turn is not None:
                shown = pixels.turn_upright(pixels.pixels_of(frame), turn)
                step.frame = pixels.frame_like(frame, shown)
            step.original = item if turn is None and pixels.exceeds_rgb(item) else None
            yield step
        if size is None:
            detail = "" if self._found.error is None else f" ({type(self._found.error).__name__})"
            reason, remedy = f"not one frame of it can be decoded{detail}", "copy it again"
            if self.part != TimeRange(-inf, inf, self.part.shift):
                reason, remedy = "has no frame in that part", "change --start or --end"
            raise DeblurError(self._source, reason, remedy)

    def _wanted(self, copied: Collection[int]) -> Iterator[Step]:
        """The frames of the part as they are decoded, each with the copied packets before it."""
        part = self.part
        packets: list[Packet[Stream]] = []
        for back in _SECONDS_BACK if part.start > -inf else (None,):
            packets.clear()
            has_landed = back is None
            self._seek(back)
            for item in self._decode(copied):
                if isinstance(item, Packet):
                    if move_packet(item, part):
                        packets.append(item)
                    continue
                seconds = (item.pts or 0) * self.tick
                if not has_landed:
                    if seconds > part.start:
                        break
                    has_landed = item.key_frame
                if has_landed and part.holds(seconds):
                    if item.is_corrupt:
                        self._found.bad.append((float(seconds), float(seconds)))
                    yield Step(item, packets)
                    packets = []
            if has_landed:
                break
        yield Step(None, packets)

    def _seek(self, seconds_back: int | None) -> None:
        """Goes to a key frame so long before the wanted part; None is the beginning."""
        self._found = Findings()
        # Which frame comes out first after a jump into AVI with B-frames can't be known.
        is_avi = self.container.format.name == "avi"
        if self.part.start == -inf or (is_avi and self.stream.codec_context.has_b_frames):
            return
        if seconds_back is not None:
            to = max(self.origin, self.part.start - seconds_back)
            self.container.seek(int(to * 1_000_000))
        elif self._is_broadcast:
            # FFmpeg searches these for times, and finds none at the very beginning.
            self.container.seek(0, unsupported_byte_offset=True)
        else:
            self.container.seek(int(self.origin * 1_000_000))

    def _decode(self, copied: Collection[int]) -> "Iterator[Packet[Stream] | VideoFrame]":
        """The frames from here to the end of the part, with a time each, and the packets of the
        copied streams between them."""
        video, tick = self.stream, self.tick
        frame_ticks = max(1, round(1 / (self.rate * tick)))
        # As frames leave the decoder in the order of showing, times of decoding are given to
        # them in turn where there are no others. AVI says only when a frame is decoded; what
        # FFmpeg guesses from it may go back.
        has_dts_only = self.container.format.name == "avi"
        unshown: deque[int] = deque()
        last_pts = -frame_ticks
        for packet in self._demux(copied):
            if packet.stream.index != video.index:
                yield packet
                continue
            no_pts = packet.pts is None or has_dts_only
            if packet.size and packet.dts is not None and no_pts:
                unshown.append(packet.dts)
            try:
                frames = video.decode(packet if packet.size else None)
            except EOFError:
                continue
            except av.FFmpegError as error:
                self._found.error, time = error, packet.dts if no_pts else packet.pts
                if no_pts and unshown:
                    unshown.popleft()
                seconds = self._found.end_seconds if time is None else float(time * tick)
                self._found.bad.append((seconds, seconds))
                continue
            for frame in frames:
                if frame.pts is None or has_dts_only:
                    frame.pts = unshown.popleft() if unshown else last_pts + frame_ticks
                last_pts = frame.pts
                yield frame

    def _demux(self, copied: Collection[int]) -> "Iterator[Packet[Stream]]":
        """The packets up to the end of the part, and at the end one that empties the decoder."""
        wanted = [s for s in self.container.streams if s.index in copied]
        running = {self.stream.index, *copied}
        demuxed = self.container.demux(self.stream, *wanted)
        while running:
            try:
                packet = next(demuxed, None)
            except av.FFmpegError as error:
                self._found.error = error
                self._found.bad.append((self._found.end_seconds, inf))
                break
            if packet is None:
                self._found.is_finished = True
                return
            if packet.has_sidedata("encryption_info"):
                raise DeblurError(self._source, *info.ENCRYPTED)
            # An empty packet's own index is 0, whatever stream it ends.
            index = packet.stream.index
            self._found.packets += index == self.stream.index and packet.size > 0
            time = packet.dts if packet.dts is not None else packet.pts
            tick = info.fraction_of(packet.time_base)
            if time is not None and tick:
                end_seconds = float((time + (packet.duration or 0)) * tick)
                self._found.end_seconds = max(self._found.end_seconds, end_seconds)
                if self.part.is_over(time * tick):
                    running.discard(index)
                if self.part.is_over(time * tick - _STRAGGLE_SECONDS):
                    break
            yield packet
        flush: Packet[Stream] = Packet()
        flush.stream = self.stream
        yield flush

    def damage(self) -> tuple[str, ...]:
        """The damaged parts in words, in playing time; short gaps between them are joined."""
        origin = float(self.origin)
        spans: list[tuple[float, float]] = []
        for begin, end in sorted(self._found.bad):
            if spans and begin - spans[-1][1] < 0.5:
                spans[-1] = (spans[-1][0], max(spans[-1][1], end))
            else:
                spans.append((begin, end))
        told = []
        for begin, end in spans:
            until = "" if end - begin < 0.01 else f" to {end - origin:.2f}"
            at = f"at {begin - origin:.2f}{until} s"
            told.append(f"damaged {at if end < inf else f'from {begin - origin:.2f} s on'}")
        seconds, read = self._seconds, self._found.end_seconds - origin
        if not self._found.is_finished or self.part.end < inf:
            is_cut_off = False
        elif self.stream.frames and self.part.start == -inf and "mov" in self.container.format.name:
            is_cut_off = self._found.packets < self.stream.frames
        else:  # the length of broadcast streams is an estimate
            is_cut_off = not self._is_broadcast and read < seconds - max(0.5, 0.01 * seconds)
        if is_cut_off:
            told.append(f"ends after {read:.2f} s of {seconds:.2f} s")
        return tuple(told)
