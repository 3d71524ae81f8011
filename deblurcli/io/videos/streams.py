"""What else is in a video: audio, subtitles, covers, fonts, chapters, tags.

Streams are copied packet by packet, not encoded again. What the output's container can't hold
is left out with a note.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from math import inf
from typing import cast

import av
from av import AudioStream, Packet, VideoStream
from av.container import Container, InputContainer, OutputContainer
from av.stream import AttachmentStream, Stream
from av.subtitles.stream import SubtitleStream

from deblurcli.io.videos.info import fraction_of, is_cover, open_video

_STALE_TAGS = frozenset(
    {"major_brand", "minor_version", "compatible_brands", "encoder", "duration", "vendor_id"}
    | {"alpha_mode"}
)
_STALE_PREFIXES = ("number_of_", "_statistics_", "bps")
# Which kinds of streams beside the video are worth trying to copy into a container…
_KINDS = {
    **dict.fromkeys(("mp4", "mov"), ("audio", "subtitle", "data", "video")),
    "matroska": ("audio", "subtitle", "attachment"),
    **dict.fromkeys(("webm", "mpegts"), ("audio", "subtitle")),
    "avi": ("audio",),
}
# …and what becomes there of sound (else AAC) and of subtitles of text that it can't hold as they
# are; those of pictures can't become anything else.
_SOUND_ENCODERS = {"webm": "libopus", "avi": "libmp3lame"}
_TEXT_ENCODERS = {"mp4": "mov_text", "mov": "mov_text", "matroska": "subrip", "webm": "webvtt"}
# Tags that MP4 has a place for, and all players look there.
_MOV_TAGS = frozenset(
    {"title", "artist", "album_artist", "album", "composer", "date", "comment", "genre", "track"}
    | {"copyright", "grouping", "lyrics", "description", "synopsis", "show", "episode_id"}
    | {"network", "keywords", "creation_time", "location"}
)
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
    """The part of a video that is wanted, and how its times become the output's, in seconds."""

    start: Fraction | float  # the time stamp from which it goes,
    end: Fraction | float  # and the one before which it ends; infinite for all
    shift: Fraction  # to subtract from every time stamp

    def holds(self, seconds: Fraction) -> bool:
        return seconds >= self.start - _ROUNDING and not self.is_over(seconds)

    def is_over(self, seconds: Fraction) -> bool:
        return seconds >= self.end - _ROUNDING

    def shift_ticks(self, time_base: Fraction) -> int:
        return round(self.shift / time_base)


@dataclass
class CopiedStreams:
    """The streams that are copied beside the restored video."""

    # By their index in the input, each with the encoder that sound or text has to go through.
    streams: dict[int, tuple[Stream, str | None]] = field(default_factory=dict)
    # Cover pictures, for containers that have no streams of these.
    attachments: list[Stream] = field(default_factory=list)
    any_tag: bool = False  # some tags have no place of their own in MP4, but it takes any
    notes: list[str] = field(default_factory=list)  # what can't come along, and why


def choose_copied_streams(
    container: InputContainer, video: VideoStream, container_format: str, *, strip: bool = False
) -> CopiedStreams:
    """Decides which streams beside `video` a file of `container_format` can hold. With `strip`,
    telemetry (places, mostly) and cover pictures stay behind."""
    copied = CopiedStreams()
    for stream in container.streams:
        codec, has_cover = _codec_of(stream), is_cover(stream)
        # A time code is a tag of the video too: the muxer makes the stream anew.
        is_timecode = stream.type == "data" and "timecode" in stream.metadata and codec is None
        is_private = strip and (stream.type == "data" or has_cover)
        if stream.index == video.index or is_timecode or is_private:
            continue
        if has_cover and container_format == "matroska":
            copied.attachments.append(stream)
            continue
        kind = "cover picture" if has_cover else f"{stream.type} stream"
        label = f"{kind} {stream.index} ({codec or 'unknown'})"
        is_sound = stream.type == "audio" and stream.codec_context is not None
        encoder = _SOUND_ENCODERS.get(container_format, "aac") if is_sound else None
        if stream.type == "subtitle" and codec in _TEXT_CODECS:
            encoder = _TEXT_ENCODERS.get(container_format)
        if kind == "video stream":
            copied.notes.append(f"{label} left out: only one video is restored")
        elif stream.type in _KINDS[container_format] and _fits(stream, codec, container_format):
            copied.streams[stream.index] = (stream, None)
        elif codec == "bin_data" and container.chapters():
            pass  # the titles of the chapters, which are copied as chapters
        elif encoder is not None:
            copied.streams[stream.index] = (stream, encoder)
            copied.notes.append(f"{label} encoded again: {container_format} can't hold it")
        else:
            hint = "" if stream.type == "data" or codec is None else "; .mkv would"
            copied.notes.append(f"{label} left out: {container_format} can't hold it{hint}")
    if container_format in ("mp4", "mov"):
        tags = {} if strip else clean_tags(container.metadata)
        unusual = sorted(tag for tag in tags if tag.partition("-")[0] not in _MOV_TAGS)
        copied.any_tag = bool(unusual) and not any(is_cover(s) for s, _ in copied.streams.values())
        if unusual and not copied.any_tag:
            left_out = f"tags left out beside a cover in {container_format}: {', '.join(unusual)}"
            copied.notes.append(left_out)
    return copied


