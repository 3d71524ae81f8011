"""Doing the jobs of a plan on a Ray cluster, whose machines must see the files under one path.

Each job is a Ray task: Ray keeps the processes between them, each with its network loaded, and
gives the task of one that died (its machine was taken away, or its memory ran out) to another. With
an `ActorPool`, a task whose machine is gone waits for ever where no other has room for its actor.
"""

import glob
import logging
import os
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache

from deblurcli.batch.plan import Job
from deblurcli.batch.run import Outcome, RunOptions
from deblurcli.batch.run import run as run_here
from deblurcli.deblurrer import Deblurrer
from deblurcli.errors import DeblurError, DeviceError, UsageError, not_installed

MAX_ATTEMPTS = 3
_CPUS_PER_TASK = 4


@dataclass(frozen=True)
class NetworkChoice:
    """How every worker loads the network, as `Deblurrer.load` takes it."""

    weights: str
    device: str = "auto"
    precision: str = "auto"
    backend: str = "auto"
    tile: str | int = "auto"
    strength: float = 1.0
    ensemble: int = 1
    offline: bool = True


@cache  # once for each process
def _load(network: NetworkChoice) -> Deblurrer:
    return Deblurrer.load(**asdict(network))


def restore_job(
    job: Job, options: RunOptions, network: NetworkChoice
) -> list[Outcome] | DeblurError:
    """Does one job in a worker: what became of it, or the error that all others would meet too."""
    if job.target is not None:
        # `plan` promised that neither is there: they are of a worker that died at this job,
        # after its work or in the middle of it.
        if not options.overwrite and os.path.lexists(job.target):
            return [Outcome(job, "done")]
        for part in job.target.parent.glob(f"{glob.escape(job.target.name)}.*-*.part"):
            part.unlink(missing_ok=True)
    try:
        return list(run_here([job], _load(network), options))
    except DeblurError as error:
        return error


def run(
    jobs: Sequence[Job], options: RunOptions, network: NetworkChoice, workers: int | None = None
) -> Generator[Outcome, None, None]:
    """Does `jobs` on the cluster that ``RAY_ADDRESS`` names, else on a local one, and yields what
    became of each, in the order in which they end; `workers` at once, by default one for each GPU,
    or for every 4 CPUs. Raises UsageError where Ray is missing, or a job uses a pipe; WeightsError
    or DeviceError where the workers can't load the network."""
    try:
        import ray
    except ImportError as error:
        raise not_installed("--engine", "ray", "ray") from error
    if any(job.source is None or job.target is None for job in jobs):
        raise UsageError("--engine", "a pipe can't be sent to other machines", "give files")
    waiting = deque(jobs)
    running: dict[ray.ObjectRef[list[Outcome] | DeblurError], Job] = {}
    started_here = not ray.is_initialized()
    if started_here:
        dashboard = None if "RAY_ADDRESS" in os.environ else False
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=dashboard)
        except (ConnectionError, RuntimeError, ValueError) as error:
            reason = f"no Ray cluster ({str(error).partition(chr(10))[0].rstrip('.')})"
            raise DeviceError("--engine", reason, "check RAY_ADDRESS") from error
    try:
        total = ray.cluster_resources()  # type: ignore[no-untyped-call]
        cpus, gpus = int(total.get("CPU", 1)), int(total.get("GPU", 0))
        on_gpu = gpus > 0 and network.device != "cpu"
        count = workers or (gpus if on_gpu else max(1, cpus // _CPUS_PER_TASK))
        task = ray.remote(
            num_cpus=1 if on_gpu else max(1, cpus // count),
            num_gpus=min(1.0, gpus / count) if on_gpu else 0,
            max_retries=MAX_ATTEMPTS - 1,
            max_calls=0,  # a process keeps its network for the next job, on GPUs too
        )(restore_job)
        known = ray.exceptions
        died = (known.WorkerCrashedError, known.NodeDiedError, known.OutOfMemoryError)
        while waiting or running:
            while waiting and len(running) < count:
                job = waiting.popleft()
                # Workers were started in another folder.
                source, target = (path and path.absolute() for path in (job.source, job.target))
                running[task.remote(Job(source, target, job.kind), options, network)] = job
            (ready,), _ = ray.wait(list(running), num_returns=1)
            job = running.pop(ready)
            try:
                answer = ray.get(ready)
            except died as error:
                reason = f"{MAX_ATTEMPTS} workers died at it ({type(error).__name__})"
                failure = DeblurError(job.source_name, reason, "restore it by itself to see why")
                yield Outcome(job, "failed", failure)
                continue
            if isinstance(answer, DeblurError):
                raise answer
            yield from (replace(outcome, job=job) for outcome in answer)
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
        if started_here:
            ray.shutdown()
