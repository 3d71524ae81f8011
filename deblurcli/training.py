"""The training loop, to be read from top to bottom.

One step: draw pictures (`sampling`), synthesise blur and augment on the training device, run
the generator on all scales, compare with the sharp pyramid, update, follow with the running
mean of the weights. Everything that a resumed run needs lies in the checkpoint.
"""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from deblurcli.checkpoints import ModelCard, save_weights
from deblurcli.degradations import degrade
from deblurcli.errors import DeblurError, WeightsError
from deblurcli.files import atomic_output
from deblurcli.losses import Discriminator, multi_scale_loss
from deblurcli.network import (
    MultiScaleGenerator,
    compact_config,
    deepdeblur_config,
    gaussian_pyramid,
)
from deblurcli.recipes import Recipe
from deblurcli.sampling import Source, StepData, TrainingSteps, augment
from deblurcli.synthesis import render

Validate = Callable[[MultiScaleGenerator], dict[str, float]]


@dataclass(frozen=True)
class Limits:
    """When a training ends: after so many steps or minutes, whichever comes first."""

    steps: int | None = None
    minutes: float | None = None


@dataclass
class Progress:
    """What happened lately, for whoever watches.

    Attributes:
        step: steps done in all, over all resumed runs.
        share: of the whole training that is done, 0 to 1.
        loss: running mean of the training loss.
        samples_per_second: pictures trained on, over all processes.
        waiting: share of the time that was spent waiting for data.
        scores: the latest validation, set name to dB.
    """

    step: int
    share: float
    loss: float
    learning_rate: float
    samples_per_second: float
    waiting: float
    scores: dict[str, float]