def _codec_of(stream: Stream) -> str | None:
    """FFmpeg's name of the stream's codec; None where FFmpeg does not know it."""
    if stream.codec_context is not None:
        return stream.codec_context.codec.canonical_name
    return getattr(stream, "name", None)  # PyAV raises where there is none


def _fits(stream: Stream, codec: str | None, container_format: str) -> bool:
    """Whether a muxer takes the stream, found by trying: its header is written to memory."""
    if codec is None or (container_format == "mpegts" and codec not in _MPEGTS_CODECS):
        return False
    try:
        with av.open(io.BytesIO(), "w", format=container_format) as trial:
            trial.add_stream_from_template(stream)
            trial.start_encoding()
    except (av.FFmpegError, ValueError):
        return False
    return True


Copy = Callable[["Packet[Stream] | None"], "list[Packet[Stream]]"]
"""Makes the packets to write of one that was read, None being the end."""


def add_streams(
    output: OutputContainer, copied: CopiedStreams, *, strip: bool = False
) -> dict[int, Copy]:
    """Adds a stream to `output` for each copied one: index in the input -> what fills it."""
    copies: dict[int, Copy] = {}
    for index, (stream, encoder) in copied.streams.items():
        if encoder is None:
            target: Stream = output.add_stream_from_template(stream)
            if stream.time_base and not isinstance(stream, AttachmentStream):
                target.time_base = stream.time_base
            if isinstance(stream, AudioStream) and stream.layout.name.endswith("channels"):
                # AVI names no layout, and MP4 takes none without a name.
                layout = _LAYOUTS.get(stream.channels, stream.layout)
                cast(AudioStream, target).codec_context.layout = layout
            copies[index] = partial(_copy, target)
        elif isinstance(stream, AudioStream):
            rate = 48_000 if encoder == "libopus" else min(stream.rate, 48_000)
            target = sound = cast(AudioStream, output.add_stream(encoder, rate=rate))
            # MP3, for AVI, holds two channels at most. Encoders know 5.1 with its rear speakers
            # at the back only, films have them at the side.
            channels = min(stream.channels, 2) if encoder == "libmp3lame" else stream.channels
            sound.codec_context.layout = _LAYOUTS.get(channels, stream.layout)
            sound.codec_context.bit_rate = 96_000 * channels
            copies[index] = partial(_encode_sound, stream, sound)
        else:
            text = cast(SubtitleStream, stream)
            target = written = cast(SubtitleStream, output.add_stream(encoder))
            text.codec_context.open()  # which makes the header that the encoder needs
            written.codec_context.subtitle_header = text.codec_context.subtitle_header
            copies[index] = partial(_encode_text, text, written)
        target.metadata.clear()
        target.metadata.update(clean_tags(stream.metadata, strip=strip))
        target.disposition = stream.disposition
    for cover in copied.attachments:
        kind, suffix = ("png", "png") if _codec_of(cover) == "png" else ("jpeg", "jpg")
        with closing(open_video(cover.container.name)) as container:
            packet = next(container.demux(container.streams[cover.index]))
            output.add_attachment(f"cover.{suffix}", f"image/{kind}", bytes(packet))
    return copies


def _copy(target: Stream, packet: Packet[Stream] | None) -> list[Packet[Stream]]:
    if packet is None:
        return []
    packet.stream = target
    return [packet]


def _encode_sound(
    source: AudioStream, target: AudioStream, packet: Packet[Stream] | None
) -> list[Packet[Stream]]:
    packets: list[Packet[Stream]] = []
    with suppress(av.FFmpegError):  # damaged sound is left out
        for frame in source.decode(packet):
            packets += target.encode(frame)
    return packets if packet is not None else [*packets, *target.encode(None)]


def _encode_text(
    source: SubtitleStream, target: SubtitleStream, packet: Packet[Stream] | None
) -> list[Packet[Stream]]:
    with suppress(av.FFmpegError):
        # MP4 has empty ones for the times between.
        if packet is not None and (lines := source.codec_context.decode2(packet)):
            encoded = target.codec_context.encode_subtitle(lines)
            encoded.pts = encoded.dts = packet.pts
            encoded.duration, encoded.time_base = packet.duration, packet.time_base
            return _copy(target, encoded)
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
    chapters = []
    for chapter in source.chapters():
        tick = fraction_of(chapter["time_base"]) or Fraction(1, 1_000_000)
        start = max(chapter["start"] * tick, time_range.start)
        end = min(chapter["end"] * tick, time_range.end)
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
    if time * tick < time_range.start:
        end = time + (packet.duration or 0)
        if packet.stream.type != "subtitle" or end * tick <= time_range.start:
            return False
        # A line of text that is being shown where the part begins.
        packet.pts = packet.dts = round(time_range.start / tick)
        packet.duration = end - packet.pts
    if time_range.end < inf and packet.stream.type == "data" and packet.duration:
        # A second of telemetry would make the file longer than its video.
        packet.duration = min(packet.duration, max(1, round(time_range.end / tick) - time))
    ticks = time_range.shift_ticks(tick)
    packet.pts = None if packet.pts is None else packet.pts - ticks
    packet.dts = None if packet.dts is None else packet.dts - ticks
    return True
