"""The pipeline: order, overlap, bounded memory, and what stops it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from deblurcli.batch import run as run_module
from deblurcli.batch.plan import Job
from deblurcli.batch.run import Outcome, RunOptions, run
from deblurcli.errors import DeblurError, DeviceMemoryError
from deblurcli.io import photos

Images = Sequence[NDArray[Any]]


class Inverter:
    """Stands in for a network: gives the negative."""

    def __init__(self, device: str = "cpu", seconds: float = 0.0) -> None:
        self.device = device
        self.seconds = seconds
        self.batches: list[int] = []
        self.weights_path = None

    def restore_batch(self, images: Images, **options: object) -> list[NDArray[Any]]:
        self.batches.append(len(images))
        time.sleep(self.seconds)
        return [255 - image for image in images]


class Disk:
    """Stands in for `images`: photos that take their time, and a count of those in memory."""

    def __init__(self, seconds: float = 0.0, size: tuple[int, int] = (4, 6)) -> None:
        self.seconds, self.size = seconds, size
        self.written: dict[str, int] = {}
        self.on_the_way = self.max_on_the_way = 0
        self.lock = threading.Lock()

    def read(self, source: Path, **_: Any) -> photos.Photo:
        with self.lock:
            self.on_the_way += 1
            self.max_on_the_way = max(self.max_on_the_way, self.on_the_way)
        time.sleep(self.seconds)
        if "bad" in source.name:
            with self.lock:
                self.on_the_way -= 1
            raise DeblurError(source, "not a picture", "give a photo")
        number = int(source.stem)
        pixels = np.full((*self.size, 3), number % 256, np.uint8)
        return SimpleNamespace(pixels=pixels, notes=(f"note {number}",))  # type: ignore[return-value]

    def write(self, photo: Any, restored: NDArray[Any], target: Path, **options: Any) -> None:
        time.sleep(self.seconds)
        with self.lock:
            self.on_the_way -= 1
        if "full" in target.name:
            raise DeblurError(target, "the disk is full", "free some space")
        self.written[target.name] = int(restored[0, 0, 0])


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Disk]:
    def make(*arguments: Any, **options: Any) -> Disk:
        disk = Disk(*arguments, **options)
        monkeypatch.setattr(run_module, "photos", disk)
        monkeypatch.setattr(Path, "is_file", lambda path: True)
        return disk

    return make


def jobs(folder: Path, *names: str) -> list[Job]:
    return [Job(Path(name), folder / f"{Path(name).stem}.png") for name in names]


def statuses(outcomes: list[Outcome]) -> dict[str, str]:
    return {outcome.job.source_name: outcome.status for outcome in outcomes}


def test_each_photo_gets_its_own_result(disk: Callable[..., Disk], tmp_path: Path) -> None:
    stand_in = disk()
    names = [f"{n}.jpg" for n in range(40)]
    outcomes = list(run(jobs(tmp_path, *names), Inverter(), RunOptions()))
    assert [outcome.job.source_name for outcome in outcomes] == names
    assert stand_in.written == {f"{n}.png": 255 - n for n in range(40)}
    assert outcomes[7].notes == ("note 7",)


def test_reading_computing_and_writing_overlap(disk: Callable[..., Disk], tmp_path: Path) -> None:
    """While the network has one photo, the next are read and the one before is written."""
    stand_in = disk()
    met = threading.Barrier(3, timeout=30)  # BrokenBarrierError if they never are at work at once

    class Waiting(Inverter):
        def restore_batch(self, images: Images, **options: object) -> list[NDArray[Any]]:
            if len(self.batches) == 2:
                met.wait()
            return super().restore_batch(images)

    read, write = stand_in.read, stand_in.write

    def read_late(source: Path, **options: Any) -> photos.Photo:
        if source.stem == "3":
            met.wait()
        return read(source, **options)

    def write_late(photo: Any, restored: NDArray[Any], target: Path, **options: Any) -> None:
        if target.stem == "1":
            met.wait()
        write(photo, restored, target, **options)

    stand_in.read, stand_in.write = read_late, write_late  # type: ignore[method-assign]
    outcomes = list(run(jobs(tmp_path, *(f"{n}.jpg" for n in range(8))), Waiting(), RunOptions()))
    assert [outcome.status for outcome in outcomes] == ["done"] * 8


def test_bad_files_stop_nothing(disk: Callable[..., Disk], tmp_path: Path) -> None:
    stand_in = disk()
    names = ["bad.jpg", "1.jpg", "2.jpg", "bad2.jpg", "3.jpg"]
    todo = [*jobs(tmp_path, *names), Job(Path("4.jpg"), tmp_path / "full.png")]
    outcomes = list(run(todo, Inverter(), RunOptions()))
    assert statuses(outcomes) == {
        "bad.jpg": "failed", "1.jpg": "done", "2.jpg": "done",
        "bad2.jpg": "failed", "3.jpg": "done", "4.jpg": "failed",
    }  # fmt: skip
    assert {o.error.reason for o in outcomes if o.error} == {"not a picture", "the disk is full"}
    assert sorted(stand_in.written) == ["1.png", "2.png", "3.png"]


def test_memory_does_not_grow_with_the_number_of_photos(
    disk: Callable[..., Disk], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "PIXELS_ON_THE_WAY", 100 * 100)
    for size, expected_max in (((100, 101), 2), ((50, 40), 6), ((1, 1), run_module.MAX_AHEAD + 2)):
        stand_in = disk(seconds=0.001, size=size)
        list(run(jobs(tmp_path, *(f"{n}.jpg" for n in range(60))), Inverter(), RunOptions()))
        assert stand_in.max_on_the_way <= expected_max
        assert len(stand_in.written) == 60


def test_a_gpu_gets_photos_of_one_size_together(disk: Callable[..., Disk], tmp_path: Path) -> None:
    stand_in = disk()
    restorer = Inverter("cuda", seconds=0.01)
    names = [f"{n}.jpg" for n in range(60)]
    outcomes = list(run(jobs(tmp_path, *names), restorer, RunOptions()))
    assert [outcome.job.source_name for outcome in outcomes] == names
    assert stand_in.written == {f"{n}.png": 255 - n for n in range(60)}
    assert max(restorer.batches) > 1
    assert sum(restorer.batches) == 60


def test_a_device_without_memory_stops_everything(
    disk: Callable[..., Disk], tmp_path: Path
) -> None:
    stand_in = disk()

    class Exhausted(Inverter):
        def restore_batch(self, images: Images, **options: object) -> list[NDArray[Any]]:
            if len(self.batches) == 3:
                raise DeviceMemoryError("cpu", "out of memory", "close other programs")
            return super().restore_batch(images)

    done = []
    with pytest.raises(DeviceMemoryError):
        for outcome in run(
            jobs(tmp_path, *(f"{n}.jpg" for n in range(30))), Exhausted(), RunOptions()
        ):
            done.append(outcome)
    assert len(stand_in.written) <= 3
    assert all(outcome.status == "done" for outcome in done)


def test_threads_end_when_the_run_is_left(disk: Callable[..., Disk], tmp_path: Path) -> None:
    stand_in = disk(seconds=0.005)
    running = run(jobs(tmp_path, *(f"{n}.jpg" for n in range(1000))), Inverter(), RunOptions())
    next(running)
    running.close()
    written = dict(stand_in.written)
    ours = ("deblur-read", "deblur-write")
    assert not [t for t in threading.enumerate() if t.name.startswith(ours)]
    time.sleep(0.05)
    assert stand_in.written == written
    assert len(written) < 50


def test_a_bug_met_with_one_file_stops_no_other(
    tmp_path: Path, make_photo: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """Whatever a library raises: the file failed, the traceback is kept, the rest is done."""
    read = photos.read

    def read_or_fail(source: Path, **options: Any) -> photos.Photo:
        if source.name == "odd.png":
            raise ValueError("31 is not a valid Type")
        return read(source, **options)

    monkeypatch.setattr(photos, "read", read_or_fail)
    clip = Job(tmp_path / "odd.mp4", tmp_path / "out.mp4", "video")
    monkeypatch.setattr("deblurcli.io.videos.restore_video", lambda *a, **k: 1 / 0)
    paths = [make_photo(tmp_path / name) for name in ("odd.png", "good.png")]
    jobs = [clip, *(Job(path, path.with_suffix(".out.png")) for path in paths)]
    outcomes = list(run(jobs, Inverter(), RunOptions()))
    assert [outcome.status for outcome in outcomes] == ["failed", "failed", "done"]
    assert "31 is not a valid Type" in str(outcomes[1].error)
    assert "ZeroDivisionError" in caplog.text
    assert "Traceback" in caplog.text