class Trainer:
    """Trains one generator.

    Args:
        recipe: how.
        sources: on what.
        folder: gets ``last.pt`` (to resume), ``ema.safetensors`` (the weights), ``best.safetensors``
            (the best by validation) and ``metrics.csv``.
        limits: how long.
        seed: decides everything random.
        precision: ``"bf16"``, ``"fp16"`` or ``"no"`` for fp32.
        workers: processes that prepare data; 0 prepares it between the steps.
        initial: weights to start from instead of random ones.
        training_data: what the model card shall say of the data.
    """

    def __init__(
        self,
        recipe: Recipe,
        sources: list[Source],
        folder: Path,
        limits: Limits,
        *,
        seed: int = 0,
        precision: str = "no",
        workers: int = 0,
        initial: MultiScaleGenerator | None = None,
        training_data: tuple[str, ...] = (),
        cpu: bool = False,
    ) -> None:
        self.recipe, self.sources, self.folder, self.limits = recipe, sources, folder, limits
        self.seed, self.workers, self.training_data = seed, workers, training_data
        self.accelerator = Accelerator(mixed_precision=precision, cpu=cpu)
        torch.manual_seed(seed)
        self.generator = initial or build_generator(recipe)
        self.generator.requires_grad_(True).train()
        device = self.accelerator.device
        self.generator.to(device, memory_format=torch.channels_last)
        self.ema = AveragedModel(self.generator, avg_fn=self._average)
        self.model: nn.Module
        self.optimizer: torch.optim.Optimizer
        self.model, self.optimizer = self.accelerator.prepare(
            _AllScales(self.generator),
            torch.optim.Adam(self.generator.parameters(), lr=recipe.learning_rate),
        )
        self.discriminator: nn.Module | None = None
        if recipe.adversarial:
            discriminator = Discriminator()
            self.discriminator, self.discriminator_optimizer = self.accelerator.prepare(
                discriminator,
                torch.optim.Adam(discriminator.parameters(), lr=recipe.learning_rate),
            )
        self.step, self.seconds = 0, 0.0
        self.best = -math.inf
        self.scores: dict[str, float] = {}

    # -- the loop ------------------------------------------------------------------------------

    def run(
        self,
        validate: Validate | None = None,
        *,
        validate_every: int = 1000,
        report: Callable[[Progress], None] = lambda progress: None,
        report_every: int = 20,
    ) -> Progress:
        """Trains until the limits; saves on the way, at the end, and when interrupted.

        Raises:
            DeblurError: the loss is no longer a number, a picture can't be read, the disk is
                full; the last checkpoint on disk is from before that.
            KeyboardInterrupt: after saving.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        losses: list[Tensor] = []
        watch = _Stopwatch()
        progress = Progress(self.step, self._share(), math.nan, 0.0, 0.0, 0.0, self.scores)
        saved = self.step
        try:
            for data in self._steps(watch):
                losses.append(self._train_step(data))
                self.step += 1
                self.seconds += watch.lap(len(data.slots) * self.accelerator.num_processes)
                if self.step % report_every == 0 or self._finished():
                    progress = self._summarise(losses, watch)
                    report(progress)
                    losses.clear()
                if self.step % validate_every == 0 or self._finished():
                    self._validate(validate)
                    self._save(progress)
                    saved = self.step
                    watch.skip()
        except KeyboardInterrupt:
            if saved < self.step and math.isfinite(progress.loss):
                self._save(progress)
            raise
        return progress

    def _steps(self, watch: _Stopwatch) -> Iterator[StepData]:
        """The data of the coming steps; patches grow when the early share is over."""
        r = self.recipe
        while not self._finished():
            early = self._early()
            dataset = TrainingSteps(
                self.sources, r, self.seed,
                patch_px=r.early_patch_px if early else r.patch_px,
                batch=r.early_batch if early else r.batch,
                first_step=self.step,
                rank=self.accelerator.process_index,
                processes=self.accelerator.num_processes,
            )
            loader = DataLoader(
                dataset, batch_size=None, sampler=_count_from(self.step), num_workers=self.workers,
                prefetch_factor=4 if self.workers else None,
            )
            self._pictures: dict[int, tuple[Tensor, Tensor]] = {}
            self._patch_px = dataset.patch_px
            watch.skip()
            for data in loader:
                watch.data_arrived()
                yield data
                if self._finished() or self._early() != early:
                    break

    def _train_step(self, data: StepData) -> Tensor:
        """One update; gives the loss (a tensor, so that nothing waits for it)."""
        blurred, sharp = self._prepare(data)
        rate = self._learning_rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        targets = gaussian_pyramid(sharp, self.recipe.scales)
        with self.accelerator.autocast():
            restored = self.model(blurred)
        loss = multi_scale_loss(restored, targets, self.recipe.loss, self.recipe.frequency)
        content = loss.detach()
        if self.discriminator is not None:
            loss = loss + self.recipe.adversarial * self._adversarial_step(restored[0], sharp, rate)
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        if self.recipe.clip_norm:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        self.optimizer.step()
        self.ema.update_parameters(self.generator)
        return content

    def _adversarial_step(self, restored: Tensor, sharp: Tensor, rate: float) -> Tensor:
        """Updates the discriminator; gives the generator's loss against it."""
        assert self.discriminator is not None
        judge, logistic = self.discriminator, nn.functional.binary_cross_entropy_with_logits
        for group in self.discriminator_optimizer.param_groups:
            group["lr"] = rate
        with self.accelerator.autocast():
            real, fake = judge(sharp).float(), judge(restored.detach()).float()
        loss = logistic(real, torch.ones_like(real)) + logistic(fake, torch.zeros_like(fake))
        self.discriminator_optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        self.discriminator_optimizer.step()
        with self.accelerator.autocast():
            verdict = judge(restored).float()
        return logistic(verdict, torch.ones_like(verdict))

    @torch.no_grad()
    def _prepare(self, data: StepData) -> tuple[Tensor, Tensor]:
        """(N, 3, P, P) blurred and sharp in [0, 1] on the training device."""
        device = self.accelerator.device

        def to_float(images: list[Tensor]) -> Tensor:
            return torch.stack(images).to(device, non_blocking=True).float() / 255

        if data.synthetic:
            regions, fillings, exposures = zip(*data.synthetic.values(), strict=True)
            made = render(
                to_float(list(regions)), to_float(list(fillings)), list(exposures), self._patch_px
            )
            self._pictures.update(zip(data.synthetic, zip(*made, strict=True), strict=True))
        pairs = []
        for slot, augmentation in zip(data.slots, data.augmentations, strict=True):
            if slot in data.real:
                pair = to_float(list(data.real[slot]))
            else:
                pair = torch.stack(self._pictures[slot])
            pairs.append(augment(pair, augmentation))
        batch = torch.stack(pairs)
        blurred = degrade(batch[:, 0], data.degradations)
        return blurred.contiguous(memory_format=torch.channels_last), batch[:, 1]

    def _average(self, mean: Tensor, current: Tensor, updates: Tensor | int) -> Tensor:
        # The mean is short at first, or it would remember the random start for long.
        decay = min(self.recipe.ema, (1 + float(updates)) / (10 + float(updates)))
        return mean.lerp(current, 1 - decay)

    # -- schedule ------------------------------------------------------------------------------

    def _share(self) -> float:
        shares = [0.0]
        if self.limits.steps:
            shares.append(self.step / self.limits.steps)
        if self.limits.minutes:
            shares.append(self._seconds_everywhere() / 60 / self.limits.minutes)
        return min(max(shares), 1.0)

    def _seconds_everywhere(self) -> float:
        """The first process's clock, so that all agree when to change and to stop."""
        if self.accelerator.num_processes == 1:
            return self.seconds
        seconds = torch.tensor([self.seconds], device=self.accelerator.device)
        return float(broadcast(seconds, from_process=0))

    def _finished(self) -> bool:
        return self._share() >= 1.0

    def _early(self) -> bool:
        return self._share() < self.recipe.early_share

    def _learning_rate(self) -> float:
        r = self.recipe
        warmup = min(1.0, (self.step + 1) / r.warmup_steps) if r.warmup_steps else 1.0
        cosine = 0.5 * (1 + math.cos(math.pi * self._share()))
        return r.learning_rate * warmup * (r.final_rate + (1 - r.final_rate) * cosine)

    # -- watching and saving -------------------------------------------------------------------

    def _summarise(self, losses: list[Tensor], watch: _Stopwatch) -> Progress:
        loss = float(torch.stack(losses).mean())
        if not math.isfinite(loss):
            raise DeblurError(
                self.folder,
                f"the loss is no longer a number at step {self.step}",
                "lower --set learning_rate=..., and go on from the last checkpoint with --resume",
            )
        rate, waiting = watch.read()
        return Progress(
            self.step, self._share(), loss, self._learning_rate(), rate, waiting, self.scores
        )

    def _validate(self, validate: Validate | None) -> None:
        if validate is None or not self.accelerator.is_main_process:
            return
        network: MultiScaleGenerator = self.ema.module.eval()
        self.scores = validate(network)

    def _save(self, progress: Progress) -> None:
        if not self.accelerator.is_main_process:
            return
        self._append_metrics(progress)
        save_weights(self.folder / "ema.safetensors", self.ema.module, self._card(), overwrite=True)
        mean = sum(self.scores.values()) / len(self.scores) if self.scores else -math.inf
        if mean > self.best:
            self.best = mean
            save_weights(
                self.folder / "best.safetensors", self.ema.module, self._card(), overwrite=True
            )
        state: dict[str, Any] = {
            "recipe": asdict(self.recipe),
            "seed": self.seed,
            "step": self.step,
            "seconds": self.seconds,
            "best": self.best,
            "generator": self.generator.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        if self.discriminator is not None:
            state["discriminator"] = self.accelerator.unwrap_model(self.discriminator).state_dict()
            state["discriminator_optimizer"] = self.discriminator_optimizer.state_dict()
        with atomic_output(self.folder / "last.pt", overwrite=True) as part:
            torch.save(state, part)

    def resume(self) -> None:
        """Goes on from ``last.pt`` in the folder.

        Raises:
            WeightsError: there is none, it is damaged, or it is of another network.
        """
        path = self.folder / "last.pt"
        try:
            state = torch.load(path, map_location=self.accelerator.device, weights_only=True)
            self.generator.load_state_dict(state["generator"])
            self.ema.load_state_dict(state["ema"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.discriminator is not None:
                self.accelerator.unwrap_model(self.discriminator).load_state_dict(
                    state["discriminator"]
                )
                self.discriminator_optimizer.load_state_dict(state["discriminator_optimizer"])
            self.step, self.seconds, self.best = state["step"], state["seconds"], state["best"]
        except FileNotFoundError:
            raise WeightsError(path, "no checkpoint to resume from", "leave out --resume") from None
        except Exception as error:  # torch.load raises whatever the damage makes it stumble on
            raise WeightsError(
                path, f"can't be resumed ({error})", "start anew with another --output"
            ) from error

    def _append_metrics(self, progress: Progress) -> None:
        row = {
            "step": self.step, "minutes": round(self.seconds / 60, 2), "loss": progress.loss,
            "learning_rate": progress.learning_rate,
            "samples_per_second": round(progress.samples_per_second, 2),
            "waiting": round(progress.waiting, 4),
            **{name: round(score, 4) for name, score in self.scores.items()},
        }
        path = self.folder / "metrics.csv"
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)

    def _card(self) -> ModelCard:
        return ModelCard(
            name=self.folder.name,
            training_data=self.training_data,
            recipe={**asdict(self.recipe), "steps": self.step,
                    "minutes": round(self.seconds / 60, 1), "seed": self.seed},
            scores={name: {"psnr_db": round(db, 3)} for name, db in self.scores.items()},
        )


def build_generator(recipe: Recipe) -> MultiScaleGenerator:
    """The untrained network of a recipe."""
    if recipe.network == "deepdeblur":
        return MultiScaleGenerator(deepdeblur_config(recipe.scales))
    return MultiScaleGenerator(compact_config(recipe.channels, recipe.scales))


class _AllScales(nn.Module):
    """The generator as training calls it: the outputs of every scale, finest first."""

    def __init__(self, generator: MultiScaleGenerator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, blurred: Tensor) -> list[Tensor]:
        return self.generator.restore_scales(blurred)


class _Stopwatch:
    """Time per step and how much of it was waiting for data."""

    def __init__(self) -> None:
        self._last = self._begin = time.perf_counter()
        self._samples, self._waited, self._trained = 0, 0.0, 0.0

    def skip(self) -> None:
        """What passed since the last lap does not count (validation, saving)."""
        self._last = time.perf_counter()

    def data_arrived(self) -> None:
        self._waited += time.perf_counter() - self._last

    def lap(self, samples: int) -> float:
        """Ends a step; gives its seconds."""
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        self._samples += samples
        self._trained += seconds
        return seconds

    def read(self) -> tuple[float, float]:
        """Samples per second and the waiting share since the last reading."""
        seconds = max(self._trained, 1e-9)
        result = self._samples / seconds, self._waited / seconds
        self._samples, self._waited, self._trained = 0, 0.0, 0.0
        return result


class _count_from:  # noqa: N801  (reads like the function it stands for)
    """An endless sampler: the numbers from `first` on."""

    def __init__(self, first: int) -> None:
        self._first = first

    def __iter__(self) -> Iterator[int]:
        step = self._first
        while True:
            yield step
            step += 1
