"""The adversarial loss: a discriminator that is trained beside the generator."""

from __future__ import annotations

from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from deblurcli.config import Recipe
from deblurcli.models.discriminator import Discriminator
from deblurcli.training.optimizers import set_learning_rate


class Judged(NamedTuple):
    """The generator's loss, which gradients flow through, and the discriminator's own."""

    generator: Tensor
    discriminator: Tensor


class AdversarialLoss:
    """A discriminator with its optimizer.

    Args:
        recipe: which discriminator, and its Adam's rate.
        accelerator: of the training.

    Attributes:
        discriminator: the network.
        optimizer: its optimizer.
    """

    def __init__(self, recipe: Recipe, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self.discriminator = Discriminator(recipe.discriminator).to(accelerator.device)
        parameters = self.discriminator.parameters()
        optimizer = torch.optim.Adam(parameters, recipe.learning_rate, recipe.betas)
        self._model, self.optimizer = accelerator.prepare(self.discriminator, optimizer)

    def update(self, restored: Tensor, sharp: Tensor, learning_rate: float) -> Judged:
        """Updates the discriminator; gives the generator's loss against it.

        Args:
            restored, sharp: (N, 3, H, W) in [0, 1]; gradients flow to `restored`.
            learning_rate: of this step.
        """
        logistic = nn.functional.binary_cross_entropy_with_logits
        set_learning_rate(self.optimizer, learning_rate)
        # One forward pass for both, as several processes want it.
        verdicts = self._model(torch.cat((sharp, restored.detach()))).float()
        truth = torch.zeros_like(verdicts)
        truth[: len(sharp)] = 1
        loss = 2 * logistic(verdicts, truth)
        self.optimizer.zero_grad(set_to_none=True)
        self._accelerator.backward(loss)
        self.optimizer.step()
        self.discriminator.requires_grad_(False)
        with self._accelerator.autocast():
            verdicts = self.discriminator(restored).float()
        self.discriminator.requires_grad_(True)
        return Judged(logistic(verdicts, torch.ones_like(verdicts)), loss.detach())
