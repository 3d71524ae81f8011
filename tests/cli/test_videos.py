"""Videos from the command line: ``deblur clip.mp4``, ``deblur folder/ --video``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from video import as_written
from video_clips import COUNTER, TONE, brighter, decode, ffmpeg, ffprobe, needs_ffmpeg

from deblurcli.batch.plan import Job, Plan
from deblurcli.cli import run_report
from deblurcli.io.videos import restore_video

Deblur = Callable[..., Any]
MakePhoto = Callable[..., Path]

pytestmark = needs_ffmpeg


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    short = [text.replace("d=1", "d=0.4") for text in (COUNTER, TONE)]
    ffmpeg("-f", "lavfi", "-i", short[0], "-f", "lavfi", "-i", short[1], path)
    return path


def _animate(path: Path) -> None:
    frames = [Image.fromarray(np.full((16, 24, 3), 40 * n, np.uint8)) for n in range(4)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=80, loop=0)


def test_one_clip(clip: Path, tmp_path: Path, deblur: Deblur, tiny_weights: Path) -> None:
    target = tmp_path / "sharp.mkv"
    done = deblur(clip, "-o", target, "--weights", tiny_weights, "--end", "0:00.2", "--crf", "8")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    after = ffprobe(target)
    assert after.video["nb_read_frames"] == "5"
    assert after.only("audio")["codec_name"] == "aac"
    assert str(target) in done.stderr


def test_a_folder_of_photos_and_clips(
    clip: Path, tmp_path: Path, deblur_here: Deblur, make_photo: MakePhoto
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    make_photo(folder / "photo.jpg")
    (folder / "clip.mp4").write_bytes(clip.read_bytes())
    (folder / "broken.mov").write_bytes(b"no video")
    _animate(folder / "dance.gif")
    words = (folder, "-o", out, "--json")

    done = deblur_here(*words, "--video")
    assert done.returncode == 1
    jobs = {Path(job["source"]).name: job for job in json.loads(done.stdout)["jobs"]}
    assert {name: (job["kind"], job["status"]) for name, job in jobs.items()} == {
        "photo.jpg": ("photo", "done"),
        "clip.mp4": ("video", "done"),
        "dance.gif": ("animation", "done"),
        "broken.mov": ("video", "failed"),
    }
    assert sorted(p.name for p in out.iterdir()) == ["clip.mp4", "dance.gif", "photo.jpg"]
    with Image.open(out / "dance.gif") as animation:
        assert animation.n_frames == 4

    again = deblur_here(*words, "--video", "--skip-existing")
    statuses = [job["status"] for job in json.loads(again.stdout)["jobs"]]
    assert sorted(statuses) == ["failed", "skipped", "skipped", "skipped"]

    without = deblur_here(folder, "--dry-run")
    assert "clip.mp4" not in without.stdout
    assert "dance.gif" in without.stdout  # as a photo: its first frame


def test_numbered_frames_and_back(clip: Path, tmp_path: Path, deblur_here: Deblur) -> None:
    frames = tmp_path / "frames"
    done = deblur_here(clip, "--frames", "-o", frames)
    assert done.returncode == 0, done.stderr
    assert len(list(frames.iterdir())) == 10
    again = [deblur_here(clip, "--frames", "-o", frames, *more) for more in ([], ["--overwrite"])]
    assert [done.returncode for done in again] == [2, 0]
    assert "exists already" in again[0].stderr
    assert len(list(frames.iterdir())) == 10
    done = deblur_here(frames, "--video", "--fps", "20")
    assert done.returncode == 0, done.stderr
    video = ffprobe(tmp_path / "frames-sharp.mp4").video
    assert (video["nb_read_frames"], video["avg_frame_rate"]) == ("10", "20/1")


def test_a_log_hears_of_a_long_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = Job(tmp_path / "film.mp4", tmp_path / "out.mp4", "video")
    monkeypatch.setattr(run_report, "SECONDS_OF_A_LINE", 0.0)
    with run_report.RunReport(Plan(jobs=[job])) as report:
        report.show_frame(job, 30, 3000)
        report.show_frame(job, 60, None)
    told = capsys.readouterr().err
    assert f"{job.source_name}: 30 of 3000 frames, " in told
    assert "min left" in told
    assert ": 60 frames, " in told


def test_frames_as_jpeg_with_a_gap_and_a_rate_of_television(
    clip: Path, tmp_path: Path, deblur_here: Deblur
) -> None:
    frames, target = tmp_path / "frames", tmp_path / "out.mp4"
    done = deblur_here(clip, "--frames", "--format", "jpg", "-o", frames)
    assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in frames.iterdir())
    assert names == [f"frame-{n:06}.jpg" for n in range(1, 11)]
    (frames / "frame-000004.jpg").unlink()
    done = deblur_here(frames, "--video", "--fps", "24000/1001", "-o", target)
    assert done.returncode == 0, done.stderr
    assert "numbers are missing in 1 place(s), the first after frame-000003.jpg" in done.stderr
    video = ffprobe(target).video
    assert (video["nb_read_frames"], video["avg_frame_rate"]) == ("9", "24000/1001")
    done = deblur_here(clip, "--frames", "--format", "webp", "-o", tmp_path / "webp")
    assert (done.returncode, "png or jpg" in done.stderr) == (2, True)


def test_files_are_known_by_their_content_too(
    clip: Path, tmp_path: Path, deblur_here: Deblur
) -> None:
    for name in ("recording", "clip.vob", "GL01.LRV"):
        (tmp_path / name).write_bytes(clip.read_bytes())
    _animate(tmp_path / "dance.gif")
    done = deblur_here(tmp_path / "recording", "--end", "0.1")
    assert done.returncode == 0, done.stderr
    assert ffprobe(tmp_path / "recording-sharp.mp4").video["nb_read_frames"] == "3"
    done = deblur_here(tmp_path, "--video", "--dry-run")
    assert {"clip-sharp.mp4", "GL01-sharp.mp4"} <= set(done.stdout.replace("/", " ").split())
    done = deblur_here(tmp_path / "dance.gif", "-o", tmp_path / "dance.mp4", "--crf", "10")
    assert done.returncode == 0, done.stderr
    video = ffprobe(tmp_path / "dance.mp4").video
    assert (video["nb_read_frames"], video["pix_fmt"]) == ("4", "yuv420p")


def test_a_damaged_clip_is_restored_as_far_as_it_goes(
    clip: Path, tmp_path: Path, deblur_here: Deblur
) -> None:
    ffmpeg("-i", clip, "-c", "copy", "-movflags", "faststart", tmp_path / "fast.mp4")
    data = (tmp_path / "fast.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 7 // 10])
    done = deblur_here(tmp_path / "cut.mp4", "-o", tmp_path / "out.mp4")
    assert done.returncode == 1
    assert "ends after" in done.stderr
    assert "what could be decoded" in done.stderr
    assert 0 < int(ffprobe(tmp_path / "out.mp4").video["nb_read_frames"]) < 10


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--codec", "h265x"], 2, "--codec: no video codec"),
        (["--crf", "99"], 2, "--crf: 99 is outside 0 to 51 of libx264"),
        (["--start", "1:2:3:4"], 2, "not a time such as"),
        (["--fps", "25"], 2, "--fps: there is no folder of numbered frames"),
        (["--fps", "0"], 2, "0 is not at least 0.001"),
        (["--fps", "nan"], 2, "nan is not at least 0.001"),
        (["-o", "-"], 2, "a video does not fit through a pipe"),
    ],
)
def test_what_makes_no_sense_is_said_in_one_line(
    clip: Path,
    tmp_path: Path,
    deblur_here: Deblur,
    words: list[str],
    code: int,
    message: str,
) -> None:
    if "-o" not in words:
        words = [*words, "-o", str(tmp_path / "out.mp4")]
    done = deblur_here(clip, *words)
    assert done.returncode == code
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_what_one_clip_cannot_take_stops_no_batch(
    clip: Path, tmp_path: Path, deblur_here: Deblur
) -> None:
    short, odd, folder = tmp_path / "short.mp4", tmp_path / "odd.mkv", tmp_path / "out"
    ffmpeg("-i", clip, "-frames:v", 2, "-an", short)
    ffmpeg("-i", clip, "-vf", "scale=65:49", "-c:v", "ffv1", "-an", odd)
    words = ("--start", "0.2", "--codec", "av1", "--preset", "12", "-o", folder)
    done = deblur_here(short, odd, clip, *words)
    assert done.returncode == 1
    assert f"{short}: ends at 0.08 s, before --start; give less" in done.stderr
    assert f"{odd}: --codec: libsvtav1 takes even sizes only, not 65x49; give" in done.stderr
    assert [path.name for path in folder.iterdir()] == [clip.name]


def test_a_preview_restores_few_frames(clip: Path, tmp_path: Path, deblur_here: Deblur) -> None:
    page = tmp_path / "look.html"
    done = deblur_here(clip, "--preview", "3", "-o", page, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["sliders"] == 3
    text = page.read_text("utf-8")
    assert [time in text for time in ("0.04 s", "0.17 s", "0.30 s")] == [True] * 3
    assert text.count("data:image/webp") == 6
    assert list(tmp_path.iterdir()) == [page]

    assert deblur_here(clip, "--preview", "99", "-o", page).returncode == 2  # it exists
    done = deblur_here(clip, "--preview", "99", "-o", page, "--overwrite", "--json")
    assert json.loads(done.stdout)["sliders"] == 10  # there are no more
    for words in ([tmp_path], [clip, clip], [clip, "--crf", "9"]):
        done = deblur_here(*words, "--preview", "2")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr


def test_side_by_side(clip: Path, tmp_path: Path, deblur_here: Deblur) -> None:
    target = tmp_path / "both.mkv"
    assert deblur_here(clip, "-o", target, "--side-by-side").returncode == 0
    before, after = ffprobe(clip), ffprobe(target)
    width, height = before.video["width"], before.video["height"]
    assert (after.video["width"], after.video["height"]) == (2 * width, height)
    assert after.video["nb_read_frames"] == before.video["nb_read_frames"]
    assert after.only("audio")["codec_name"] == "aac"

    grey = tmp_path / "grey.mp4"
    ffmpeg("-f", "lavfi", "-i", COUNTER.replace("d=1", "d=0.4"), "-vf", "hue=s=0", grey)
    restore_video(grey, target, brighter, codec="ffv1", side_by_side=True, overwrite=True)
    left, right = np.split(decode(target, (2 * width, height), count=10), 2, axis=2)
    blurred = decode(grey, (width, height), count=10)
    assert np.array_equal(left, blurred)
    wanted = np.stack(as_written(blurred, brighter)).astype(int)
    assert np.abs(wanted - right).max() <= 2


def test_a_dry_run_says_what_a_video_takes(clip: Path, tmp_path: Path, deblur_here: Deblur) -> None:
    target = tmp_path / "sharp.mp4"
    done = deblur_here(clip, "-o", target, "--dry-run", "--json")
    estimate = json.loads(done.stdout)["jobs"][0]["estimate"]
    assert estimate["frames"] == 10
    assert estimate["seconds"] > 0
    assert not target.exists()
    assert deblur_here(clip, "-o", target).returncode == 0
    assert 0.5 < estimate["size_bytes"] / target.stat().st_size < 1.5
    done = deblur_here(clip, "-o", tmp_path / "b.mp4", "--dry-run")
    assert "MB and 0.0 min)" in done.stdout
