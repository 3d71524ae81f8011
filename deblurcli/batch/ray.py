"""Doing the jobs of a plan on a Ray cluster: one worker for each GPU or share of the CPUs.

Workers read and write the files themselves, so all machines must see them under the same paths.
A worker that dies (its machine is taken away, or its memory runs out) is replaced, and its job
goes to the next worker that is free.
"""

from __future__ import annotations

import glob
import logging
import os
import platform
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deblurcli.batch.job import Job
from deblurcli.batch.run import Outcome, Restorer, Settings
from deblurcli.batch.run import run as run_here
from deblurcli.errors import DeblurError, DeviceError, UsageError

if TYPE_CHECKING:
    from deblurcli.deblurrer import Deblurrer

log = logging.getLogger("deblurcli")

_ATTEMPTS = 3
_CPUS_PER_WORKER = 4


@dataclass(frozen=True)
class NetworkChoice:
    """How every worker loads the network, as `Deblurrer.load` takes it."""

    weights: str
    device: str = "auto"
    precision: str = "auto"
    tile: str | int = "auto"
    strength: float = 1.0

    def load(self) -> Deblurrer:
        from deblurcli.deblurrer import Deblurrer

        return Deblurrer.load(
            self.weights,
            self.device,
            self.precision,
            tile=self.tile,
            strength=self.strength,
            offline=True,
        )


class Worker:
    """Lives in a process of its own and does one job after another."""

    def __init__(self, network: NetworkChoice) -> None:
        self._network = network
        self._deblurrer: Deblurrer | None = None

    def introduce(self) -> tuple[str, int]:
        """Machine and process number."""
        return platform.node(), os.getpid()

    def run(self, job: Job, settings: Settings) -> list[Outcome] | DeblurError:
        """What became of the job, or the error that every other job would meet too."""
        try:
            return list(run_here([job], replace(settings, load=self._load)))
        except DeblurError as error:
            return error

    def _load(self) -> Deblurrer:
        if self._deblurrer is None:
            self._deblurrer = self._network.load()
        return self._deblurrer


@dataclass
class _Task:
    """What a worker was asked for: a job, or at first only who it is."""

    worker: Any
    job: Job | None = None
    attempt: int = 0


def run(
    jobs: Sequence[Job],
    settings: Settings,
    network: NetworkChoice,
    *,
    workers: int | None = None,
) -> Generator[Outcome, None, None]:
    """Does `jobs` on the cluster that ``RAY_ADDRESS`` names, else on a local one.

    Args:
        jobs: what to do; none may use a pipe.
        settings: as for `deblurcli.batch.run.run`; `load` and `on_frame` are not used.
        network: what each worker loads.
        workers: how many; by default one for each GPU, or for every 4 CPUs.

    Yields:
        What became of each job, in the order in which they end.

    Raises:
        UsageError: Ray is missing, or a job uses a pipe.
        WeightsError, DeviceError: the workers can't load the network.
    """
    ray = _import_ray()
    if any(job.source is None or job.target is None for job in jobs):
        raise UsageError("--engine", "a pipe can't be sent to other machines", "give files")
    started_here = not ray.is_initialized()
    if started_here:
        _connect(ray)
    crew = _Crew(ray, network, workers)
    try:
        yield from crew.run(jobs, replace(settings, load=_not_here, on_frame=None))
    finally:
        crew.dismiss()
        if started_here:
            ray.shutdown()


def _not_here() -> Restorer:
    raise RuntimeError("the network is loaded by the workers")


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise UsageError(
            "--engine", "Ray is not installed", "pip install 'deblurcli[ray]'"
        ) from error
    return ray


def _connect(ray: Any) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if "RAY_ADDRESS" not in os.environ:
        options["include_dashboard"] = False
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise DeviceError("--engine", f"no Ray cluster ({reason})", "check RAY_ADDRESS") from error


