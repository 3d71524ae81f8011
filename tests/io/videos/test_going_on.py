"""An hour's work survives: what was restored before Ctrl-C or kill -9 is not restored again."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytest
from numpy.typing import NDArray
from video_clips import COUNTER, TONE, brighter, decode, ffmpeg, ffprobe, needs_ffmpeg, run, same

from deblurcli.cli import main
from deblurcli.errors import DeblurError
from deblurcli.io.videos import restore_frames, restore_to_frames, restore_video
from deblurcli.io.videos.segments import SegmentStore

pytestmark = needs_ffmpeg

SEGMENT, FRAMES = 40, 104
SHORT_SEGMENTS = f"""
import sys
from deblurcli.cli import main
from deblurcli.io.videos.segments import SegmentStore
SegmentStore.segment_frames = {SEGMENT}
sys.exit(main())
"""


@pytest.fixture(autouse=True)
def _short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two whole segments and a part of a third."""
    monkeypatch.setattr(SegmentStore, "segment_frames", SEGMENT)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With B-frames, sound, and a frame rate that varies."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    long = [text.replace("d=1", "d=6") for text in (COUNTER, TONE)]
    ffmpeg("-f", "lavfi", "-i", long[0], "-f", "lavfi", "-i", long[1], "-vf",
           "select='not(eq(mod(n,7),3))'", "-vsync", "vfr", "-frames:v", FRAMES, "-t", 5,
           "-pix_fmt", "yuv420p", path)  # fmt: skip
    return path


class Restorer:
    """Counts what it restores, and fails at one frame.

    What it adds differs from frame to frame, so that a frame's steadying depends on those before.
    """

    def __init__(self, failing_at: int | None = None) -> None:
        self.count, self.failing_at = 0, failing_at

    def __call__(self, pixels: NDArray[Any]) -> NDArray[Any]:
        if self.count == self.failing_at:
            raise KeyboardInterrupt
        self.count += 1
        return brighter(pixels) - np.uint8(pixels.sum() % 5)


def _packets(path: Path) -> str:
    entries = "packet=stream_index,pts,dts,duration,size,flags,data_hash"
    wanted = ("-show_entries", entries, "-show_data_hash", "md5", "-of", "csv")
    return run("ffprobe", "-v", "error", *wanted, path).decode()


@pytest.mark.parametrize(
    ("name", "codec"), [("out.mp4", None), ("out.mkv", "hevc"), ("out.avi", "mjpeg")]
)
def test_it_goes_on_and_the_file_is_the_same(
    clip: Path, tmp_path: Path, name: str, codec: str | None
) -> None:
    whole, target = tmp_path / f"whole-{name}", tmp_path / name
    options: dict[str, Any] = {"codec": codec, "preset": None if codec == "mjpeg" else "ultrafast"}
    restore_video(clip, whole, Restorer(), restored_by="weights", **options)
    first, second = Restorer(100), Restorer()  # the encoder lags by up to 8 frames
    with pytest.raises(KeyboardInterrupt):
        restore_video(clip, target, first, restored_by="weights", **options)
    assert [path.name for path in tmp_path.iterdir() if path != whole] == [f"{name}.part"]
    result = restore_video(clip, target, second, restored_by="weights", **options)
    assert result.frame_count == int(ffprobe(target).video["nb_read_frames"])
    assert second.count == result.frame_count - 2 * SEGMENT
    assert _packets(target) == _packets(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, whole.name])


def test_sound_comes_between_frames_that_were_kept(tmp_path: Path) -> None:
    """FFmpeg puts packets in order only where they come within ten seconds."""
    clip, whole, target = (tmp_path / f"{name}.mp4" for name in ("clip", "whole", "out"))
    picture, sound = COUNTER.replace("d=1", "d=3"), TONE.replace("d=1", "d=24")
    ffmpeg("-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", sound, "-vf", "setpts=8*PTS",
           "-r", "25/8", "-pix_fmt", "yuv420p", clip)  # fmt: skip
    options: dict[str, Any] = {"preset": "ultrafast", "restored_by": "weights"}
    restore_video(clip, whole, Restorer(), **options)
    with pytest.raises(KeyboardInterrupt):
        restore_video(clip, target, Restorer(60), **options)
    restore_video(clip, target, Restorer(), **options)
    assert _packets(target) == _packets(whole)


