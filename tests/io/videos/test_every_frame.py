"""No frame is lost, none is grey, none is in the wrong place: judged by ffmpeg and ffprobe."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from video_clips import (
    COUNTER,
    TONE,
    decode,
    ffmpeg,
    ffprobe,
    needs_ffmpeg,
    packet_times,
    run,
    same,
)

from deblurcli.io.videos import restore_video

pytestmark = needs_ffmpeg

LONG = tuple(text.replace("d=1", "d=3") for text in (COUNTER, TONE))


def _make(path: Path, *options: object, video: str = LONG[0], sound: bool = True) -> Path:
    tone = ("-f", "lavfi", "-i", LONG[1]) if sound else ()
    ffmpeg("-f", "lavfi", "-i", video, *tone, "-pix_fmt", "yuv420p", *options, path)
    return path


def _numbers(frames: NDArray[np.uint8], among: NDArray[np.uint8]) -> list[int]:
    """Which of the frames `among` each is; -1 where it is none, being grey or damaged."""
    few, whole = (clip[:, ::5, ::5].astype(np.int16) for clip in (frames, among))
    differences = np.stack([np.abs(whole - frame).mean((1, 2, 3)) for frame in few])
    return [int(d.argmin()) if d.min() < 5 else -1 for d in differences]


def test_the_last_frames_come_out_where_sound_is_the_first_stream(tmp_path: Path) -> None:
    source = _make(tmp_path / "in.mp4", "-map", "1:a", "-map", "0:v", "-bf", 3, "-t", "0.2")
    result = restore_video(source, tmp_path / "out.mp4", same)
    assert result.frame_count == 5
    assert ffprobe(tmp_path / "out.mp4").video["nb_read_frames"] == "5"


@pytest.mark.parametrize("count", [1, 2])
def test_a_clip_shorter_than_what_its_encoder_reorders(tmp_path: Path, count: int) -> None:
    """libx265 then gives times of decoding at random."""
    source = _make(tmp_path / "in.mp4", "-frames:v", count, sound=False)
    for number in range(3):
        target = tmp_path / f"{number}.mp4"
        restore_video(source, target, same, codec="hevc")
        assert ffprobe(target).video["nb_read_frames"] == str(count)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.ts", ("-c:v", "libx264", "-g", 25, "-bf", 2)),
        ("open.m2ts", ("-c:v", "libx264", "-g", 25, "-bf", 2, "-x264-params", "open-gop=1")),
        ("refresh.ts", ("-c:v", "libx264", "-x264-params", "intra-refresh=1:keyint=50")),
        ("a.mpg", ("-c:v", "mpeg2video", "-g", 15, "-bf", 2, "-q:v", 2, "-c:a", "mp2")),
        ("a.mkv", ("-c:v", "libx264", "-g", 25, "-bf", 2)),
        ("a.mp4", ("-c:v", "mpeg4", "-g", 250, "-q:v", 2)),
    ],
)
def test_a_part_begins_with_its_first_frame(
    tmp_path: Path, name: str, options: tuple[object, ...]
) -> None:
    source, target = _make(tmp_path / name, *options), tmp_path / "out.mkv"
    whole = decode(source, (160, 120), count=75)
    told = ffprobe(source)
    lead = float(told.video["start_time"]) - float(told.format["start_time"])
    for start in (0.0, 0.5, 1.52, 2.9):
        result = restore_video(
            source, target, same, start=start, crf=8, preset="ultrafast", overwrite=True
        )
        first = max(0, int(np.ceil(round((start - lead) * 25, 3))))
        assert result.frame_count == 75 - first
        assert _numbers(decode(target, (160, 120), count=75), whole) == list(range(first, 75))
        assert packet_times(target, "v")[0] < 0.045
        assert packet_times(target, "a")[0] < 0.045
        assert result.damage == ()


@pytest.mark.parametrize(("start", "end", "count"), [(0, None, 60), (1, None, 30), (None, 1, 30)])
def test_a_beginning_between_two_microseconds(
    tmp_path: Path, start: float | None, end: float | None, count: int
) -> None:
    video = COUNTER.replace("r=25:d=1", "r=30000/1001:d=2")
    ffmpeg("-f", "lavfi", "-i", video, "-c:v", "mpeg2video", "-bf", 2, tmp_path / "in.mpg")
    result = restore_video(tmp_path / "in.mpg", tmp_path / "out.mkv", same, start=start, end=end)
    assert result.frame_count == count


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_parts_of_avi_with_frames_out_of_order(tmp_path: Path, codec: str) -> None:
    """AVI says no times: the frames are those of the whole, counted from its beginning."""
    source = _make(tmp_path / "in.avi", "-c:v", codec, "-g", 25, "-bf", 2, "-q:v", 2)
    restore_video(source, tmp_path / "whole.mkv", same, crf=8, preset="ultrafast")
    whole = decode(tmp_path / "whole.mkv", (160, 120), count=75)
    result = restore_video(source, tmp_path / "part.mkv", same, start=1, crf=8, preset="ultrafast")
    assert result.frame_count == 50
    frames = decode(tmp_path / "part.mkv", (160, 120), count=50)
    assert _numbers(frames, whole) == list(range(25, 75))


def test_another_size_in_the_middle_is_said(tmp_path: Path) -> None:
    data = b""
    for number, size in enumerate(("160x120", "192x144")):
        video = COUNTER.replace("160x120", size)
        clip = _make(tmp_path / f"{size}.ts", "-output_ts_offset", number, video=video, sound=False)
        data += clip.read_bytes()
    (tmp_path / "in.ts").write_bytes(data)
    result = restore_video(tmp_path / "in.ts", tmp_path / "out.mp4", same)
    before, after = ffprobe(tmp_path / "in.ts").video, ffprobe(tmp_path / "out.mp4").video
    assert (after["width"], after["height"]) == (160, 120)
    assert after["nb_read_frames"] == before["nb_read_frames"]
    assert [note for note in result.notes if "changes to 192x144 at frame 2" in note]


def _luma(path: Path) -> NDArray[np.int32]:
    words = ("-v", "error", "-i", path, "-f", "rawvideo", "-pix_fmt", "yuv420p", "-")
    done = subprocess.run(["ffmpeg", *map(str, words)], check=True, capture_output=True)
    return np.frombuffer(done.stdout[: 160 * 120], np.uint8).astype(np.int32)


@pytest.mark.parametrize(("darkest", "brightest"), [(16, 254), (1, 200)])
def test_what_rgb_cannot_hold_comes_back(tmp_path: Path, darkest: int, brightest: int) -> None:
    """Cameras record highlights above 235, and shadows below 16: they stay so."""
    source = tmp_path / "in.mp4"
    luma = f"{darkest}+X*{(brightest - darkest) / 159}"
    ramp = f"color=gray:s=160x120:r=5:d=0.4,format=yuv420p,geq=lum='{luma}':cb=128:cr=128"
    ffmpeg("-f", "lavfi", "-i", ramp, "-c:v", "libx264", "-crf", 1, "-color_range", "tv", source)
    restore_video(source, tmp_path / "out.mp4", same, crf=1)
    assert np.abs(_luma(tmp_path / "out.mp4") - _luma(source)).max() <= 3

    def darker(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.maximum(pixels, 55) - np.uint8(55)

    restore_video(source, tmp_path / "dark.mp4", darker, crf=1)
    # What was restored counts: 55 levels of RGB are 47 of luma.
    assert abs(brightest - 47 - int(_luma(tmp_path / "dark.mp4").max())) < 8


def test_colours_stay_in_place_beside_their_restoration(tmp_path: Path) -> None:
    """Colour has half the resolution: read and written at other places it would move."""
    soft = LONG[0] + ",boxblur=10,eq=saturation=0.5"
    source, target = _make(tmp_path / "in.mp4", video=soft, sound=False), tmp_path / "out.mkv"
    restore_video(source, target, same, codec="ffv1", side_by_side=True, end=0.2)
    words = ("-frames:v", "1", "-vf", "format=yuv420p,extractplanes=v", "-f", "rawvideo", "-")
    before, after = (
        np.frombuffer(run("ffmpeg", "-v", "error", "-i", path, *words), np.uint8).reshape(60, -1)
        for path in (source, target)
    )
    for half in (after[:, :80], after[:, 80:]):
        # The middle seam has other neighbours.
        assert np.abs(half[:, 4:-4].astype(int) - before[:, 4:-4]).mean() < 0.1
