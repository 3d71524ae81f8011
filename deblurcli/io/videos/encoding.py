"""Which codec, quality and pixel format a video is written with."""

import re
import struct
from dataclasses import dataclass, field, replace

import numpy as np
from av import Codec, VideoFormat
from av.codec.codec import UnknownCodecError, find_best_pix_fmt_of_list

from deblurcli.errors import DeblurError, UsageError
from deblurcli.io.options import ClipOptions
from deblurcli.io.videos.reading import VideoReader

_X26_PRESETS = (
    *("ultrafast", "superfast", "veryfast", "faster", "fast"),
    *("medium", "slow", "slower", "veryslow", "placebo"),
)
_ALIASES = {
    **dict.fromkeys(("h264", "x264", "avc"), "libx264"),
    **dict.fromkeys(("h265", "x265", "hevc"), "libx265"),
    **{"vp9": "libvpx-vp9", "av1": "libsvtav1", "prores": "prores_ks"},
}
# These write the shape of pixels into their own data; MP4 and MOV have a place for it beside
# them, Matroska too, but PyAV can't fill that one.
_ASPECT_HOLDERS = ("libx264", "libx265", "mpeg4", "mjpeg", "mpeg2video")
_LEFT_OUT = {
    "SPHERICAL": "its 360° projection is left out: players show it flat",
    "STEREO3D": "its layout of two eyes is left out: players show it flat",
    "DOVI_METADATA": "Dolby Vision is left out: players show its HDR10 or SDR picture",
    "DYNAMIC_HDR_PLUS": "HDR10+ is left out: players show its HDR10 picture",
}
"""What a frame may carry that no output of ours does."""


@dataclass(frozen=True)
class Encoder:
    """An encoder by FFmpeg's name, and our choice of quality and speed on its scales."""

    name: str
    crf: int | None = None  # quality, smaller is better; None where there is no scale
    crf_range: tuple[int, int] = (0, 51)  # the ends of the scale
    options: dict[str, str] = field(default_factory=dict)  # always given
    preset: str | None = None  # speed; None where there is no choice
    presets: tuple[str, ...] = ()  # what may be chosen
    crf_options: tuple[str, ...] = ("crf",)  # names of the options that take quality
    preset_option: str = "preset"  # and speed


_QUANTIZER = ("qmin", "qmax")
_VP9 = {"b": "0", "deadline": "good", "row-mt": "1"}
_ENCODERS = {
    encoder.name: encoder
    for encoder in (
        Encoder("libx264", 16, (0, 51), {}, "medium", _X26_PRESETS),
        Encoder("libx265", 18, (0, 51), {"x265-params": "log-level=error"}, "fast", _X26_PRESETS),
        Encoder("libvpx-vp9", 22, (0, 63), _VP9, "4", tuple("012345678"), preset_option="cpu-used"),
        Encoder("libsvtav1", 20, (0, 63), {}, "8", tuple(str(n) for n in range(14))),
        # VP8 aims at a rate all the same: one that is never reached leaves the quality to crf.
        Encoder("libvpx", 6, (4, 63), {"b": "100M", "deadline": "good", "cpu-used": "2"}),
        Encoder("mpeg4", 2, (1, 31), crf_options=_QUANTIZER),
        Encoder("mpeg2video", 2, (1, 31), {"b": "100M"}, crf_options=_QUANTIZER),
        Encoder("mpeg1video", 2, (1, 31), {"b": "100M"}, crf_options=_QUANTIZER),
        *(
            Encoder(f"{codec}_nvenc", 17, options={"rc": "vbr", "b": "0"}, crf_options=("cq",))
            for codec in ("h264", "hevc", "av1")
        ),
        Encoder("h264_qsv", 17, (1, 51), crf_options=("global_quality",)),
        Encoder("hevc_qsv", 17, (1, 51), crf_options=("global_quality",)),
        Encoder("mjpeg", 2, (2, 31), crf_options=_QUANTIZER),
        Encoder("ffv1", options={"level": "3", "slicecrc": "1"}),
        Encoder("prores_ks", options={"profile": "3"}),
    )
}


