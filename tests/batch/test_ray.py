"""Sharing a batch: parts for job arrays, and a local Ray of two workers."""

from __future__ import annotations

import gc
import logging
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deblurcli.batch.plan import ClipOptions, Job, check_options_apply, plan
from deblurcli.errors import UsageError

MakePhoto = Callable[..., Path]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(files=st.integers(1, 30), parts=st.integers(1, 12))
def test_shards_share_a_batch_evenly(tmp_path_factory, files: int, parts: int) -> None:
    folder = tmp_path_factory.mktemp("batch")
    for n in range(files):
        (folder / f"{n}.jpg").touch()
    shards = [
        [job.source for job in plan([str(folder)], shard=(part, parts)).jobs]
        for part in range(1, parts + 1)
    ]
    everything = [job.source for job in plan([str(folder)]).jobs]
    assert sorted(source for shard in shards for source in shard) == sorted(everything)
    sizes = [len(shard) for shard in shards]
    assert max(sizes) - min(sizes) <= 1


def test_shards_do_not_depend_on_what_is_done(tmp_path: Path, make_photo: MakePhoto) -> None:
    for n in range(6):
        make_photo(tmp_path / f"{n}.jpg")

    def sources() -> list[Path | None]:
        part = plan([str(tmp_path)], skip_existing=True, shard=(2, 3))
        return [job.source for job in part.jobs]

    before = sources()
    assert before == [tmp_path / "1.jpg", tmp_path / "4.jpg"]
    make_photo(tmp_path / "0-sharp.jpg")  # another machine was faster
    assert sources() == before


def test_bad_shards_are_refused(deblur: Callable[..., object], tmp_path: Path) -> None:
    for text in ("0/2", "3/2", "1", "a/b", "1/0"):
        done = deblur(tmp_path, "--shard", text)
        assert done.returncode == 2, text
        assert "no part such as 2/8" in done.stderr


def test_workers_need_ray(deblur: Callable[..., object], tmp_path: Path) -> None:
    done = deblur(tmp_path, "--workers", "2")
    assert done.returncode == 2
    assert "--engine ray" in done.stderr


