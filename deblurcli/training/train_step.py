"""What learns: the generator, its optimizer, the running mean of its weights, its adversary."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from deblurcli.config import Recipe
from deblurcli.models.compact import compact_config
from deblurcli.models.config import GeneratorConfig
from deblurcli.models.deepdeblur import deepdeblur_config
from deblurcli.models.generator import MultiScaleGenerator, gaussian_pyramid
from deblurcli.training.adversarial_loss import Adversary
from deblurcli.training.losses import multi_scale_loss
from deblurcli.training.optimizers import make_optimizer, set_learning_rate


def build_generator(recipe: Recipe) -> MultiScaleGenerator:
    """The untrained network of a recipe."""
    if recipe.network == "deepdeblur":
        return MultiScaleGenerator(deepdeblur_config(recipe.scales))
    return MultiScaleGenerator(
        compact_config(recipe.channels, recipe.scales, recipe.unshuffle, recipe.block)
    )


def describe_network(recipe: Recipe, config: GeneratorConfig) -> Recipe:
    """`recipe` as it is where training starts from a network that exists already."""
    if config.body == "resnet":
        return replace(recipe, network="deepdeblur", scales=config.scales)
    return replace(
        recipe,
        network="compact",
        scales=config.scales,
        channels=config.channels,
        unshuffle=config.unshuffle,
        block=config.block,
    )


class Learner:
    """Learns from one batch at a time; knows nothing of data, time and files.

    Args:
        recipe: how.
        accelerator: where, with which precision and among how many processes.
        initial: a network to start from instead of a random one.

    Attributes:
        generator: what is trained.
        adversary: the discriminator, where the recipe has one.
    """

    def __init__(
        self, recipe: Recipe, accelerator: Accelerator, initial: MultiScaleGenerator | None
    ) -> None:
        self._recipe, self._accelerator = recipe, accelerator
        self.generator = initial or build_generator(recipe)
        self.generator.requires_grad_(True).train()
        # mypy: torch's stubs know no Module.to(memory_format=…)
        self.generator.to(accelerator.device).to(
            memory_format=torch.channels_last  # type: ignore[call-overload]
        )
        self._ema = AveragedModel(self.generator, avg_fn=self._average)
        model = _AllScales(self.generator)
        self._model, self._optimizer = accelerator.prepare(
            model, make_optimizer(recipe.optimizer, model, recipe.learning_rate)
        )
        self.adversary: Adversary | None = None
        if recipe.adversarial:
            self.adversary = Adversary(accelerator, recipe.learning_rate)

    def learn(self, blurred: Tensor, sharp: Tensor, learning_rate: float) -> Tensor:
        """One update; gives the content loss (as a tensor, so that nothing waits for it).

        Args:
            blurred, sharp: (N, 3, H, W) float32 in [0, 1], this process's part of the batch.
            learning_rate: of this step.
        """
        recipe = self._recipe
        set_learning_rate(self._optimizer, learning_rate)
        restored = self._model(blurred)
        targets = gaussian_pyramid(sharp, recipe.scales)
        loss = multi_scale_loss(restored, targets, recipe.loss, recipe.frequency)
        content = loss.detach()
        if self.adversary is not None:
            against = self.adversary.learn(restored[0], sharp, learning_rate)
            loss = loss + recipe.adversarial * against
        self._optimizer.zero_grad(set_to_none=True)
        self._accelerator.backward(loss)
        if recipe.clip_norm:
            self._accelerator.clip_grad_norm_(self._model.parameters(), recipe.clip_norm)
        self._optimizer.step()
        self._ema.update_parameters(self.generator)
        return content

    @property
    def mean_network(self) -> MultiScaleGenerator:
        """The running mean of the weights (the weights themselves where the recipe has none)."""
        network = self._ema.module if self._recipe.ema else self.generator
        assert isinstance(network, MultiScaleGenerator)
        return network

    def parts(self) -> dict[str, Any]:
        """What a checkpoint has to hold, by name: each has a state_dict."""
        parts: dict[str, Any] = {
            "generator": self.generator,
            "ema": self._ema,
            "optimizer": self._optimizer,
        }
        if self.adversary is not None:
            parts |= self.adversary.parts()
        if self._accelerator.scaler is not None:
            parts["scaler"] = self._accelerator.scaler
        return parts

    def _average(self, mean: Tensor, current: Tensor, updates: Tensor | int) -> Tensor:
        # The mean is short at first, or it would remember the random start for long.
        decay = min(self._recipe.ema, (1 + float(updates)) / (10 + float(updates)))
        return mean.lerp(current, 1 - decay)


class _AllScales(nn.Module):
    """The generator as training calls it: the outputs of every scale, finest first."""

    def __init__(self, generator: MultiScaleGenerator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, blurred: Tensor) -> list[Tensor]:
        return self.generator.restore_scales(blurred)