@dataclass(frozen=True)
class Encoding:
    """How a video is encoded, in FFmpeg's names."""

    container: str
    encoder: str
    pixel_format: str
    options: dict[str, str]  # for the encoder
    container_options: dict[str, str]  # for what writes the file
    tag: str | None = None  # letters by which players know the codec in MP4; None: as FFmpeg has it
    notes: tuple[str, ...] = ()  # what differs from the input and could matter

    def with_traits_of(self, reader: VideoReader, any_tag: bool) -> "Encoding":
        """Adds what has to be told of the input, once its first frame is read; with `any_tag`,
        MP4 takes tags of any name, where not all players look for them."""
        stream, side_data = reader.stream, reader.side_data
        options, notes, flags = dict(self.options), list(self.notes), dict(self.container_options)
        if any_tag:
            flags["movflags"] += "+use_metadata_tags"
        # 2 and 4 show the top field first. PyAV 17.1 does not know it: there it is not marked.
        field_order = getattr(stream.codec_context, "field_order", 0)
        if field_order >= 2:
            order = "tff" if field_order in (2, 4) else "bff"
            if self.encoder == "libx264":
                options |= {"x264-params": f"{order}=1", "flags": "+ilme+ildct"}
            elif self.encoder == "mpeg2video":
                options["flags"] = "+ilme+ildct"
            else:
                notes.append(f"is interlaced, which {self.encoder} does not say here")
        # The screen that a video was mastered on (SMPTE ST 2086), and its light (CTA-861.3).
        data = side_data.get("MASTERING_DISPLAY_METADATA", bytes(88))
        screen = np.frombuffer(data, np.int32)[:22]
        has_screen = all(screen[20:]) and all(screen[1:20:2])
        if has_screen and self.encoder in ("libx265", "libsvtav1"):
            values = screen[:20:2] / screen[1:20:2]
            level = side_data.get("CONTENT_LIGHT_LEVEL")
            light = "" if level is None else "{},{}".format(*struct.unpack_from("=2I", level))
            form = "G({2},{3})B({4},{5})R({0},{1})WP({6},{7})L({9},{8})"
            if self.encoder == "libx265":  # in steps of 0.00002, and of 0.0001 candela
                steps = np.rint(values * ([50_000] * 8 + [10_000] * 2)).astype(int).tolist()
                params = f":hdr10=1:master-display={form.format(*steps)}"
                options["x265-params"] += params + (f":max-cll={light}" if light else "")
            else:
                params = f"mastering-display={form.format(*values.tolist())}"
                options["svtav1-params"] = params + (f":content-light={light}" if light else "")
        elif has_screen:
            notes.append(f"the data of its HDR screen are left out: {self.encoder} holds none")
        notes += [words for kind, words in _LEFT_OUT.items() if kind in side_data]
        holds_aspect = self.container in ("mp4", "mov") or self.encoder in _ASPECT_HOLDERS
        if reader.aspect not in (None, 1) and not holds_aspect:
            notes.append(
                f"its pixels are {reader.aspect} as wide as high, which {self.encoder} "
                f"in {self.container} can't say here: .mp4 would"
            )
        return replace(self, options=options, notes=tuple(notes), container_options=flags)