@pytest.fixture(scope="module")
def local_ray() -> Iterator[object]:
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install ray")
    # Ray's own start-up leaves sockets and processes to the garbage collector.
    os.environ.setdefault("RAY_DISABLE_IMPORT_WARNING", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray.init(
        num_cpus=2,
        num_gpus=0,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=100_000_000,
    )
    yield ray
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.shutdown()
        gc.collect()


@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_killed_worker_is_replaced(
    local_ray: object,
    tmp_path: Path,
    make_photo: MakePhoto,
    tiny_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two workers, of which one is killed at work: every photo is restored, none twice."""
    from deblurcli.batch import ray, run

    restore_job, killed = ray.restore_job, tmp_path / "killed"
    busy, counts = tmp_path / "busy", tmp_path / "counts"
    busy.mkdir()
    counts.mkdir()

    def die_once(job: Job, options: object, network: object) -> object:
        if job.source.name == "7.jpg" and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        mine = busy / str(os.getpid())
        mine.touch()
        (counts / str(len(list(busy.iterdir())))).touch()
        try:
            return restore_job(job, options, network)
        finally:
            mine.unlink()

    monkeypatch.setattr(ray, "restore_job", die_once)
    for n in range(20):
        make_photo(tmp_path / "in" / f"{n}.jpg", size=(1200, 900), seed=n)
    (tmp_path / "in" / "bad.jpg").write_text("no photo")
    todo = plan([str(tmp_path / "in")], str(tmp_path / "out")).jobs
    choice = ray.NetworkChoice(str(tiny_weights), "cpu")
    outcomes = list(ray.run(todo, run.RunOptions(), choice, workers=2))

    assert killed.exists()
    assert {path.name for path in counts.iterdir()} <= {"1", "2"}  # workers at work at once
    assert sorted(o.job.source.name for o in outcomes) == sorted(j.source.name for j in todo)
    failed = [o for o in outcomes if o.status != "done"]
    assert [(o.job.source.name, o.status) for o in failed] == [("bad.jpg", "failed")]
    assert {p.name for p in (tmp_path / "out").iterdir()} == {f"{n}.jpg" for n in range(20)}


def test_a_job_that_kills_its_workers_fails_alone(
    local_ray: object,
    tmp_path: Path,
    make_photo: MakePhoto,
    tiny_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A task that dies three times is given up; the run goes on."""
    from deblurcli.batch import ray, run

    restore_job = ray.restore_job

    def die_at_one(job: Job, options: object, network: object) -> object:
        if job.source.name == "1.png":
            os.kill(os.getpid(), signal.SIGKILL)
        return restore_job(job, options, network)

    monkeypatch.setattr(ray, "restore_job", die_at_one)
    for n in range(3):
        make_photo(tmp_path / "in" / f"{n}.png")
    todo = plan([str(tmp_path / "in")], str(tmp_path / "out")).jobs
    choice = ray.NetworkChoice(str(tiny_weights), "cpu")
    outcomes = list(ray.run(todo, run.RunOptions(), choice, workers=1))
    told = {o.job.source.name: (o.status, o.error and o.error.reason) for o in outcomes}
    assert told["0.png"] == told["2.png"] == ("done", None)
    assert told["1.png"][0] == "failed"
    assert "3 workers died at it" in told["1.png"][1]


def test_leftovers_of_a_dead_worker(
    tmp_path: Path, make_photo: MakePhoto, tiny_weights: Path
) -> None:
    """The next worker removes the half-written file, and does not repeat work that was done."""
    from deblurcli.batch import ray, run

    photo, target = make_photo(tmp_path / "a.png"), tmp_path / "a[1].png"
    part = tmp_path / "a[1].png.77-3.part"
    part.write_bytes(b"half")
    choice = ray.NetworkChoice(str(tiny_weights), "cpu", "fp32")
    for _ in range(2):
        (outcome,) = ray.restore_job(Job(photo, target), run.RunOptions(), choice)
        assert outcome.status == "done"
        assert not part.exists()
    assert outcome.seconds == 0  # the second time there was nothing left to do


@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_workers_find_paths_that_are_relative_to_the_users_folder(
    local_ray: object,
    tmp_path: Path,
    make_photo: MakePhoto,
    tiny_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from deblurcli.batch import ray, run

    monkeypatch.chdir(tmp_path)  # the cluster was started in another folder
    make_photo(Path("in/a.png"))
    (outcome,) = ray.run(
        plan(["in"], "out").jobs,
        run.RunOptions(),
        ray.NetworkChoice(str(tiny_weights), "cpu"),
        workers=1,
    )
    assert outcome.status == "done"
    assert outcome.job.target == Path("out/a.png")
    assert (tmp_path / "out" / "a.png").is_file()


def test_a_pipe_cannot_be_shared() -> None:
    from deblurcli.batch import ray, run

    pytest.importorskip("ray", reason="Ray is not installed: pip install ray")
    with pytest.raises(UsageError, match="pipe"):
        next(ray.run([Job(None, None)], run.RunOptions(), ray.NetworkChoice("x")))


def test_wishes_for_videos_fit_if_another_shard_has_them(
    tmp_path: Path, make_photo: MakePhoto
) -> None:
    make_photo(tmp_path / "a.png")
    (tmp_path / "b.mp4").write_bytes(b"")
    wishes = ClipOptions(crf=18)
    for part in (1, 2):
        check_options_apply(plan([str(tmp_path)], videos=True, shard=(part, 2)), wishes)
    with pytest.raises(UsageError, match="no video among the inputs"):
        check_options_apply(plan([str(tmp_path)], shard=(1, 2)), wishes)
    with pytest.raises(UsageError, match="no video among the inputs"):
        check_options_apply(plan([str(tmp_path)]), ClipOptions(crf=0))
