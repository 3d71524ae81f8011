"""What else is in a video: audio, subtitles, covers, fonts, chapters, tags.

Streams are copied packet by packet, not encoded again. What the output's container can't hold
is left out with a note.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, cast

import av
from av.audio.stream import AudioStream
from av.container import Container, InputContainer, OutputContainer
from av.packet import Packet
from av.stream import AttachmentStream, Stream
from av.subtitles.stream import SubtitleStream
from av.video.stream import VideoStream

from deblurcli.io.videos.info import fraction_of, is_cover, open_video

if TYPE_CHECKING:
    from av.container.core import Chapter

_KINDS = {
    "mp4": {"audio", "subtitle", "data", "video"},
    "mov": {"audio", "subtitle", "data", "video"},
    "matroska": {"audio", "subtitle", "attachment"},
    "webm": {"audio", "subtitle"},
    "avi": {"audio"},
    "mpegts": {"audio", "subtitle"},
}
"""The kinds of streams worth trying to copy, by the output's container."""

# fmt: off
_STALE_TAGS = frozenset({
    "major_brand", "minor_version", "compatible_brands", "encoder", "duration", "vendor_id",
    "alpha_mode",
})
# fmt: on
_AUDIO_ENCODERS = {
    "mp4": "aac",
    "mov": "aac",
    "matroska": "aac",
    "webm": "libopus",
    "avi": "libmp3lame",
    "mpegts": "aac",
}
"""For sound that the output's container can't hold as it is."""

# fmt: off
_MPEGTS_CODECS = frozenset({
    "mp1", "mp2", "mp3", "aac", "aac_latm", "ac3", "eac3", "dts", "truehd", "opus", "s302m",
    "dvb_subtitle", "dvb_teletext", "hdmv_pgs_subtitle", "hdmv_text_subtitle",
})
# fmt: on
"""What MPEG-TS has a type for. Its muxer takes anything else too, as data that nobody plays."""

_TEXT_CODECS = frozenset({"mov_text", "subrip", "ass", "webvtt", "text"})
_TEXT_ENCODERS = {"mp4": "mov_text", "mov": "mov_text", "matroska": "subrip", "webm": "webvtt"}
"""For subtitles of text; those of pictures can't become anything else."""

_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}
"""The usual layouts by number of channels, for encoders and muxers that want a named one."""

_STALE_PREFIXES = ("number_of_", "_statistics_", "bps")


@dataclass(frozen=True)
class TimeRange:
    """The part of a video that is wanted, and how its times become the output's.

    Attributes:
        start: time stamp in seconds at which the output begins; None is the file's beginning.
        end: time stamp in seconds before which it ends; None is the file's end.
        shift: seconds to subtract from every time stamp.
    """

    start: Fraction | None
    end: Fraction | None
    shift: Fraction

    def holds(self, seconds: Fraction) -> bool:
        return (self.start is None or seconds >= self.start) and not self.is_over(seconds)

    def is_over(self, seconds: Fraction) -> bool:
        return self.end is not None and seconds >= self.end

    def shift_ticks(self, time_base: Fraction) -> int:
        return round(self.shift / time_base)


@dataclass(frozen=True)
class Cover:
    """A cover picture as an attachment of Matroska."""

    file_name: str
    media_type: str
    data: bytes


@dataclass
class CopiedStreams:
    """The streams that are copied beside the restored video.

    Attributes:
        streams: those of the input, with the stream index they have in the input.
        encoded: of these, the sound and text that have to be encoded again, with their
            encoders' names.
        covers: pictures that become attachments.
        notes: what can't come along, and why.
    """

    streams: dict[int, Stream] = field(default_factory=dict)
    encoded: dict[int, str] = field(default_factory=dict)
    covers: list[Cover] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def has_cover(self) -> bool:
        return any(isinstance(s, VideoStream) and is_cover(s) for s in self.streams.values())