def choose_encoding(
    container_format: str, source_codec: str, source_format: VideoFormat, options: ClipOptions
) -> Encoding:
    """Chooses what suits the container and the input, by FFmpeg's names and the input's pixel
    format and size; the user's wishes go first.

    8 bits become H.264, 10 and more HEVC (few players take H.264 with 10 bits), in WebM VP9 and
    AV1; Motion JPEG in AVI stays what it is. The chroma subsampling stays, except that H.264 and
    HEVC can't hold odd sizes with it and get full chroma instead.

    Raises UsageError for no such codec, or where `crf` or `preset` are none of its, DeblurError
    where the codec can't take that size.
    """
    codec, crf = options.codec, options.crf
    is_deep = any(component.bits > 8 for component in source_format.components)
    if codec is None and container_format == "webm":
        codec = "libsvtav1" if is_deep else "libvpx-vp9"
    elif codec is None and container_format == "avi":
        codec = "mjpeg" if source_codec == "mjpeg" else "libx264"
    elif codec is None:
        codec = "libx265" if is_deep else "libx264"
    name = _ALIASES.get(codec.lower(), codec.lower())
    try:
        found = Codec(name, "w")
    except UnknownCodecError:
        found = None
    if found is None or found.type != "video":
        names = ", ".join(sorted({*_ALIASES, "mpeg4", "mjpeg", "ffv1"} - {"x264", "x265", "avc"}))
        raise UsageError("--codec", f"no video codec {name!r} here", f"give one of: {names}")
    encoder = _ENCODERS.get(name, Encoder(name))
    settings, container_options = dict(encoder.options), {}
    if container_format == "avi":
        settings["bf"] = "0"  # AVI has no room for the order in which B-frames are shown
        # Its times are frame numbers: shifting all by the lead of an audio codec, as is done
        # elsewhere, would be a frame too many.
        container_options["avoid_negative_ts"] = "disabled"
    elif container_format in ("mp4", "mov"):
        # The table of frames first, so that players can start before they have the whole file.
        container_options["movflags"] = "+faststart"
    if crf is not None and encoder.crf is None:
        why = "has no such scale" if name in _ENCODERS else "has a scale of its own"
        raise UsageError("--crf", f"{name} {why}", "leave it out")
    quality = encoder.crf if crf is None else crf
    if quality is not None:
        low, high = encoder.crf_range
        if not low <= quality <= high:
            raise UsageError("--crf", f"{crf} is outside {low} to {high} of {name}", "see --help")
        settings |= dict.fromkeys(encoder.crf_options, str(quality))
    preset = options.preset or encoder.preset
    if options.preset is not None and name in _ENCODERS and preset not in encoder.presets:
        known = f"give one of: {', '.join(encoder.presets)}" if encoder.presets else "leave it out"
        raise UsageError("--preset", f"{name} has no preset {preset!r}", known)
    if preset:
        settings[encoder.preset_option] = preset
    pixel_format, notes = _choose_pixel_format(found, source_format, source_codec)
    tag = "hvc1" if name == "libx265" and container_format in ("mp4", "mov") else None
    return Encoding(
        container_format, name, pixel_format, settings, container_options, tag, tuple(notes)
    )


def _choose_pixel_format(
    encoder: Codec, source: VideoFormat, source_codec: str
) -> tuple[str, list[str]]:
    """The planar YUV format nearest to `source` that `encoder` takes, and what is lost by it."""
    depth = max(component.bits for component in source.components)
    wanted = source.name
    # What few players show matters more to those who make a video of an animation.
    if source_codec in ("gif", "apng") or source.has_palette or len(source.components) < 3:
        wanted = "yuv420p" if depth <= 8 else "yuv420p10le" if depth <= 10 else "yuv420p12le"
    supported = [f.name for f in encoder.video_formats or ()] or ["yuv420p"]
    planar = [name for name in supported if re.fullmatch(r"yuv4\d\dp(1[024]le)?", name)]
    if wanted == source.name and ("444" in wanted or source.is_rgb):
        # With no 4:4:4 to choose, FFmpeg would take 4:2:0 even where there is 4:2:2.
        planar = [name for name in planar if "444" in name or "422" in name] or planar
    chosen = find_best_pix_fmt_of_list(planar or supported, wanted)[0]
    assert chosen is not None  # as the list is not empty
    name, notes = chosen.name, []
    size, is_odd = f"{source.width}x{source.height}", source.width % 2 or source.height % 2
    if encoder.name in ("libx264", "libx265"):
        if ("420" in name and is_odd) or ("422" in name and source.width % 2):
            name = name.replace("420", "444").replace("422", "444")
            notes.append(
                f"its size {size} is odd: written with full chroma, which some players can't show"
            )
    elif encoder.name == "libsvtav1" and is_odd:
        reason = f"{encoder.name} takes even sizes only, not {size}"
        raise DeblurError("--codec", reason, "give --codec vp9 or h264")
    if depth > 8 and chosen.components[0].bits == 8:
        notes.append(f"its {depth} bits become 8: {encoder.name} holds no more")
    return name, notes