def test_numbered_frames_go_on_too(tmp_path: Path) -> None:
    sources = [tmp_path / "in" / f"{n}.png" for n in range(92)]
    sources[0].parent.mkdir()
    for path in sources:
        path.touch()

    def read(path: Path) -> NDArray[np.uint8]:
        # Texture: flat pictures that fade x264 encodes a byte longer now and then.
        return np.random.default_rng(int(path.stem)).integers(
            200, size=(96, 128, 3), dtype=np.uint8
        )

    for target, failing_at in (("whole", None), ("out", 91)):
        with suppress(KeyboardInterrupt):
            restore_frames(
                sources,
                tmp_path / f"{target}.mp4",
                Restorer(failing_at),
                read,
                restored_by="weights",
            )
    restorer = Restorer()
    restore_frames(sources, tmp_path / "out.mp4", restorer, read, restored_by="weights")
    assert restorer.count == 12
    assert _packets(tmp_path / "out.mp4") == _packets(tmp_path / "whole.mp4")


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_frames_go_on_and_are_the_same(clip: Path, tmp_path: Path, suffix: str) -> None:
    options: dict[str, Any] = {"suffix": suffix, "restored_by": "weights"}
    restore_to_frames(clip, tmp_path / "whole", Restorer(), **options)
    with pytest.raises(KeyboardInterrupt):
        restore_to_frames(clip, tmp_path / "out", Restorer(100), **options)
    assert {path.name for path in tmp_path.iterdir()} == {"whole", "out.part"}
    restorer = Restorer()
    result = restore_to_frames(clip, tmp_path / "out", restorer, **options)
    assert restorer.count == result.frame_count - 2 * SEGMENT
    whole, again = (
        {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()}
        for name in ("whole", "out")
    )
    assert len(whole) == result.frame_count
    assert whole == again
    assert {path.name for path in tmp_path.iterdir()} == {"whole", "out"}


def test_frames_of_a_killed_run_are_cleared_away(clip: Path, tmp_path: Path) -> None:
    left = tmp_path / "out.part" / "frames" / "frame-000001.png"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    with pytest.raises(KeyboardInterrupt):
        restore_to_frames(clip, tmp_path / "out", Restorer(20), restored_by="weights")
    assert not list(tmp_path.iterdir())  # a start that is too short to be kept


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, "no permission to write there"),
        (errno.ENOLCK, "can't be written (No locks available)"),
        (None, "is being written by another run"),
    ],
)
def test_why_frames_cannot_be_written_is_said(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int | None, words: str
) -> None:
    """Another run holds the lock, or the folder or its file system takes none."""

    def acquire(self: filelock.FileLock, timeout: float) -> None:
        assert number is not None
        raise OSError(number, os.strerror(number), self.lock_file)

    if number is not None:
        monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    (tmp_path / "out.part").mkdir()
    other_run = nullcontext() if number else filelock.FileLock(tmp_path / "out.part" / "lock")
    with other_run, pytest.raises(DeblurError, match=re.escape(words)):
        restore_to_frames(clip, tmp_path / "out", same, end=0.1)
    assert not (tmp_path / "out").exists()


def test_what_a_killed_run_left_beside_the_target_of_a_link_goes(
    clip: Path, tmp_path: Path
) -> None:
    target, link = tmp_path / "disk" / "film.mp4", tmp_path / "out.mp4"
    target.parent.mkdir()
    (tmp_path / "disk" / "film.mp4.4711-0.part").write_bytes(b"half")
    link.symlink_to(target)
    restore_video(clip, link, same, end=0.1, overwrite=True, restored_by="weights")
    assert [path.name for path in target.parent.iterdir()] == ["film.mp4"]
    assert {path.name for path in tmp_path.iterdir()} == {"disk", "out.mp4"} and link.is_symlink()