class _Crew:
    """The workers of one run, and what each is doing."""

    def __init__(self, ray: Any, network: NetworkChoice, workers: int | None) -> None:
        self._ray = ray
        self._network = network
        resources = ray.cluster_resources()
        cpus, gpus = int(resources.get("CPU", 1)), int(resources.get("GPU", 0))
        on_gpu = gpus > 0 and network.device != "cpu"
        self.size = workers or (gpus if on_gpu else max(1, cpus // _CPUS_PER_WORKER))
        share = {"num_gpus": min(1.0, gpus / self.size)} if on_gpu else {}
        share["num_cpus"] = 1 if on_gpu else max(1, cpus // self.size)
        self._actor = ray.remote(**share)(Worker)
        self._tasks: dict[Any, _Task] = {}
        self._idle: deque[Any] = deque()
        self._processes: dict[Any, int] = {}
        self._lost = 0

    def run(self, jobs: Sequence[Job], settings: Settings) -> Generator[Outcome, None, None]:
        waiting = deque((job, 1) for job in jobs)
        for _ in range(min(self.size, len(jobs))):
            self._hire()
        while waiting or any(task.job is not None for task in self._tasks.values()):
            while waiting and self._idle:
                job, attempt = waiting.popleft()
                worker = self._idle.popleft()
                running = worker.run.remote(_anywhere(job), settings)
                self._tasks[running] = _Task(worker, job, attempt)
            (ready,), _ = self._ray.wait(list(self._tasks), num_returns=1)
            task = self._tasks.pop(ready)
            try:
                answer = self._ray.get(ready)
            except self._ray.exceptions.RayActorError:
                retry = self._replace(task, settings.overwrite)
                if isinstance(retry, Outcome):
                    yield retry
                elif retry is not None:
                    waiting.appendleft(retry)
                continue
            self._idle.append(task.worker)
            if task.job is None:
                machine, process = answer
                self._processes[task.worker] = process
                log.info("worker on %s, process %d", machine, process)
            elif isinstance(answer, DeblurError):
                raise answer
            else:
                yield from (replace(outcome, job=task.job) for outcome in answer)

    def _hire(self) -> None:
        worker = self._actor.remote(self._network)
        self._tasks[worker.introduce.remote()] = _Task(worker)

    def _replace(self, task: _Task, overwrite: bool) -> tuple[Job, int] | Outcome | None:
        """Hires another worker for a dead one; says what becomes of the job that it had."""
        job, process = task.job, self._processes.pop(task.worker, None)
        self._lost += 1
        if job is None:
            if self._lost > _ATTEMPTS * self.size:
                raise DeviceError("--engine", "the workers die at once", "look at Ray's logs")
            self._hire()
            return None
        log.warning("a worker died at %s; another one takes over", job.source_name)
        self._hire()
        if job.target is not None and process is not None:
            _remove_leftovers(job.target, process)
        if job.target is not None and not overwrite and os.path.lexists(job.target):
            return Outcome(job, "done")  # it died after its work
        if task.attempt >= _ATTEMPTS:
            reason = f"{_ATTEMPTS} workers died at it"
            error = DeblurError(job.source_name, reason, "restore it by itself to see why")
            return Outcome(job, "failed", error)
        return job, task.attempt + 1

    def dismiss(self) -> None:
        for worker in {*self._idle, *(task.worker for task in self._tasks.values())}:
            with suppress(Exception):
                self._ray.kill(worker)


def _anywhere(job: Job) -> Job:
    """The same job for a process that was started in another folder."""
    return replace(
        job,
        source=None if job.source is None else job.source.absolute(),
        target=None if job.target is None else job.target.absolute(),
    )


def _remove_leftovers(target: Path, process: int) -> None:
    """Removes what a killed process had begun to write."""
    with suppress(OSError):
        for part in target.parent.glob(f"{glob.escape(target.name)}.{process}-*.part"):
            part.unlink()