def choose_copied_streams(
    container: InputContainer, video: VideoStream, container_format: str, *, strip: bool = False
) -> CopiedStreams:
    """Decides which streams beside `video` a file of `container_format` can hold.

    With `strip`, telemetry (places, mostly) and cover pictures stay behind.
    """
    copied = CopiedStreams()
    for stream in container.streams:
        if stream.index == video.index:
            continue
        is_private = stream.type == "data" or (isinstance(stream, VideoStream) and is_cover(stream))
        if strip and is_private:
            continue
        label = _label(stream)
        fits = stream.type in _KINDS[container_format] and _fits(stream, container_format)
        if stream.type == "data" and "timecode" in stream.metadata and _codec(stream) is None:
            continue  # the time code is a tag of the video too: the muxer makes the stream anew
        if _codec(stream) == "bin_data" and container.chapters() and not fits:
            continue  # the titles of the chapters, which are copied as chapters
        if isinstance(stream, VideoStream) and is_cover(stream):
            if container_format == "matroska":
                copied.covers.append(_cover(container.name, stream))
                continue
        elif stream.type == "video":
            copied.notes.append(f"{label} left out: only the first video is restored")
            continue
        if fits:
            copied.streams[stream.index] = stream
        elif encoder := _encoder_for(stream, container_format):
            copied.streams[stream.index] = stream
            copied.encoded[stream.index] = encoder
            copied.notes.append(f"{label} encoded again: {container_format} can't hold it")
        else:
            known = stream.type != "data" and _codec(stream) is not None
            hint = "; .mkv would" if known else ""
            copied.notes.append(f"{label} left out: {container_format} can't hold it{hint}")
    return copied


def _encoder_for(stream: Stream, container_format: str) -> str | None:
    """What to encode a stream with that the container can't hold as it is."""
    if isinstance(stream, AudioStream) and stream.codec_context is not None:
        return _AUDIO_ENCODERS[container_format]
    if isinstance(stream, SubtitleStream) and _codec(stream) in _TEXT_CODECS:
        return _TEXT_ENCODERS.get(container_format)
    return None


def _label(stream: Stream) -> str:
    is_picture = isinstance(stream, VideoStream) and is_cover(stream)
    kind = "cover picture" if is_picture else f"{stream.type} stream"
    return f"{kind} {stream.index} ({_codec(stream) or 'unknown'})"


def _codec(stream: Stream) -> str | None:
    """FFmpeg's name of the stream's codec; None where FFmpeg does not know it."""
    if stream.codec_context is not None:
        return stream.codec_context.codec.canonical_name
    return getattr(stream, "name", None)  # PyAV raises where there is none


def _fits(stream: Stream, container_format: str) -> bool:
    """Whether a muxer takes the stream, found by trying: its header is written to memory."""
    name = _codec(stream)
    if name is None or (container_format == "mpegts" and name not in _MPEGTS_CODECS):
        return False
    try:
        trial = av.open(io.BytesIO(), "w", format=container_format)
        trial.add_stream_from_template(stream)
        trial.start_encoding()
        trial.close()
    except (av.FFmpegError, ValueError):
        return False
    return True


def _cover(path: str, stream: VideoStream) -> Cover:
    kind = "png" if _codec(stream) == "png" else "jpeg"
    with closing(open_video(path)) as container:
        packet = next(container.demux(container.streams[stream.index]))
        return Cover(f"cover.{kind.replace('jpeg', 'jpg')}", f"image/{kind}", bytes(packet))


def add_streams(
    output: OutputContainer, copied: CopiedStreams, *, strip: bool = False
) -> dict[int, StreamCopy]:
    """Adds a stream to `output` for each copied one: index in the input -> the copy."""
    copies: dict[int, StreamCopy] = {}
    for index, stream in copied.streams.items():
        if index not in copied.encoded:
            target: Stream = output.add_stream_from_template(stream)
            if stream.time_base and not isinstance(stream, AttachmentStream):
                target.time_base = stream.time_base
            if (
                isinstance(stream, AudioStream)
                and isinstance(target, AudioStream)
                and stream.layout.name.endswith("channels")
                and stream.channels in _LAYOUTS
            ):
                # AVI names no layout, and MP4 takes none without a name.
                target.codec_context.layout = _LAYOUTS[stream.channels]
            copies[index] = StreamCopy(target)
        elif isinstance(stream, AudioStream):
            name = copied.encoded[index]
            rate = 48_000 if name == "libopus" else min(stream.rate, 48_000)
            target = sound = cast(AudioStream, output.add_stream(name, rate=rate))
            # MP3, for AVI, holds two channels at most. Encoders know 5.1 with its rear speakers
            # at the back only, films have them at the side.
            channels = min(stream.channels, 2) if name == "libmp3lame" else stream.channels
            sound.codec_context.layout = _LAYOUTS.get(channels, stream.layout)
            sound.codec_context.bit_rate = 96_000 * channels
            copies[index] = EncodedAudio(sound, stream)
        else:
            text = cast(SubtitleStream, stream)
            target = written = cast(SubtitleStream, output.add_stream(copied.encoded[index]))
            text.codec_context.open()  # which makes the header that the encoder needs
            written.codec_context.subtitle_header = text.codec_context.subtitle_header
            copies[index] = EncodedText(written, text)
        target.metadata.clear()
        target.metadata.update(clean_tags(stream.metadata, strip=strip))
        target.disposition = stream.disposition
    for cover in copied.covers:
        output.add_attachment(cover.file_name, cover.media_type, cover.data)
    return copies


