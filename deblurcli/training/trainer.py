"""The training loop, to be read from top to bottom.

A step: `data.dataset` draws it in worker processes and makes its pictures on the training device,
`train_step` updates the networks. Everything that a resumed run needs lies in the checkpoint.
"""

import math
import os
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import timedelta
from types import FrameType

import numpy as np
import torch
import torch.distributed
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor

from deblurcli.config import RunConfig
from deblurcli.data.dataset import BatchRenderer, PictureStore, Source, StepData, TrainingDataset
from deblurcli.errors import DeblurError, DeviceMemoryError, UsageError, WeightsError
from deblurcli.models.network import RestorationNetwork
from deblurcli.training.checkpoint import RunFolder
from deblurcli.training.progress import TrainingStatus
from deblurcli.training.schedule import Schedule
from deblurcli.training.train_step import TrainedNetworks, describe_network, train_step
from deblurcli.weights.files import save_weights
from deblurcli.weights.manifest import ModelCard

Validate = Callable[[RestorationNetwork, int, int], list[tuple[str, float]]]
"""Measures a network on this process's share of the pictures, by the number of the process and
that of all: for each picture, its set and its PSNR in dB."""

# A loss this many times the usual isn't saved, and three in a row end the training.
_EXPLODED = 20.0
_LOWER_RATE = "go on from the last checkpoint with --resume --set learning_rate=... (a lower one)"
_SAVE_SECONDS = 600.0  # at least so often, however long validations are apart


