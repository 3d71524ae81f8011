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
from typing import TYPE_CHECKING, cast

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

_STALE_TAGS = frozenset(
    {"major_brand", "minor_version", "compatible_brands", "encoder", "duration", "vendor_id"}
    | {"alpha_mode"}
)
_STALE_PREFIXES = ("number_of_", "_statistics_", "bps")


@dataclass(frozen=True)
class Holdings:
    """What a container holds beside a video.

    Attributes:
        kinds: of streams that are worth trying to copy.
        audio_encoder: for sound that it can't hold as it is.
        text_encoder: for subtitles of text; those of pictures can't become anything else.
    """

    kinds: frozenset[str]
    audio_encoder: str = "aac"
    text_encoder: str | None = None


_MP4_KINDS = frozenset({"audio", "subtitle", "data", "video"})
_HOLDINGS = {
    "mp4": Holdings(_MP4_KINDS, text_encoder="mov_text"),
    "mov": Holdings(_MP4_KINDS, text_encoder="mov_text"),
    "matroska": Holdings(frozenset({"audio", "subtitle", "attachment"}), text_encoder="subrip"),
    "webm": Holdings(frozenset({"audio", "subtitle"}), "libopus", "webvtt"),
    "avi": Holdings(frozenset({"audio"}), "libmp3lame"),
    "mpegts": Holdings(frozenset({"audio", "subtitle"})),
}
_TEXT_CODECS = frozenset({"mov_text", "subrip", "ass", "webvtt", "text"})
# What MPEG-TS has a type for. Its muxer takes anything else too, as data that nobody plays: so do
# Blu-ray's subtitles (PGS), but for a variant of the format that has no AAC.
_MPEGTS_CODECS = frozenset(
    {"mp1", "mp2", "mp3", "aac", "aac_latm", "ac3", "eac3", "dts", "opus", "s302m"}
    | {"dvb_subtitle", "dvb_teletext"}
)
# FFmpeg gives the time at which a file begins in whole microseconds.
_ROUNDING = Fraction(1, 1_000_000)
# The usual layouts by number of channels, for encoders and muxers that want a named one.
_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}


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
        has_begun = self.start is None or seconds >= self.start - _ROUNDING
        return has_begun and not self.is_over(seconds)

    def is_over(self, seconds: Fraction) -> bool:
        return self.end is not None and seconds >= self.end - _ROUNDING

    def shift_ticks(self, time_base: Fraction) -> int:
        return round(self.shift / time_base)


@dataclass
class CopiedStreams:
    """The streams that are copied beside the restored video.

    Attributes:
        streams: those of the input, with the stream index they have in the input.
        encoders: by that index, of the sound and text that have to be encoded again.
        attachments: cover pictures, for containers that have no streams of these.
        notes: what can't come along, and why.
    """

    streams: dict[int, Stream] = field(default_factory=dict)
    encoders: dict[int, str] = field(default_factory=dict)
    attachments: list[Stream] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def has_cover(self) -> bool:
        return any(map(is_cover, self.streams.values()))


def choose_copied_streams(
    container: InputContainer, video: VideoStream, container_format: str, *, strip: bool = False
) -> CopiedStreams:
    """Decides which streams beside `video` a file of `container_format` can hold.

    With `strip`, telemetry (places, mostly) and cover pictures stay behind.
    """
    copied, holdings = CopiedStreams(), _HOLDINGS[container_format]
    for stream in container.streams:
        codec = _codec_of(stream)
        if stream.index == video.index or (strip and (stream.type == "data" or is_cover(stream))):
            continue
        if stream.type == "data" and "timecode" in stream.metadata and codec is None:
            continue  # the time code is a tag of the video too: the muxer makes the stream anew
        if is_cover(stream) and container_format == "matroska":
            copied.attachments.append(stream)
            continue
        kind = "cover picture" if is_cover(stream) else f"{stream.type} stream"
        label = f"{kind} {stream.index} ({codec or 'unknown'})"
        encoder = None
        if isinstance(stream, AudioStream) and stream.codec_context is not None:
            encoder = holdings.audio_encoder
        elif isinstance(stream, SubtitleStream) and codec in _TEXT_CODECS:
            encoder = holdings.text_encoder
        if stream.type == "video" and not is_cover(stream):
            copied.notes.append(f"{label} left out: only one video is restored")
        elif stream.type in holdings.kinds and _fits(stream, container_format):
            copied.streams[stream.index] = stream
        elif codec == "bin_data" and container.chapters():
            pass  # the titles of the chapters, which are copied as chapters
        elif encoder is not None:
            copied.streams[stream.index] = stream
            copied.encoders[stream.index] = encoder
            copied.notes.append(f"{label} encoded again: {container_format} can't hold it")
        else:
            hint = "" if stream.type == "data" or codec is None else "; .mkv would"
            copied.notes.append(f"{label} left out: {container_format} can't hold it{hint}")
    return copied


