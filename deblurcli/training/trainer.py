"""The training loop, to be read from top to bottom.

One step: draw pictures (`sampling`), synthesise blur and augment on the training device (`feed`),
learn from them (`learner`). Everything that a resumed run needs lies in the checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor

from deblurcli.config import Recipe
from deblurcli.data.feed import Feed
from deblurcli.data.sampling import Source, StepData
from deblurcli.errors import DeblurError, UsageError, WeightsError
from deblurcli.models.config import GeneratorConfig
from deblurcli.models.generator import MultiScaleGenerator
from deblurcli.training.checkpoint import RunFolder
from deblurcli.training.progress import Progress, Stopwatch
from deblurcli.training.schedule import Limits, Schedule
from deblurcli.training.signals import StopRequest
from deblurcli.training.train_step import Learner, describe_network
from deblurcli.weights.files import ModelCard

Validate = Callable[[MultiScaleGenerator], dict[str, float]]
"""Measures a network: set name to PSNR in dB."""

# A mean loss this many times the lowest so far means that the training has come apart.
_EXPLODED = 20.0


class Trainer:
    """Trains one generator.

    Args:
        recipe: how.
        sources: on what.
        folder: where everything is kept.
        limits: how long.
        seed: decides everything random.
        precision: ``"bf16"``, ``"fp16"`` or ``"no"`` for fp32.
        workers: processes that prepare data; 0 prepares it between the steps.
        initial: a network to start from instead of a random one; it decides what the recipe
            says of the network. A run that began so is resumed with `RunFolder.load_network`.
        training_data: what the model card shall say of the data.
        cpu: train on the CPU even where there is a GPU.

    Raises:
        UsageError: the batch can't be shared among the processes.
    """

    def __init__(
        self,
        recipe: Recipe,
        sources: list[Source],
        folder: RunFolder,
        limits: Limits,
        *,
        seed: int = 0,
        precision: str = "no",
        workers: int = 0,
        initial: MultiScaleGenerator | None = None,
        training_data: tuple[str, ...] = (),
        cpu: bool = False,
    ) -> None:
        if initial is not None:
            recipe = describe_network(recipe, initial.config)
        self.recipe, self.folder, self.schedule = recipe, folder, Schedule(recipe, limits)
        self.seed, self.training_data = seed, training_data
        self.accelerator = Accelerator(mixed_precision=precision, cpu=cpu)
        for batch in (recipe.batch, recipe.early_batch):
            if batch % self.accelerator.num_processes:
                raise UsageError(
                    f"batch of {batch}",
                    f"can't be shared by {self.accelerator.num_processes} processes",
                    "give a multiple with --set batch=... and --set early_batch=...",
                )
        self.feed = Feed(
            sources,
            recipe,
            seed,
            device=self.accelerator.device,
            workers=workers,
            rank=self.accelerator.process_index,
            processes=self.accelerator.num_processes,
        )
        torch.manual_seed(seed)
        self.learner = Learner(recipe, self.accelerator, initial)
        self.step, self.seconds = 0, 0.0
        self.best, self.lowest_loss = -math.inf, math.inf
        self.scores: dict[str, float] = {}
        self._stop = StopRequest()

    # -- the loop ------------------------------------------------------------------------------

    def run(
        self,
        validate: Validate | None = None,
        *,
        validate_every: int = 1000,
        report: Callable[[Progress], None] = lambda progress: None,
        report_every: int = 20,
    ) -> Progress:
        """Trains until the limits; saves at every validation, at the end, and when interrupted.

        Args:
            validate: measures the running mean of the weights.
            validate_every: steps between validations.
            report: told about the progress.
            report_every: steps between reports.

        Raises:
            DeblurError: the loss is no longer a number or has exploded, a picture can't be
                read, the disk is full; the last checkpoint on disk is intact and from before.
            KeyboardInterrupt: after the step in work was finished and everything saved.
        """
        losses: list[Tensor] = []
        watch = Stopwatch()
        progress = Progress(self.step, self.seconds, self._share(), scores=self.scores)
        means: list[float] = []  # of the reports since the last validation
        with self._stop.listening():
            for data in self._steps(watch):
                losses.append(self._train_step(data))
                self.step += 1
                self.seconds += watch.lap(len(data.slots) * self.accelerator.num_processes)
                stopping = self._agree()
                ending = stopping or self._finished()
                saving = ending or self.step % validate_every == 0
                if saving or self.step % report_every == 0:
                    progress = self._summarise(losses, watch)
                    report(progress)
                    losses.clear()
                    means.append(progress.loss)
                if saving:
                    progress = replace(progress, loss=sum(means) / len(means))
                    measured = False
                    if validate is not None and not stopping:
                        progress = self._validate(validate, progress)
                        report(progress)
                        measured = True
                    self._save(progress, measured=measured)
                    means.clear()
                    watch.skip()
                if stopping:
                    raise KeyboardInterrupt
        return progress

    def close(self) -> None:
        """Ends the connection between the processes; without it one may abort as it exits."""
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()

    def _steps(self, watch: Stopwatch) -> Iterator[StepData]:
        """The data of the coming steps; patches grow when the early share is over."""
        while not self._finished():
            early = self.schedule.is_early(self._share())
            watch.skip()
            for data in self.feed.steps(self.step, early=early):
                watch.data_arrived()
                yield data
                if self._finished() or self.schedule.is_early(self._share()) != early:
                    break

    def _train_step(self, data: StepData) -> Tensor:
        """One update; gives the content loss."""
        blurred, sharp = self.feed.prepare(data)
        return self.learner.learn(blurred, sharp, self._learning_rate())

    # -- schedule ------------------------------------------------------------------------------

    def _agree(self) -> bool:
        """Gives every process the first one's clock, so that all change patches, save and end
        in the same step; returns whether it was asked to stop."""
        stopping = self._stop.asked
        if self.accelerator.num_processes > 1:
            told = torch.tensor([self.seconds, float(stopping)], dtype=torch.float64)
            told = broadcast(told.to(self.accelerator.device), from_process=0)
            self.seconds, stopping = float(told[0]), bool(told[1])
        return stopping

    def _share(self) -> float:
        return self.schedule.share(self.step, self.seconds)

    def _finished(self) -> bool:
        return self._share() >= 1.0

    def _learning_rate(self) -> float:
        return self.schedule.learning_rate(self.step, self._share())

    # -- watching and saving -------------------------------------------------------------------

    def _summarise(self, losses: list[Tensor], watch: Stopwatch) -> Progress:
        loss = float(self.accelerator.reduce(torch.stack(losses).mean(), reduction="mean"))
        if not loss < _EXPLODED * self.lowest_loss:  # written so that NaN counts
            what = "has exploded" if math.isfinite(loss) else "is no longer a number"
            raise DeblurError(
                self.folder.path,
                f"the loss {what} at step {self.step}",
                "go on from the last checkpoint with --resume and a lower --set learning_rate=...",
            )
        self.lowest_loss = min(self.lowest_loss, loss)
        rate, waiting = watch.read()
        return Progress(
            self.step,
            self.seconds,
            self._share(),
            loss,
            self._learning_rate(),
            rate,
            waiting,
            self.scores,
        )

    def _validate(self, validate: Validate, progress: Progress) -> Progress:
        if self.accelerator.is_main_process:
            try:
                self.scores = validate(self.learner.mean_network)
            except DeblurError:  # a picture that can't be read any more: what was learned is kept
                self._save(progress, measured=False)
                raise
        self.accelerator.wait_for_everyone()
        return replace(progress, scores=self.scores)

    def _save(self, progress: Progress, *, measured: bool) -> None:
        """Args: measured: whether `self.scores` are those of the network as it is now."""
        if not self.accelerator.is_main_process:
            return
        scores = self.scores if measured else {}
        mean_score = sum(scores.values()) / len(scores) if scores else -math.inf
        best = mean_score > self.best
        self.best = max(self.best, mean_score)
        self.folder.append_metrics(replace(progress, scores=scores))
        card = self._card(scores)
        self.folder.save(self._state(), self.learner.mean_network, card, best=best)

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = {
            "recipe": asdict(self.recipe),
            "network": self.learner.generator.config.to_json(),
            "seed": self.seed,
            "step": self.step,
            "seconds": self.seconds,
            "best": self.best,
            "lowest_loss": self.lowest_loss,
            "scores": self.scores,
            "random": torch.get_rng_state(),
        }
        return state | {name: part.state_dict() for name, part in self.learner.parts().items()}

    def resume(self) -> None:
        """Goes on exactly where the run in the folder stopped.

        Raises:
            WeightsError: there is no checkpoint, it is damaged, or of another network or seed.
        """
        state = self.folder.load_state()
        if state.get("seed") != self.seed:
            raise WeightsError(
                self.folder.checkpoint,
                f"was trained with --seed {state.get('seed')}",
                "give the same seed",
            )
        try:
            self._refuse_other(state)
            for name, part in self.learner.parts().items():
                part.load_state_dict(state[name])
            torch.set_rng_state(state["random"])
            self.step, self.seconds = state["step"], state["seconds"]
            self.best, self.lowest_loss = state["best"], state["lowest_loss"]
            self.scores = state["scores"]
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise WeightsError(
                self.folder.checkpoint,
                "of another network or recipe",
                "give the same --recipe and --set, or another --output",
            ) from error

    def _refuse_other(self, state: dict[str, Any]) -> None:
        """Raises ValueError where the checkpoint is of another recipe or network: their parts may
        have the same names and shapes."""
        recipe = state["recipe"]
        if (recipe["name"], recipe["optimizer"]) != (self.recipe.name, self.recipe.optimizer):
            raise ValueError("another recipe")
        if GeneratorConfig.from_json(state["network"]) != self.learner.generator.config:
            raise ValueError("another network")

    def _card(self, scores: dict[str, float]) -> ModelCard:
        return ModelCard(
            name=self.folder.path.name,
            training_data=self.training_data,
            recipe={
                **asdict(self.recipe),
                "steps": self.step,
                "minutes": round(self.seconds / 60, 1),
                "seed": self.seed,
                "processes": self.accelerator.num_processes,
            },
            scores={name: {"psnr_db": round(db, 3)} for name, db in scores.items()},
        )
