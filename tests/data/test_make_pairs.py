"""``deblur data frames`` and ``deblur data synth``: pairs from clips and from photos."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import imagecodecs
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from deblurcli.cli import main
from deblurcli.data.layouts import check_pairs, find_pairs
from deblurcli.data.make_pairs import photo_blurring
from deblurcli.data.make_pairs.clips import Frame, find_clips
from deblurcli.data.make_pairs.frame_averaging import Average, Averaging, average_frames
from deblurcli.data.make_pairs.pair_folder import PairFolder
from deblurcli.data.make_pairs.photo_blurring import (
    Blurring,
    blur_photo,
    find_photos,
    pair_names,
)
from deblurcli.errors import DeblurError, NothingToDoError, UsageError

Pixels = NDArray[Any]
Deblur = Callable[..., "subprocess.CompletedProcess[str]"]
CPU = torch.device("cpu")


def clip_of(arrays: Sequence[Pixels], breaks: Sequence[int] = ()) -> list[Frame]:
    return [Frame(pixels, index not in breaks) for index, pixels in enumerate(arrays)]


def noise(count: int, dtype: type = np.uint8, seed: int = 0) -> list[Pixels]:
    rng = np.random.default_rng(seed)
    top = np.iinfo(dtype).max
    return [rng.integers(0, top, (6, 5, 3), dtype, endpoint=True) for _ in range(count)]


def averages(frames: Sequence[Frame], **changes: Any) -> list[Average]:
    return list(average_frames(frames, Averaging(**changes), "clip"))


# Averaging


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_averages_are_those_of_the_paper(dtype: type) -> None:
    """Against the formula in double precision, with the middle frame as the sharp one."""
    frames = noise(60, dtype)
    top = np.iinfo(dtype).max
    pairs = averages(clip_of(frames))
    assert len(pairs) >= 4
    for pair in pairs:
        part = np.stack(frames[pair.first_frame : pair.first_frame + pair.frame_count]) / top
        linear = part.mean(axis=0) * 255
        gamma = (part**2.2).mean(axis=0) ** (1 / 2.2) * 255
        middle = part[pair.frame_count // 2] * 255
        # Rounded once: never more than half a level away.
        assert np.abs(pair.pictures["blur"] - linear).max() <= 0.5001
        assert np.abs(pair.pictures["blur_gamma"] - gamma).max() <= 0.501
        assert np.abs(pair.pictures["sharp"] - middle).max() <= 0.5001
        assert {p.dtype.name for p in pair.pictures.values()} == {"uint8"}


@settings(max_examples=40, deadline=None)
@given(
    fewest=st.integers(1, 12),
    spread=st.integers(1, 8),
    length=st.integers(0, 60),
    seed=st.integers(0, 1000),
)
def test_windows_follow_each_other(fewest: int, spread: int, length: int, seed: int) -> None:
    frames = clip_of([np.full((2, 2, 3), n, np.uint8) for n in range(length)])
    pairs = averages(frames, min_frames=fewest, max_frames=fewest + spread, seed=seed)
    position = 0
    for number, pair in enumerate(pairs, start=1):
        assert pair.name == f"{number:06d}"
        assert pair.first_frame == position
        assert pair.frame_count % 2 == 1
        assert fewest <= pair.frame_count <= fewest + spread
        assert pair.pictures["sharp"][0, 0, 0] == position + pair.frame_count // 2
        # Along a steady change the mean is the middle.
        assert pair.pictures["blur"][0, 0, 0] == position + pair.frame_count // 2
        position += pair.frame_count
    assert length - position < fewest + spread


def test_counts_are_drawn_from_the_whole_range() -> None:
    averaging = Averaging()
    drawn = [averaging.draw_count("clip", number) for number in range(1, 400)]
    assert set(drawn) == {7, 9, 11, 13}
    assert min(drawn.count(count) for count in (7, 9, 11, 13)) > 60
    assert drawn != [averaging.draw_count("other clip", number) for number in range(1, 400)]
    assert drawn != [Averaging(seed=1).draw_count("clip", number) for number in range(1, 400)]


def test_a_range_without_odd_numbers() -> None:
    with pytest.raises(UsageError, match=r"no odd number in 8\.\.8"):
        Averaging(8, 8)
    assert Averaging(9, 9).draw_count("clip", 1) == 9


@pytest.mark.parametrize("every", [3, 20])
def test_pairs_may_overlap_or_leave_gaps(every: int) -> None:
    frames = noise(50)
    pairs = averages(clip_of(frames), min_frames=7, max_frames=7, every=every)
    assert sorted(pair.first_frame for pair in pairs) == list(range(0, 44, every))
    for pair in pairs:
        part = np.stack(frames[pair.first_frame : pair.first_frame + 7])
        assert np.abs(pair.pictures["blur"] - part.mean(axis=0)).max() <= 0.5001


def test_still_frames_come_out_as_they_are() -> None:
    frame = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    for pair in averages(clip_of([frame] * 13)):
        for picture in pair.pictures.values():
            np.testing.assert_array_equal(picture, frame)


def test_light_comes_out_brighter_than_encoded_values() -> None:
    for pair in averages(clip_of(noise(40))):
        assert (pair.pictures["blur_gamma"] >= pair.pictures["blur"]).all()
        assert pair.pictures["blur_gamma"].mean() > pair.pictures["blur"].mean() + 5


def test_nothing_is_averaged_across_a_gap() -> None:
    frames = [np.full((2, 2, 3), 0 if n < 10 else 200, np.uint8) for n in range(30)]
    pairs = averages(clip_of(frames, breaks=[10]), min_frames=7, max_frames=7)
    assert [pair.first_frame for pair in pairs] == [0, 10, 17]
    for pair in pairs:
        np.testing.assert_array_equal(pair.pictures["blur"], pair.pictures["sharp"])


def test_what_is_there_is_not_computed_again() -> None:
    frames = clip_of(noise(60))
    whole = averages(frames)
    rest = list(
        average_frames(frames, Averaging(), "clip", is_wanted=lambda name: name != "000002")
    )
    assert [pair.name for pair in rest] == [pair.name for pair in whole if pair.name != "000002"]
    for pair in rest:
        np.testing.assert_array_equal(
            pair.pictures["blur"], whole[int(pair.name) - 1].pictures["blur"]
        )


# Clips


def write_frames(folder: Path, arrays: Sequence[Pixels], suffix: str = ".png") -> None:
    folder.mkdir(parents=True)
    for number, pixels in enumerate(arrays, start=1):
        Image.fromarray(pixels).save(folder / f"{number:06d}{suffix}")


def write_video(path: Path, arrays: Sequence[Pixels], times: Sequence[int], fps: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.height, stream.width = arrays[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 4_000_000
        for pixels, time_ in zip(arrays, times, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.pts = time_
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def moving(count: int, size_px: int = 64) -> list[Pixels]:
    """A real picture that slides by, two pixels a frame."""
    pixels = data.astronaut()
    return [
        np.ascontiguousarray(pixels[50 : 50 + size_px, 2 * n : 2 * n + size_px])
        for n in range(count)
    ]


def test_clips_are_found_at_any_depth(tmp_path: Path) -> None:
    write_frames(tmp_path / "all" / "train" / "GOPR0372_07_00", noise(3))
    write_frames(tmp_path / "all" / "train" / "GOPR0372_07_01", noise(2))
    write_video(tmp_path / "all" / "b.mp4", moving(8), range(8), 240)
    (tmp_path / "all" / "notes.txt").write_text("x")
    Image.new("RGB", (4, 4)).save(tmp_path / "all" / "cover.jpg")  # one picture is no clip
    clips, failures = find_clips([tmp_path / "all"])
    assert not failures
    assert {clip.name: clip.frame_count for clip in clips} == {
        "b": 8,
        "train-GOPR0372_07_00": 3,
        "train-GOPR0372_07_01": 2,
    }
    (alone,), _ = find_clips([tmp_path / "all" / "train" / "GOPR0372_07_01"])
    assert alone.name == "GOPR0372_07_01"
    assert [frame.pixels.shape for frame in alone.frames()] == [(6, 5, 3)] * 2


def test_frames_in_natural_order(tmp_path: Path) -> None:
    (tmp_path / "clip").mkdir()
    for number in (9, 10, 11):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / "clip" / f"f{number}.png")
    (clip,), _ = find_clips([tmp_path / "clip"])
    assert [frame.pixels[0, 0, 0] for frame in clip.frames()] == [9, 10, 11]


def test_clips_that_cannot_be_used(tmp_path: Path) -> None:
    write_video(tmp_path / "a" / "x.mp4", moving(3), range(3), 240)
    write_video(tmp_path / "b" / "x.mp4", moving(3), range(3), 240)
    with pytest.raises(UsageError, match="would have the name x"):
        find_clips([tmp_path / "a", tmp_path / "b"])
    (tmp_path / "b" / "x.mp4").write_bytes(b"no video at all")
    clips, failures = find_clips([tmp_path / "a", tmp_path / "b", tmp_path / "missing.mp4"])
    assert [clip.source for clip in clips] == [tmp_path / "a" / "x.mp4"]
    assert [error.subject for error in failures] == [
        str(tmp_path / "b" / "x.mp4"),
        str(tmp_path / "missing.mp4"),
    ]
    (tmp_path / "empty").mkdir()
    with pytest.raises(NothingToDoError):
        find_clips([tmp_path / "empty"])


def test_frames_of_other_size_or_depth_break_a_clip(tmp_path: Path) -> None:
    small, wide = np.full((6, 5, 3), 100, np.uint8), np.full((6, 7, 3), 100, np.uint8)
    write_frames(tmp_path / "clip", [*[small] * 3, *[wide] * 6])
    deep = imagecodecs.png_encode(wide.astype(np.uint16) * 257 + 20)
    for number in (7, 8, 9):
        (tmp_path / "clip" / f"{number:06d}.png").write_bytes(deep)
    (clip,), _ = find_clips([tmp_path / "clip"])
    averaging = Averaging(min_frames=3, max_frames=3)
    made = list(average_frames(clip.frames(), averaging, "clip"))
    assert [average.pictures["sharp"].shape for average in made] == [(6, 5, 3), *[(6, 7, 3)] * 2]
    assert all((picture == 100).all() for average in made for picture in average.pictures.values())


def test_cuts_and_dropped_frames_break_a_clip(tmp_path: Path) -> None:
    first, second = moving(12), [255 - pixels for pixels in moving(12)]
    times = [*range(12), *range(12, 18), *range(21, 27)]  # three frames are missing
    write_video(tmp_path / "clip.mkv", [*first, *second], times, 120)
    (clip,), _ = find_clips([tmp_path / "clip.mkv"])
    breaks = [n for n, frame in enumerate(clip.frames()) if not frame.follows]
    assert breaks == [12, 18]


def test_strong_shake_is_no_cut(shared_data: Path) -> None:
    """50 frames of a walk at 24 per second, as unlike each other as successive frames get."""
    (clip,), _ = find_clips([shared_data / "reds" / "train" / "train_sharp" / "020"])
    assert all(frame.follows for frame in clip.frames())


def test_a_rotated_phone_video_stands_upright(shared_data: Path) -> None:
    (clip,), _ = find_clips([shared_data / "videos" / "phone_rotated_720p.mp4"])
    frame = next(iter(clip.frames()))
    assert frame.pixels.shape == (1280, 720, 3)


# deblur data frames


def test_frames_command_makes_a_data_set(tmp_path: Path, deblur_here: Deblur) -> None:
    arrays = moving(60)
    write_frames(tmp_path / "film" / "walk", arrays)
    words = ("data", "frames", tmp_path / "film", "-o", tmp_path / "set")
    done = deblur_here(*words, "--seed", "3", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # the rate of a folder is not known: no warning
    document = json.loads(done.stdout)
    pairs = find_pairs(tmp_path / "set", "train")
    check_pairs(pairs)
    assert len(pairs) == 2 * document["made"] > 8
    assert {pair.kind for pair in pairs} == {"GOPRO linear", "GOPRO gamma"}
    for entry in document["clips"][0]["pairs"]:
        folder = tmp_path / "set" / "train" / "walk"
        middle = arrays[entry["first"] + entry["frames"] // 2]
        np.testing.assert_array_equal(
            np.asarray(Image.open(folder / "sharp" / f"{entry['name']}.png")), middle
        )
    assert not list((tmp_path / "set").rglob("*.part"))

    # The same seed gives the same bytes, another one other pairs.
    before = contents(tmp_path / "set")
    assert deblur_here(*words, "--seed", "3", "--overwrite").returncode == 0
    assert contents(tmp_path / "set") == before
    assert deblur_here(*words, "--seed", "4", "--overwrite").returncode == 0
    assert contents(tmp_path / "set") != before
    check_pairs(find_pairs(tmp_path / "set"))  # nothing is left of the longer run before


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_frames_command_goes_on_where_it_stopped(tmp_path: Path, deblur_here: Deblur) -> None:
    write_frames(tmp_path / "walk", moving(50))
    words = ("data", "frames", tmp_path / "walk", "-o", tmp_path / "set", "--blur", "gamma")
    assert deblur_here(*words).returncode == 0
    whole = contents(tmp_path / "set")
    assert not (tmp_path / "set" / "train" / "walk" / "blur").exists()
    assert find_pairs(tmp_path / "set")[0].kind == "GOPRO gamma"

    again = deblur_here(*words)
    assert again.returncode == 2
    assert again.stderr.count("\n") == 1
    assert "exists already" in again.stderr

    # Half a pair and a missing pair, as a killed run may leave them.
    (tmp_path / "set/train/walk/blur_gamma/000002.png").unlink()
    for kind in ("blur_gamma", "sharp"):
        (tmp_path / f"set/train/walk/{kind}/000004.png").unlink()
    kept = tmp_path / "set/train/walk/sharp/000001.png"
    changed_at = kept.stat().st_mtime_ns
    rest = deblur_here(*words, "--skip-existing", "--json")
    assert rest.returncode == 0, rest.stderr
    assert [p["name"] for p in json.loads(rest.stdout)["clips"][0]["pairs"]] == ["000002", "000004"]
    assert contents(tmp_path / "set") == whole
    assert kept.stat().st_mtime_ns == changed_at

    other = deblur_here(*words, "--skip-existing", "--seed", "9")
    assert other.returncode == 2
    assert "made with other settings" in other.stderr
    assert contents(tmp_path / "set") == whole


def test_frames_command_names_what_failed_and_does_the_rest(
    tmp_path: Path, deblur_here: Deblur
) -> None:
    write_frames(tmp_path / "film" / "good", moving(14))
    write_frames(tmp_path / "film" / "short", moving(4))
    write_frames(tmp_path / "film" / "torn", moving(14))
    (tmp_path / "film" / "torn" / "000013.png").write_bytes(b"\x89PNG")
    done = deblur_here("data", "frames", tmp_path / "film", "-o", tmp_path / "set", "--frames", "7")
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    assert "short: no 7 frames follow each other" in lines[0]
    assert "000013.png" in lines[1]
    assert lines[2].endswith(f"made 3 pairs in {tmp_path / 'set'}")
    assert len(find_pairs(tmp_path / "set")) == 6


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--frames", "8"], "no odd number"),
        (["--frames", "seven"], "is not a number or a range"),
        (["--blur", "motion"], "is not one of 'linear', 'gamma', 'both'"),
        (["--overwrite", "--skip-existing"], "contradicts --skip-existing"),
        (["--split", "dev"], "is not one of 'train', 'test', 'val'"),
    ],
)
def test_frames_command_refuses(
    tmp_path: Path, words: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_frames(tmp_path / "walk", noise(2))
    code = main(["data", "frames", str(tmp_path / "walk"), "-o", str(tmp_path / "set"), *words])
    assert code == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


def test_dry_run_touches_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_frames(tmp_path / "walk", noise(40))
    Image.new("RGB", (900, 900)).save(tmp_path / "photo.png")
    output = str(tmp_path / "set")
    assert main(["data", "frames", str(tmp_path / "walk"), "-o", output, "--dry-run"]) == 0
    assert "about 4 pairs" in capsys.readouterr().out
    assert main(["data", "synth", str(tmp_path / "photo.png"), "-o", output, "--dry-run"]) == 0
    assert "photo-1.png" in capsys.readouterr().out
    for words in (["frames", str(tmp_path / "walk")], ["synth", str(tmp_path / "photo.png")]):
        assert main(["data", *words, "-o", output, "--dry-run", "--json"]) == 0
        (planned,) = json.loads(capsys.readouterr().out)["planned"]
        assert planned["source"] == words[1]
        assert planned["output"].startswith(output)
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("command", ["frames", "synth"])
def test_sources_are_never_taken_for_older_pairs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    # Where frames and photos made by hand would lie, were they to become this set's sharp ones.
    output = tmp_path / "set"
    folder = output / ("train/sharp/sharp" if command == "frames" else "sharp")
    folder.mkdir(parents=True)
    for number in range(20):
        Image.new("RGB", (300, 300), (number, 0, 0)).save(folder / f"{number:03}.png")
    words = ["data", command, str(folder), "-o", str(output), "--overwrite"]
    assert main(words) == 2
    assert "000.png: lies where the pairs are to be written" in capsys.readouterr().err
    assert len(list(folder.iterdir())) == 20


def test_real_clip_of_60_fps(shared_data: Path, tmp_path: Path, deblur_here: Deblur) -> None:
    """Made with a warning, and blurred where people move but not where nothing does."""
    done = deblur_here(
        *("data", "frames", shared_data / "videos" / "people_60fps.mp4", "-o", tmp_path / "set"),
        *("--frames", "13", "--every", "90"),
    )
    assert done.returncode == 0, done.stderr
    assert "60 frames per second, less than 120" in done.stderr
    assert "deblur data synth" in done.stderr
    folder = tmp_path / "set" / "train" / "people_60fps"
    blurred, blurred_gamma, sharp = (
        np.asarray(Image.open(folder / kind / "000001.png"), dtype=float)
        for kind in ("blur", "blur_gamma", "sharp")
    )
    assert blurred.shape == (1920, 1080, 3)
    change = np.abs(blurred - sharp).mean(axis=2)
    blocks = change[: 1920 // 120 * 120, :1080].reshape(16, 120, 9, 120).mean(axis=(1, 3))
    assert blocks.max() > 4 * np.median(blocks)
    assert blurred_gamma.mean() > blurred.mean()


# deblur data synth


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    Image.fromarray(data.astronaut()[:300, :340]).save(folder / "astronaut.png")
    Image.fromarray(data.coffee()[:300, 100:420]).save(folder / "more" / "coffee.jpg", quality=95)
    return folder


SMALL = Blurring(count=2, size_px=96)


def test_pairs_do_not_depend_on_which_others_are_made(photos: Path) -> None:
    found = find_photos([photos])
    assert list(found) == ["astronaut", "more/coffee"]
    others = list(found.values())
    wanted = [(path, name) for photo, path in found.items() for name in pair_names(photo, SMALL)]
    first = {name: blur_photo(path, name, others, SMALL, CPU) for path, name in wanted}
    second = {name: blur_photo(path, name, others, SMALL, CPU) for path, name in reversed(wanted)}
    for name, pictures in first.items():
        for kind, picture in pictures.items():
            assert picture.shape == (96, 96, 3)
            assert picture.dtype == np.uint8
            np.testing.assert_array_equal(picture, second[name][kind])
    drawn = [pictures["blur"].tobytes() for pictures in first.values()]
    assert len(set(drawn)) == len(drawn)
    other = blur_photo(*wanted[0], others, replace(SMALL, seed=1), CPU)
    assert other["blur"].tobytes() != drawn[0]


def test_synth_command_makes_pairs(
    photos: Path, tmp_path: Path, deblur: Deblur, deblur_here: Deblur
) -> None:
    words = ("data", "synth", photos, "-o", tmp_path / "set", "--size", "96", "--count", "2")
    done = deblur_here(*words, "--json", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["made"] == 4
    pairs = find_pairs(tmp_path / "set")
    check_pairs(pairs, min_px=96)
    assert [pair.name for pair in pairs] == [
        "astronaut-1",
        "astronaut-2",
        "more/coffee-1",
        "more/coffee-2",
    ]
    whole = contents(tmp_path / "set")
    assert not [name for name in whole if name.endswith(".part")]

    # What is missing is made again, byte for byte; and in a process of its own.
    pairs[1].blurred.unlink()
    rest = deblur(*words, "--json", "--skip-existing", "--device", "cpu")
    assert json.loads(rest.stdout)["pairs"] == ["astronaut-2"]
    assert contents(tmp_path / "set") == whole
    refused = deblur_here(*words)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert (
        "made with other settings" in deblur_here(*words, "--skip-existing", "--seed", "1").stderr
    )

    # More of each photo, beside those that are there.
    more = deblur_here(*words[:-1], "3", "--json", "--skip-existing", "--device", "cpu")
    assert json.loads(more.stdout)["pairs"] == ["astronaut-3", "more/coffee-3"]
    assert contents(tmp_path / "set").items() > whole.items()


def test_settings_change_what_is_drawn(photos: Path) -> None:
    from deblurcli.config import Recipe, change_recipe

    still = change_recipe(Recipe(), ["motion.still=1.0", "noise=0.0", "jpeg=0.0"])
    path = photos / "astronaut.png"
    pictures = blur_photo(path, "astronaut-1", [path], replace(SMALL, recipe=still), CPU)
    assert np.abs(pictures["blur"].astype(int) - pictures["sharp"]).max() <= 1


@pytest.mark.parametrize("setting", ["learning_rate=1", "motion.warp=1", "path_px=far"])
def test_settings_without_meaning_are_refused(
    photos: Path, tmp_path: Path, setting: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["data", "synth", str(photos), "-o", str(tmp_path / "set"), "--set", setting])
    assert code == 2
    assert "--set" in capsys.readouterr().err


def test_bad_photos_are_named_and_the_rest_is_made(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "torn.png").write_bytes((photos / "astronaut.png").read_bytes()[:5000])
    Image.new("RGB", (100, 400)).save(tmp_path / "narrow.png")
    found = find_photos([tmp_path / "torn.png", tmp_path / "narrow.png", photos])
    folder = PairFolder(tmp_path / "set", photo_blurring.KINDS, {})
    results = list(photo_blurring.write_pairs(found, SMALL, CPU, folder))
    errors = [result for result in results if isinstance(result, DeblurError)]
    assert len(results) == 8
    assert [Path(error.subject).name for error in errors] == ["torn.png", "narrow.png"]
    assert "smaller than the 208" in errors[1].reason
    assert [result for result in results if isinstance(result, str)] == [
        pair.name for pair in find_pairs(tmp_path / "set")
    ]


def test_names_of_pairs(tmp_path: Path) -> None:
    for name in ("a/IMG_1.jpg", "a/IMG_1.png", "a/IMG_2.jpg", "b/IMG_2.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)
    assert list(find_photos([tmp_path / "a"])) == ["IMG_1", "IMG_1.png", "IMG_2"]
    assert pair_names("x", Blurring(count=10))[0] == "x-01"
    with pytest.raises(UsageError, match="would have the names of those of"):
        find_photos([tmp_path / "a" / "IMG_2.jpg", tmp_path / "c" / "IMG_2.jpg"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(NothingToDoError):
        find_photos([tmp_path / "empty"])


def test_interrupted_run_leaves_complete_pairs_only(photos: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "deblurcli", "data", "synth", str(photos)]
    command += ["-o", str(tmp_path / "set"), "--size", "96", "--count", "500", "--device", "cpu"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "set" / "sharp").glob("*-003.png")):
        assert time.monotonic() < deadline, "no pairs after a minute"
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted" in errors
    assert "Traceback" not in errors
    check_pairs(find_pairs(tmp_path / "set"))
    assert not list((tmp_path / "set").rglob("*.part"))