def _codec_of(stream: Stream) -> str | None:
    """FFmpeg's name of the stream's codec; None where FFmpeg does not know it."""
    if stream.codec_context is not None:
        return stream.codec_context.codec.canonical_name
    return getattr(stream, "name", None)  # PyAV raises where there is none


def _fits(stream: Stream, container_format: str) -> bool:
    """Whether a muxer takes the stream, found by trying: its header is written to memory."""
    codec = _codec_of(stream)
    if codec is None or (container_format == "mpegts" and codec not in _MPEGTS_CODECS):
        return False
    try:
        trial = av.open(io.BytesIO(), "w", format=container_format)
        trial.add_stream_from_template(stream)
        trial.start_encoding()
        trial.close()
    except (av.FFmpegError, ValueError):
        return False
    return True


@dataclass(frozen=True)
class StreamCopy:
    """A stream of the output that is made from one of the input.

    Attributes:
        target: of the output.
        decoded: of the input, where it is encoded again; None where its packets are copied.
    """

    target: Stream
    decoded: AudioStream | SubtitleStream | None = None

    def take(self, packet: Packet[Stream] | None) -> list[Packet[Stream]]:
        """The packets to write for one of the input's, None being the end."""
        packets: list[Packet[Stream]] = []
        if self.decoded is None and packet is not None:
            packet.stream = self.target
            packets.append(packet)
        elif isinstance(self.decoded, AudioStream) and isinstance(self.target, AudioStream):
            with suppress(av.FFmpegError):  # damaged sound is left out
                for frame in self.decoded.decode(packet):
                    packets += self.target.encode(frame)
            if packet is None:
                packets += self.target.encode(None)
        elif (
            isinstance(self.decoded, SubtitleStream)
            and isinstance(self.target, SubtitleStream)
            and packet is not None
        ):
            with suppress(av.FFmpegError):
                lines = self.decoded.codec_context.decode2(packet)
                if lines:  # MP4 has empty ones for the times between
                    encoded = self.target.codec_context.encode_subtitle(lines)
                    encoded.pts = encoded.dts = packet.pts
                    encoded.duration, encoded.time_base = packet.duration, packet.time_base
                    encoded.stream = self.target
                    packets.append(encoded)
        return packets


def add_streams(
    output: OutputContainer, copied: CopiedStreams, *, strip: bool = False
) -> dict[int, StreamCopy]:
    """Adds a stream to `output` for each copied one: index in the input -> the copy."""
    copies: dict[int, StreamCopy] = {}
    for index, stream in copied.streams.items():
        encoder = copied.encoders.get(index)
        if encoder is None:
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
            rate = 48_000 if encoder == "libopus" else min(stream.rate, 48_000)
            target = sound = cast(AudioStream, output.add_stream(encoder, rate=rate))
            # MP3, for AVI, holds two channels at most. Encoders know 5.1 with its rear speakers
            # at the back only, films have them at the side.
            channels = min(stream.channels, 2) if encoder == "libmp3lame" else stream.channels
            sound.codec_context.layout = _LAYOUTS.get(channels, stream.layout)
            sound.codec_context.bit_rate = 96_000 * channels
            copies[index] = StreamCopy(sound, stream)
        else:
            text = cast(SubtitleStream, stream)
            target = written = cast(SubtitleStream, output.add_stream(encoder))
            text.codec_context.open()  # which makes the header that the encoder needs
            written.codec_context.subtitle_header = text.codec_context.subtitle_header
            copies[index] = StreamCopy(written, text)
        target.metadata.clear()
        target.metadata.update(clean_tags(stream.metadata, strip=strip))
        target.disposition = stream.disposition
    for cover in copied.attachments:
        kind, suffix = ("png", "png") if _codec_of(cover) == "png" else ("jpeg", "jpg")
        with closing(open_video(cover.container.name)) as container:
            packet = next(container.demux(container.streams[cover.index]))
            output.add_attachment(f"cover.{suffix}", f"image/{kind}", bytes(packet))
    return copies


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
    if not tick or time_range.is_over(time * tick):
        return False
    if time_range.start is not None and time * tick < time_range.start:
        end = time + (packet.duration or 0)
        if packet.stream.type != "subtitle" or end * tick <= time_range.start:
            return False
        # A line of text that is being shown where the part begins.
        packet.pts = packet.dts = round(time_range.start / tick)
        packet.duration = end - packet.pts
    if time_range.end is not None and packet.stream.type == "data" and packet.duration:
        # A second of telemetry would make the file longer than its video.
        packet.duration = min(packet.duration, max(1, round(time_range.end / tick) - time))
    ticks = time_range.shift_ticks(tick)
    packet.pts = None if packet.pts is None else packet.pts - ticks
    packet.dts = None if packet.dts is None else packet.dts - ticks
    return True