class StopRequest:
    """Ctrl-C or SIGTERM (Slurm, ``docker stop``) in the middle of a training: it lets the step in
    work finish, so that what is saved is whole."""

    asked = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Takes both as a request; a second one raises KeyboardInterrupt at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(number: int, frame: FrameType | None) -> None:
            del number, frame
            if self.asked:
                raise KeyboardInterrupt
            self.asked = True

        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class Trainer:
    """Trains one generator. `step` and `seconds` are those of all resumed runs together.

    Args:
        precision: ``"bf16"``, ``"fp16"`` or ``"fp32"``.
        initial: a network to start from; it decides what the recipe says of the network.
        resume: go on exactly where the run in the folder stopped; its network is taken.
        training_data: what the model card shall say of the data.
        cpu: train on the CPU even where there is a GPU.

    Raises UsageError where the batch can't be shared among the processes, WeightsError where there
    is nothing to resume, or it is damaged or of another recipe, DeblurError for bad data.
    """

    def __init__(
        self,
        config: RunConfig,
        sources: list[Source],
        folder: RunFolder,
        *,
        precision: str = "fp32",
        initial: RestorationNetwork | None = None,
        resume: bool = False,
        training_data: tuple[str, ...] = (),
        cpu: bool = False,
    ) -> None:
        state = None
        if resume:
            initial, state = folder.load()
        if initial is not None:
            config = replace(config, recipe=describe_network(config.recipe, initial.config))
        self.config, self.folder, self.training_data = config, folder, training_data
        recipe = config.recipe
        self.schedule = Schedule(recipe, config.steps, config.minutes)
        self.accelerator = Accelerator(
            mixed_precision={"fp32": "no"}.get(precision, precision),
            cpu=cpu,
            log_with=None if config.track == "none" else config.track,
            project_dir=str(folder.path),
        )
        device, self.processes = self.accelerator.device, self.accelerator.num_processes
        for batch, _ in recipe.stages:
            if batch % (self.processes * recipe.accumulate):
                among = f"{self.processes} processes in {recipe.accumulate} parts"
                remedy = "give a multiple with --set batch=... and --set early_batch=..."
                raise UsageError(f"batch of {batch}", f"can't be shared by {among}", remedy)
        # Decisions are exchanged beside the gradients: on CPUs, so that no GPU has to be waited
        # for, and patiently, because a validation or a slow disk may take its time.
        self._group = None
        if self.processes > 1:
            self._group = torch.distributed.new_group(backend="gloo", timeout=timedelta(days=7))

        self.workers = config.workers or 0  # beside a CPU none: the training itself needs its cores
        if config.workers is None and device.type != "cpu":
            has_affinity = hasattr(os, "sched_getaffinity")
            cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
            self.workers = max(1, min(16, cores // self.processes - 1))
        paths = (path for source in sources for path in source.paths)
        store, is_resident = PictureStore(paths, shared=self.workers > 0), False
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = True
            is_resident = store.total_bytes < 0.4 * torch.cuda.mem_get_info(device)[0]
        self._renderer = BatchRenderer(recipe, device, store if is_resident else None)
        share = {"rank": self.accelerator.process_index, "processes": self.processes}
        self._dataset = TrainingDataset(
            sources, store, recipe, config.seed, crop_here=not is_resident, **share
        )
        torch.manual_seed(config.seed)
        self.networks = TrainedNetworks(recipe, self.accelerator, initial)
        self.step, self.seconds, self.best = 0, 0.0, -math.inf
        self.scores: dict[str, float] = {}
        self.metrics: list[dict[str, float]] = []  # the rows of ``metrics.csv``
        if state is not None:
            try:
                self.networks.load_state_dict(state)
                torch.set_rng_state(state["random"])
                self.step, self.seconds, self.best = state["step"], state["seconds"], state["best"]
                self.scores, self.metrics = state["scores"], state["metrics"]
            except (KeyError, RuntimeError, ValueError, TypeError) as error:
                raise folder.unusable() from error
        self.stop = StopRequest()

    # -- the loop ------------------------------------------------------------------------------

    def run(  # noqa: PLR0915  (from top to bottom)
        self,
        validate: Validate | None = None,
        *,
        report: Callable[[TrainingStatus], None] = lambda status: None,
        report_every: int = 20,
        samples: Callable[[RestorationNetwork], NDArray[np.uint8]] | None = None,
    ) -> TrainingStatus:
        """Trains until the end; saves at validations, every ten minutes, at the end, and when
        interrupted.

        Args:
            validate: measures the moving average of the weights; also before the first step.
            report_every: steps between reports; only then losses are read from the device.
            samples: pictures to log at validations, ``(N, H, W, 3) uint8``.

        Raises:
            DeblurError: the loss is no longer a number or has exploded, a picture can't be read,
                the disk is full; the last checkpoint on disk is intact and from before.
            DeviceMemoryError: the device has too little memory.
            KeyboardInterrupt: after the step in work was finished and everything saved.
        """
        config, saved_at = self.config, self.seconds
        recent: list[float] = []  # mean losses of the latest reports
        since_save: list[float] = []  # and of those since the last checkpoint
        # Since the last report: sums of the losses, and what they were summed over.
        sums, steps = torch.zeros(4, device=self.accelerator.device), 0
        pictures, waited_seconds, reported_at = 0, 0.0, self.seconds
        status = TrainingStatus(self.step, self.seconds, self._progress(), scores=self.scores)
        if config.track != "none":
            values = {name: str(value) for name, value in asdict(config).items()}
            self.accelerator.init_trackers(config.track, values)
        with self.stop.listening(), self._out_of_memory_in_one_line():
            if validate is not None and self.step == 0:
                status = self._validate(validate, status, samples)
                self._save(status, measured=True)
                report(status)
            begun = time.perf_counter()
            for data in self._steps():
                waited_seconds += time.perf_counter() - begun
                blurred, sharp = self._renderer.render(data)
                rate = self.schedule.learning_rate(self.step, self._progress())
                losses = train_step(self.networks, blurred, sharp, rate)
                sums += torch.stack(losses).float()
                steps += 1
                self.step += 1
                pictures += len(data.samples) * self.processes
                begun, before = time.perf_counter(), begun
                self.seconds += begun - before
                stopping = self._agree()
                ending = stopping or self._progress() >= 1
                validating = ending or self.step % config.validate_every == 0
                saving = validating or self.seconds - saved_at > _SAVE_SECONDS
                if saving or self.step % report_every == 0:
                    seconds = max(self.seconds - reported_at, 1e-9)
                    speed, waiting = pictures / seconds, waited_seconds / seconds
                    status = self._summarise(sums / steps, rate, speed, waiting)
                    report(status)
                    sums.zero_()
                    steps, pictures, waited_seconds, reported_at = 0, 0, 0.0, self.seconds
                    recent = [*recent[-50:], status.loss]
                    since_save.append(status.loss)
                    unusual = self._is_unusual(recent)
                is_main = self.accelerator.is_main_process
                if is_main and config.snapshot_every and self.step % config.snapshot_every == 0:
                    snapshot = self.folder.path / f"snapshots/step-{self.step:08d}.safetensors"
                    snapshot.parent.mkdir(exist_ok=True)
                    save_weights(snapshot, self.networks.ema_model, self._card({}), overwrite=True)
                if saving and (ending or not unusual):
                    status = replace(status, loss=statistics.fmean(since_save))
                    measured = validate is not None and validating and not stopping
                    if validate is not None and measured:
                        status = self._validate(validate, status, samples)
                        report(status)
                    self._save(status, measured=measured)
                    saved_at = self.seconds
                    since_save.clear()
                    begun = time.perf_counter()  # saving counts as neither training nor waiting
                if stopping:
                    raise KeyboardInterrupt
        return status

    def close(self) -> None:
        """Ends the connection between the processes; without it one may abort as it exits."""
        if self._group is not None:
            torch.distributed.barrier(self._group)
        self.accelerator.end_training()

    def _steps(self) -> Iterator[StepData]:
        """The data of the coming steps; patches grow from stage to stage."""
        while (progress := self._progress()) < 1:
            stage = self.schedule.stage(progress)
            dataset = replace(self._dataset, stage=stage, first_step=self.step)
            is_gpu = self.accelerator.device.type == "cuda"
            for data in dataset.steps(self.workers, pin_memory=is_gpu):
                yield data
                progress = self._progress()
                if progress >= 1 or self.schedule.stage(progress) != stage:
                    break

    def _progress(self) -> float:
        return self.schedule.progress(self.step, self.seconds)

    def _agree(self) -> bool:
        """Gives every process the same clock, so that all change patches, save and end in the
        same step; returns whether one of them was asked to stop."""
        if self._group is None:
            return self.stop.asked
        told = torch.tensor([self.seconds, float(self.stop.asked)], dtype=torch.float64)
        torch.distributed.all_reduce(told, torch.distributed.ReduceOp.MAX, self._group)
        self.seconds = float(told[0])
        return bool(told[1])

    @contextmanager
    def _out_of_memory_in_one_line(self) -> Iterator[None]:
        try:
            yield
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            is_memory = isinstance(error, torch.OutOfMemoryError | MemoryError)
            if not (is_memory or "allocate memory" in str(error)):
                raise
            batch, side_px = self.config.recipe.stages[self.schedule.stage(self._progress())]
            reason = f"out of memory with {batch} patches of {side_px} px"
            remedy = "use --set accumulate=2, or a smaller batch or patch_px"
            raise DeviceMemoryError(str(self.accelerator.device), reason, remedy) from error

    # -- watching and saving -------------------------------------------------------------------

    def _summarise(
        self, means: Tensor, rate: float, speed: float, waiting: float
    ) -> TrainingStatus:
        losses = self.accelerator.reduce(means, reduction="mean").tolist()
        names = ("loss", "gradient_norm", "adversarial_loss", "discriminator_loss")
        figures = dict(zip(names, losses, strict=True))
        figures |= {"learning_rate": rate, "samples_per_second": speed, "waiting": waiting}
        now = (self.step, self.seconds, self._progress())
        status = TrainingStatus(*now, scores=self.scores, **figures)
        figures = replace(status, scores={}).row()
        del figures["step"]
        self.accelerator.log({k: v for k, v in figures.items() if math.isfinite(v)}, self.step)
        return status

    def _is_unusual(self, losses: list[float]) -> bool:
        """Whether the latest of the reported losses is far above the usual. Steps of few pictures
        differ by far, so it is measured against the median. Raises DeblurError where three in a row
        are, or it is no number: the training has come apart."""
        what = "is no longer a number"
        if math.isfinite(losses[-1]):
            usual = statistics.median(losses[:-3] or losses)
            unusual = [loss > _EXPLODED * usual for loss in losses[-3:]]
            if len(losses) <= 8 or not all(unusual):
                return unusual[-1]
            what = "has exploded"
        raise DeblurError(self.folder.path, f"the loss {what} at step {self.step}", _LOWER_RATE)

    def _validate(
        self,
        validate: Validate,
        status: TrainingStatus,
        samples: Callable[[RestorationNetwork], NDArray[np.uint8]] | None,
    ) -> TrainingStatus:
        rank, network = self.accelerator.process_index, self.networks.ema_model
        found: list[list[tuple[str, float]] | DeblurError] = []
        try:
            found.append(validate(network, rank, self.processes))
        except DeblurError as error:  # a picture that can't be read any more
            found.append(error)
        if self._group is not None:
            mine, found = found[0], found * self.processes
            torch.distributed.all_gather_object(found, mine, self._group)
        measured: dict[str, list[float]] = {}
        for part in found:
            if isinstance(part, WeightsError):  # of no use: the last checkpoint stays
                reason = f"the network has come apart by step {self.step}: it makes no pictures now"
                raise DeblurError(self.folder.path, reason, _LOWER_RATE)
            if isinstance(part, DeblurError):
                self._save(status, measured=False)  # what was learned is kept
                raise part
            for name, psnr_db in part:
                measured.setdefault(name, []).append(psnr_db)
        self.scores = {name: statistics.fmean(measured[name]) for name in sorted(measured)}
        status = replace(status, scores=self.scores)
        self.accelerator.log({f"psnr_db/{k}": db for k, db in self.scores.items()}, self.step)
        if samples is not None and self.accelerator.is_main_process:
            pictures = samples(network)
            words = {"dataformats": "NHWC"} if self.config.track == "tensorboard" else {}
            for tracker in self.accelerator.trackers:
                tracker.log_images({"samples": pictures}, step=self.step, **words)
        return status

    def _save(self, status: TrainingStatus, *, measured: bool) -> None:
        """`measured`: whether `self.scores` are those of the network as it is now."""
        if not self.accelerator.is_main_process:
            return
        scores = self.scores if measured else {}
        mean_score = statistics.fmean(scores.values()) if scores else -math.inf
        best = mean_score > self.best
        self.best = max(self.best, mean_score)
        self.metrics.append(replace(status, scores=scores).row())
        kept = ("step", "seconds", "best", "scores", "metrics")
        state = self.networks.state_dict() | {name: getattr(self, name) for name in kept}
        state["network"] = self.networks.generator.config.to_json()
        state["random"] = torch.get_rng_state()
        self.folder.save(state, self.networks.ema_model, self._card(scores), best=best)

    def _card(self, scores: dict[str, float]) -> ModelCard:
        recipe = {**asdict(self.config.recipe), "steps": self.step, "seed": self.config.seed}
        recipe |= {"minutes": round(self.seconds / 60, 1), "processes": self.processes}
        measured = {name: {"psnr_db": round(db, 3)} for name, db in scores.items()}
        name, data = self.folder.path.name, self.training_data
        return ModelCard(name=name, training_data=data, recipe=recipe, scores=measured)