@dataclass(frozen=True)
class StreamCopy:
    """A stream of the output that takes the packets of one of the input as they are."""

    target: Stream

    def take(self, packet: Packet[Any] | None) -> list[Packet[Any]]:
        """The packets to write for one of the input's, None being the end."""
        if packet is None:
            return []
        packet.stream = self.target
        return [packet]


@dataclass(frozen=True)
class EncodedAudio(StreamCopy):
    """Sound that the output's container can't hold as it is."""

    target: AudioStream
    source: AudioStream

    def take(self, packet: Packet[Any] | None) -> list[Packet[Any]]:
        packets: list[Packet[Any]] = []
        with suppress(av.FFmpegError):  # damaged sound is left out
            for frame in self.source.decode(packet):
                packets += self.target.encode(frame)
        return packets if packet is not None else packets + self.target.encode(None)


@dataclass(frozen=True)
class EncodedText(StreamCopy):
    """Subtitles that the output's container can't hold as they are."""

    target: SubtitleStream
    source: SubtitleStream

    def take(self, packet: Packet[Any] | None) -> list[Packet[Any]]:
        if packet is None:
            return []
        with suppress(av.FFmpegError):
            lines = self.source.codec_context.decode2(packet)
            if lines:  # MP4 has empty ones for the times between
                encoded = self.target.codec_context.encode_subtitle(lines)
                encoded.pts = encoded.dts = packet.pts
                encoded.duration, encoded.time_base = packet.duration, packet.time_base
                encoded.stream = self.target
                return [encoded]
        return []


def clean_tags(tags: Mapping[str, str], *, strip: bool = False) -> dict[str, str]:
    """Tags without those that describe the old file's bytes instead of its content; with `strip`
    only the language, as any other may tell place, camera or date."""
    if strip:
        return {key: value for key, value in tags.items() if key.lower() == "language"}
    return {
        key: value
        for key, value in tags.items()
        if key.lower() not in _STALE_TAGS and not key.lower().startswith(_STALE_PREFIXES)
    }


def copy_chapters(source: Container, output: Container, time_range: TimeRange) -> None:
    """Copies the chapters that lie within `time_range`, shortened at its ends."""
    chapters: list[Chapter] = []
    for chapter in source.chapters():
        tick = fraction_of(chapter["time_base"]) or Fraction(1, 1_000_000)
        start, end = chapter["start"] * tick, chapter["end"] * tick
        start = max(start, time_range.start) if time_range.start is not None else start
        end = min(end, time_range.end) if time_range.end is not None else end
        if start < end:
            chapter["start"] = max(0, round((start - time_range.shift) / tick))
            chapter["end"] = round((end - time_range.shift) / tick)
            chapters.append(chapter)
    if chapters:
        output.set_chapters(chapters)


def move_packet(packet: Packet[Stream], time_range: TimeRange) -> bool:
    """Shifts the times of a copied packet to the output's; says whether it belongs there."""
    tick = fraction_of(packet.time_base)
    time = packet.pts if packet.pts is not None else packet.dts
    if time is None:
        packet.pts = packet.dts = 0  # a cover picture belongs to no time
        return True
    if not tick:
        return False
    seconds = time * tick
    if time_range.is_over(seconds):
        return False
    if time_range.start is not None and seconds < time_range.start:
        end = time + (packet.duration or 0)
        if packet.stream.type != "subtitle" or end * tick <= time_range.start:
            return False
        # A line of text that is being shown where the part begins.
        begin = round(time_range.start / tick)
        packet.pts = packet.dts = begin
        packet.duration = end - begin
    ticks = time_range.shift_ticks(tick)
    packet.pts = None if packet.pts is None else packet.pts - ticks
    packet.dts = None if packet.dts is None else packet.dts - ticks
    return True
