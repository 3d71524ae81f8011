"""Which codec, quality and pixel format a video is written with."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from fractions import Fraction

from av.codec.codec import Codec, UnknownCodecError
from av.video.format import VideoFormat
from av.video.stream import VideoStream

from deblurcli.errors import UsageError
from deblurcli.io.videos.info import fraction_of
from deblurcli.io.videos.side_data import HdrMetadata

# fmt: off
_X26_PRESETS = (
    "ultrafast", "superfast", "veryfast", "faster", "fast",
    "medium", "slow", "slower", "veryslow", "placebo",
)
# fmt: on


@dataclass(frozen=True)
class Encoder:
    """An encoder, its quality scale and our choice on it.

    Attributes:
        name: FFmpeg's name.
        crf: our quality on the encoder's scale (smaller is better); None where it has none.
        crf_range: of that scale.
        crf_options: names of the options that take it.
        preset: our choice between speed and size; None where there is none.
        presets: what may be chosen.
        preset_option: name of the option that takes it.
        options: others, always given.
    """

    name: str
    crf: int | None = None
    crf_range: tuple[int, int] = (0, 51)
    crf_options: tuple[str, ...] = ("crf",)
    preset: str | None = None
    presets: tuple[str, ...] = ()
    preset_option: str = "preset"
    options: dict[str, str] = field(default_factory=dict)


_ENCODERS = {
    encoder.name: encoder
    for encoder in (
        Encoder("libx264", 16, preset="medium", presets=_X26_PRESETS),
        Encoder(
            "libx265",
            18,
            preset="fast",
            presets=_X26_PRESETS,
            options={"x265-params": "log-level=error"},
        ),
        Encoder(
            "libvpx-vp9",
            22,
            (0, 63),
            preset="4",
            presets=tuple(str(n) for n in range(9)),
            preset_option="cpu-used",
            options={"b": "0", "deadline": "good", "row-mt": "1"},
        ),
        Encoder("libsvtav1", 20, (0, 63), preset="8", presets=tuple(str(n) for n in range(14))),
        # VP8 aims at a rate all the same: one that is never reached leaves the quality to crf.
        Encoder("libvpx", 6, (4, 63), options={"b": "100M", "deadline": "good", "cpu-used": "2"}),
        Encoder("mpeg4", 2, (1, 31), ("qmin", "qmax")),
        Encoder("mpeg2video", 2, (1, 31), ("qmin", "qmax"), options={"b": "100M"}),
        Encoder("mpeg1video", 2, (1, 31), ("qmin", "qmax"), options={"b": "100M"}),
        *(
            Encoder(f"{codec}_nvenc", 17, (0, 51), ("cq",), options={"rc": "vbr", "b": "0"})
            for codec in ("h264", "hevc", "av1")
        ),
        *(Encoder(f"{codec}_qsv", 17, (1, 51), ("global_quality",)) for codec in ("h264", "hevc")),
        Encoder("mjpeg", 2, (2, 31), ("qmin", "qmax")),
        Encoder("ffv1", options={"level": "3", "slicecrc": "1"}),
        Encoder("prores_ks", options={"profile": "3"}),
    )
}
_ALIASES = {
    "h264": "libx264",
    "x264": "libx264",
    "avc": "libx264",
    "h265": "libx265",
    "x265": "libx265",
    "hevc": "libx265",
    "vp9": "libvpx-vp9",
    "av1": "libsvtav1",
    "prores": "prores_ks",
}


@dataclass(frozen=True)
class Encoding:
    """How a video is encoded.

    Attributes:
        encoder: FFmpeg's name.
        pixel_format: FFmpeg's name of what the encoder gets.
        options: for the encoder.
        tag: four letters by which players know the codec in MP4; None is FFmpeg's choice.
        notes: what differs from the input and could matter.
    """

    encoder: str
    pixel_format: str
    options: dict[str, str]
    tag: str | None = None
    notes: tuple[str, ...] = ()


def choose_encoding(
    container_format: str,
    source_codec: str,
    source_format: VideoFormat,
    *,
    codec: str | None = None,
    crf: int | None = None,
    preset: str | None = None,
) -> Encoding:
    """Chooses what suits the container and the input; the user's wishes go first.

    8 bits become H.264, 10 and more HEVC (few players take H.264 with 10 bits), in WebM VP9 and
    AV1; Motion JPEG in AVI stays what it is. The chroma subsampling stays, except that H.264
    and HEVC can't hold odd sizes with it and get full chroma instead.

    Args:
        container_format: FFmpeg's name, such as ``"mp4"``.
        source_codec: FFmpeg's name of the input's codec.
        source_format: pixel format and size of the input.
        codec: an encoder, or a short name such as ``"h264"``.
        crf: quality on the encoder's own scale.
        preset: speed against size, by the encoder's own names.

    Raises:
        UsageError: no such codec, or `crf` or `preset` are none of its.
    """
    depth = max(component.bits for component in source_format.components)
    if codec is None and container_format == "webm":
        codec = "libvpx-vp9" if depth <= 8 else "libsvtav1"
    elif codec is None and container_format == "avi":
        codec = "mjpeg" if source_codec == "mjpeg" else "libx264"
    elif codec is None:
        codec = "libx264" if depth <= 8 else "libx265"
    name = _ALIASES.get(codec.lower(), codec.lower())
    try:
        is_video = Codec(name, "w").type == "video"
    except UnknownCodecError:
        is_video = False
    if not is_video:
        names = ", ".join(sorted({*_ALIASES, "mpeg4", "mjpeg", "ffv1"} - {"x264", "x265", "avc"}))
        raise UsageError("--codec", f"no video codec {name!r} here", f"give one of: {names}")
    encoder = _ENCODERS.get(name, Encoder(name))
    options = dict(encoder.options)
    if container_format == "avi":
        options["bf"] = "0"  # AVI has no room for the order in which B-frames are shown
    if name == "libsvtav1":
        os.environ.setdefault("SVT_LOG", "1")  # errors only: else it prints its settings
    if crf is not None and encoder.crf is None:
        why = "has no such scale" if name in _ENCODERS else "has a scale of its own"
        raise UsageError("--crf", f"{name} {why}", "leave it out")
    quality = encoder.crf if crf is None else crf
    if quality is not None:
        low, high = encoder.crf_range
        if not low <= quality <= high:
            raise UsageError("--crf", f"{crf} is outside {low} to {high} of {name}", "see --help")
        options |= dict.fromkeys(encoder.crf_options, str(quality))
    if preset is not None and name in _ENCODERS and preset not in encoder.presets:
        known = f"give one of: {', '.join(encoder.presets)}" if encoder.presets else "leave it out"
        raise UsageError("--preset", f"{name} has no preset {preset!r}", known)
    if chosen := preset or encoder.preset:
        options[encoder.preset_option] = chosen
    pixel_format, notes = _choose_pixel_format(
        encoder.name,
        source_format,
        depth,
        # What few players show matters more to those who make a video of an animation.
        "420" if source_codec in ("gif", "apng") else _chroma_of(source_format),
    )
    tag = "hvc1" if encoder.name == "libx265" and container_format in ("mp4", "mov") else None
    return Encoding(encoder.name, pixel_format, options, tag, notes)


def with_source_traits(encoding: Encoding, field_order: int, hdr: HdrMetadata | None) -> Encoding:
    """Adds what the encoder has to be told of the input itself.

    Args:
        encoding: as `choose_encoding` gave it.
        field_order: FFmpeg's number: 2 and 4 show the top field first, 3 and 5 the bottom one.
        hdr: of the screen that the video was mastered on.
    """
    options, notes = dict(encoding.options), list(encoding.notes)
    if field_order >= 2:
        first = "tff" if field_order in (2, 4) else "bff"
        if encoding.encoder == "libx264":
            options |= {"x264-params": f"{first}=1", "flags": "+ilme+ildct"}
        elif encoding.encoder == "mpeg2video":
            options["flags"] = "+ilme+ildct"
        else:
            notes.append(f"is interlaced, which {encoding.encoder} does not say here")
    if hdr is not None and encoding.encoder == "libx265":
        options["x265-params"] += f":hdr10=1:{hdr.for_x265()}"
    elif hdr is not None and encoding.encoder == "libsvtav1":
        options["svtav1-params"] = hdr.for_svtav1()
    elif hdr is not None:
        notes.append(f"the data of its HDR screen are left out: {encoding.encoder} holds none")
    return replace(encoding, options=options, notes=tuple(notes))


def _choose_pixel_format(
    encoder: str, source: VideoFormat, depth: int, chroma: str
) -> tuple[str, tuple[str, ...]]:
    supported = [f.name for f in Codec(encoder, "w").video_formats or ()]
    notes = []
    if len(source.components) in (2, 4) and not source.has_palette:
        notes.append("its transparency is left out")
    odd_width, odd_height = source.width % 2, source.height % 2
    if encoder in ("libx264", "libx265"):
        if (chroma == "420" and (odd_width or odd_height)) or (chroma == "422" and odd_width):
            chroma = "444"
            notes.append(
                f"its size {source.width}x{source.height} is odd: written with full chroma, "
                "which some players can't show"
            )
    elif encoder == "libsvtav1" and (odd_width or odd_height):
        raise UsageError("--codec", f"{encoder} takes even sizes only", "give --codec vp9 or h264")
    depths = [10] if 8 < depth <= 10 else [12, 10, 14, 16] if depth > 10 else []
    wanted = [f"yuv{c}p{d}le" for c in (chroma, "444", "422", "420") for d in depths]
    wanted += [f"yuv{c}p" for c in (chroma, "444", "422", "420")]
    if not depths:
        wanted += [f"yuv{c}p10le" for c in (chroma, "422", "444", "420")]
    chosen = next((f for f in wanted if f in supported), supported[0] if supported else wanted[0])
    if depths and not any(f"p{d}le" in chosen for d in (10, 12, 14, 16)):
        notes.append(f"its {depth} bits become 8: {encoder} holds no more")
    return chosen, tuple(notes)


def _chroma_of(source: VideoFormat) -> str:
    """The chroma subsampling to write: the input's, as far as encoders share it."""
    if source.has_palette or len(source.components) < 3:
        return "420"
    if source.is_rgb:
        return "444"
    across = 4 // source.chroma_width(4)
    down = 4 // source.chroma_height(4)
    return {(1, 1): "444", (2, 1): "422", (1, 2): "444"}.get((across, down), "420")


def rate_of_stream(stream: VideoStream) -> Fraction:
    """Frames per second in the mean, as far as the file says."""
    return fraction_of(stream.guessed_rate) or fraction_of(stream.average_rate) or Fraction(25)