def test_frames_replace_the_folder_that_a_link_points_to(clip: Path, tmp_path: Path) -> None:
    folder, link = tmp_path / "disk" / "frames", tmp_path / "out"
    folder.mkdir(parents=True)
    (folder / "frame-000099.png").write_bytes(b"old")
    link.symlink_to(folder)
    restore_to_frames(clip, link, same, end=0.1, overwrite=True)
    assert link.is_symlink() and not (link / "frame-000099.png").exists()
    assert (link / "frame-000001.png").exists() and list(folder.parent.iterdir()) == [folder]


def test_the_pictures_are_right_across_segments(clip: Path, tmp_path: Path) -> None:
    restore_video(clip, tmp_path / "out.mp4", brighter, crf=8, preset="veryfast")
    before, after = (decode(p, (160, 120), count=FRAMES) for p in (clip, tmp_path / "out.mp4"))
    assert len(before) == len(after)
    for old, new in zip(before, after, strict=True):
        assert np.abs(brighter(old).astype(int) - new).mean() < 4


def test_what_stands_still_does_so_across_segments(tmp_path: Path) -> None:
    """The streak is there in every third frame, and at the first of the second segment."""
    ffmpeg("-f", "lavfi", "-i", "smptebars=size=160x120:rate=25", "-frames:v", 60,
           "-pix_fmt", "yuv420p", tmp_path / "still.mp4")  # fmt: skip
    count = iter(range(60))

    def restless(pixels: NDArray[Any]) -> NDArray[Any]:
        restored = pixels.copy()
        if next(count) % 3 == 1:
            restored[40:48] = np.maximum(restored[40:48], 40) - 40
        return restored

    restore_video(tmp_path / "still.mp4", tmp_path / "out.mp4", restless, crf=4, preset="veryfast")
    frames = np.asarray(decode(tmp_path / "out.mp4", (160, 120), count=60), float)[:, 40:48]
    jumps = np.abs(np.diff(frames, axis=0)).mean((1, 2, 3))
    assert jumps[SEGMENT - 1] < 10 and jumps[20:].max() < 10


@pytest.mark.parametrize("change", ["input", "weights", "crf"])
def test_another_input_or_setting_begins_anew(
    clip: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, change: str
) -> None:
    source, target = tmp_path / "in.mp4", tmp_path / "out.mp4"
    source.write_bytes(clip.read_bytes())
    with pytest.raises(KeyboardInterrupt):
        restore_video(source, target, Restorer(60), restored_by="a", preset="ultrafast")
    if change == "input":
        os.utime(source, (1, 1))
    again = Restorer()
    weights, crf = ("b" if change == "weights" else "a"), (30 if change == "crf" else None)
    result = restore_video(source, target, again, restored_by=weights, crf=crf, preset="ultrafast")
    assert again.count == result.frame_count
    assert "begins anew" in caplog.text


def test_without_a_name_for_the_work_nothing_is_kept(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        restore_video(clip, tmp_path / "out.mp4", Restorer(60), preset="ultrafast")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="no such signals there")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP, signal.SIGINT])
def test_the_same_command_goes_on_after_any_signal(
    clip: Path,
    tmp_path: Path,
    tiny_weights: Path,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
) -> None:
    source, target = tmp_path / "in" / "small.mp4", tmp_path / "out.mp4"
    source.parent.mkdir()
    ffmpeg("-i", clip, "-vf", "scale=64:48", "-vsync", "passthrough", "-c:a", "copy", source)
    words = [str(source), "-o", str(target), "--weights", str(tiny_weights)]
    words += ["--preset", "ultrafast", "--precision", "fp32"]
    command = [sys.executable, "-c", SHORT_SEGMENTS, *words]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as running:
        while not (tmp_path / "out.mp4.part" / "segment-000000").exists():
            assert running.poll() is None
            time.sleep(0.01)
        running.send_signal(number)
    assert not target.exists()
    assert main(words) == 0
    assert "goes on after" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out.mp4"]
    assert ffprobe(target).video["nb_read_frames"] == ffprobe(source).video["nb_read_frames"]
