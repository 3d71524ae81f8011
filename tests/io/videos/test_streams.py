"""What lies beside the pictures comes along, or its loss is said: ffprobe judges."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import pytest
from av.video.codeccontext import VideoCodecContext
from video_clips import (
    COUNTER,
    TONE,
    brighter,
    decode,
    ffmpeg,
    ffprobe,
    needs_ffmpeg,
    packet_times,
    run,
    same,
)

from deblurcli.errors import UsageError
from deblurcli.io.videos import restore_video
from deblurcli.io.videos.writing import advance_timecode

pytestmark = needs_ffmpeg

SUBTITLES = """1
00:00:00,100 --> 00:00:00,400
One <i>two</i>

2
00:00:00,500 --> 00:00:00,900
Three

"""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    ffmpeg("-f", "lavfi", "-i", COUNTER, "-f", "lavfi", "-i", TONE, "-pix_fmt", "yuv420p", path)
    return path


@pytest.mark.parametrize(
    ("name", "codec", "target_name", "becomes"),
    [
        ("in.mp4", "mov_text", "out.mkv", "subrip"),
        ("in.mkv", "srt", "out.mp4", "mov_text"),
        ("in.mkv", "ass", "out.mov", "mov_text"),
        ("in.mkv", "srt", "out.webm", "webvtt"),
    ],
)
def test_subtitles_of_text_become_what_the_container_holds(
    clip: Path, tmp_path: Path, name: str, codec: str, target_name: str, becomes: str
) -> None:
    (tmp_path / "s.srt").write_text(SUBTITLES)
    ffmpeg("-i", clip, "-i", tmp_path / "s.srt", "-map", 0, "-map", 1, "-c", "copy",
           "-c:s", codec, "-metadata:s:s:0", "language=ger", tmp_path / name)  # fmt: skip
    target = tmp_path / target_name
    result = restore_video(tmp_path / name, target, same, preset=None)
    stream = ffprobe(target).only("subtitle")
    assert stream["codec_name"] == becomes
    assert stream["tags"]["language"] == "ger"
    assert any("encoded again" in note for note in result.notes)
    words = ("ffmpeg", "-v", "error", "-i", target, "-map", "0:s", "-f", "srt", "-")
    assert [line for line in run(*words).decode().splitlines() if "-->" not in line] == [
        line for line in SUBTITLES.splitlines() if "-->" not in line
    ]
    shown = [packet_times(target, "s")[n] - packet_times(target, "v")[0] for n in (-2, -1)]
    if target.suffix in (".mp4", ".mov"):  # where empty ones stand for the times between
        shown[0] = packet_times(target, "s")[1] - packet_times(target, "v")[0]
    assert shown == pytest.approx([0.1, 0.5], abs=0.03)


def test_hdr10_reaches_the_encoder(tmp_path: Path) -> None:
    source = tmp_path / "in.mp4"
    display = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"
    wide = "colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc:hdr10=1"
    ffmpeg(
        *("-f", "lavfi", "-i", "testsrc2=s=256x144:r=5:d=0.6,format=yuv420p10le"),
        *("-c:v", "libx265", "-color_primaries", "bt2020", "-color_trc", "smpte2084"),
        *("-colorspace", "bt2020nc", "-x265-params"),
        f"log-level=error:{wide}:master-display={display}:max-cll=1000,400",
        source,
    )

    def light(path: Path) -> list[str]:
        wanted = ("-select_streams", "v", "-show_frames", "-read_intervals", "%+#1")
        lines = run("ffprobe", "-v", "error", *wanted, path).decode().splitlines()
        names = ("red_x", "green_y", "white_point_x", "max_lum", "min_lum", "max_c", "max_a")
        return [line for line in lines if line.startswith(names)]

    assert len(light(source)) == 7
    result = restore_video(source, tmp_path / "hevc.mp4", same)
    assert light(tmp_path / "hevc.mp4") == light(source)
    assert result.notes == ()
    restore_video(source, tmp_path / "av1.mp4", same, codec="av1")
    assert len(light(tmp_path / "av1.mp4")) == 7  # in steps of AV1's own
    result = restore_video(source, tmp_path / "vp9.mp4", same, codec="vp9")
    assert any("HDR screen" in note for note in result.notes)


@pytest.mark.skipif(
    not hasattr(VideoCodecContext, "field_order"), reason="PyAV before 18 knows no field order"
)
@pytest.mark.parametrize("first", ["tt", "bb"])
def test_interlaced_video_stays_marked(clip: Path, tmp_path: Path, first: str) -> None:
    order = "tff" if first == "tt" else "bff"
    ffmpeg("-i", clip, "-flags", "+ilme+ildct", "-x264-params", f"{order}=1", "-t", "0.4",
           tmp_path / "in.mp4")  # fmt: skip
    before = ffprobe(tmp_path / "in.mp4").video["field_order"]
    restore_video(tmp_path / "in.mp4", tmp_path / "out.mp4", same)
    assert ffprobe(tmp_path / "out.mp4").video["field_order"] == before != "progressive"
    result = restore_video(tmp_path / "in.mp4", tmp_path / "out.webm", same)
    assert any("interlaced, which" in note for note in result.notes)


def test_a_second_video_and_transparency_are_said(clip: Path, tmp_path: Path) -> None:
    ffmpeg("-i", clip, "-map", "0:v", "-map", "0:v", "-c", "copy", tmp_path / "two.mkv")
    result = restore_video(tmp_path / "two.mkv", tmp_path / "out.mkv", same)
    assert [note for note in result.notes if note.startswith("video stream 1")]
    ffmpeg("-f", "lavfi", "-i", "color=red@0.5:s=64x48:r=5:d=0.4,format=yuva420p", "-c:v",
           "libvpx-vp9", tmp_path / "alpha.webm")  # fmt: skip
    result = restore_video(tmp_path / "alpha.webm", tmp_path / "out.webm", same)
    assert "its transparency is left out" in result.notes


def test_what_broadcast_streams_have_no_type_for_is_said(clip: Path, tmp_path: Path) -> None:
    blank = struct.pack(">HHBHBBBB", 160, 120, 16, 0, 0, 0, 0, 0)  # Blu-ray's empty picture
    pieces = ((0x16, blank), (0x80, b""))
    head = b"PG" + struct.pack(">II", 9000, 0)
    sup = b"".join(head + struct.pack(">BH", kind, len(body)) + body for kind, body in pieces)
    (tmp_path / "text.sup").write_bytes(sup)
    ffmpeg("-i", clip, "-i", tmp_path / "text.sup", "-map", "0:v", "-map", "0:a", "-map", "1",
           "-c:v", "copy", "-c:s", "copy", "-strict", -2, "-c:a", "truehd",
           tmp_path / "in.mkv")  # fmt: skip
    notes = restore_video(tmp_path / "in.mkv", tmp_path / "out.mts", same).notes
    assert [stream["codec_name"] for stream in ffprobe(tmp_path / "out.mts").streams] == [
        "h264",
        "aac",
    ]
    assert any("(truehd) encoded again" in note for note in notes)
    assert any("(hdmv_pgs_subtitle) left out" in note for note in notes)


def test_the_time_code_moves_with_the_start(tmp_path: Path) -> None:
    source, target = tmp_path / "in.mov", tmp_path / "out.mov"
    ffmpeg("-f", "lavfi", "-i", COUNTER, "-timecode", "01:00:59:20", "-pix_fmt", "yuv420p", source)
    restore_video(source, target, same, start=0.4)
    assert {s["tags"]["timecode"] for s in ffprobe(target).streams} == {"01:01:00:05"}


@pytest.mark.parametrize(
    ("timecode", "frames", "later"),
    [
        ("00:00:59;28", 1, "00:00:59;29"),
        ("00:00:59;28", 2, "00:01:00;02"),
        ("00:09:59;29", 1, "00:10:00;00"),
        ("00:00:00;00", 17982, "00:10:00;00"),
        ("23:59:59:29", 1, "00:00:00:00"),
        ("no code", 5, "no code"),
    ],
)
def test_time_codes_that_drop_numbers(timecode: str, frames: int, later: str) -> None:
    fps = Fraction(30_000, 1001)
    assert advance_timecode(timecode, frames / fps, fps) == later


@pytest.mark.parametrize(
    ("name", "codec"),
    [("out.ts", "mpeg2video"), ("out.mkv", "mpeg1video"), ("out.webm", "libvpx")],
)
def test_crf_counts_for_older_codecs_too(clip: Path, tmp_path: Path, name: str, codec: str) -> None:
    sizes = []
    for crf in (None, 30):
        restore_video(clip, tmp_path / name, brighter, codec=codec, crf=crf, overwrite=True)
        sizes.append((tmp_path / name).stat().st_size)
    assert sizes[0] > 1.3 * sizes[1]
    assert len(decode(tmp_path / name, (160, 120), count=25)) == 25


def test_crf_that_an_encoder_would_ignore_is_refused(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a scale of its own"):
        restore_video(clip, tmp_path / "out.avi", same, codec="huffyuv", crf=10)
